// Products of bfloat16 matrices by oneDNN, which has the CPU's own instructions for them (AMX, AVX512-BF16).
#include "kernels/cpu/support/gemm_bf16.h"

#ifdef TANDEM_WITH_ONEDNN

#include <omp.h>

#include <array>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "core/threads.h"
#include "kernels/cpu/support/copy.h"

namespace tandem {

namespace {

using dnnl::memory;

using Key = std::array<int64_t, 10>;  // m, n, k, a's and b's strides, c's row, accumulate, threads
struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t hash = 0;
    for (int64_t value : key) hash = (hash ^ static_cast<uint64_t>(value)) * 0x9e3779b97f4a7c15u + (hash >> 29);
    return static_cast<size_t>(hash);
  }
};

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

struct Product {
  dnnl::matmul primitive;
  memory::desc a, b, c;
  int64_t scratch_bytes;
};

Product create(const Key& key) {
  const auto [m, n, k, a_row, a_column, b_row, b_column, c_row, accumulate, threads] = key;
  (void)threads;
  Product p;
  p.a = memory::desc({m, k}, memory::data_type::bf16, memory::dims{a_row, a_column});
  p.b = memory::desc({k, n}, memory::data_type::bf16, memory::dims{b_row, b_column});
  p.c = memory::desc({m, n}, memory::data_type::f32, memory::dims{c_row, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulate) {
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attributes.set_post_ops(add);
  }
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(engine(), p.a, p.b, p.c, attributes);
#else
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(p.a, p.b, p.c), attributes, engine());
#endif
  p.scratch_bytes = static_cast<int64_t>(description.scratchpad_desc().get_size());
  p.primitive = dnnl::matmul(description);
  return p;
}

/// Made once, kept for good. Null where oneDNN has none for this CPU or layout.
const Product* find(const Key& key) {
  static std::mutex mutex;
  static std::unordered_map<Key, std::unique_ptr<const Product>, KeyHash> cache;
  const std::lock_guard lock(mutex);
  if (const auto found = cache.find(key); found != cache.end()) return found->second.get();
  std::unique_ptr<const Product> made;
  try {
    made = std::make_unique<Product>(create(key));
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory) throw std::bad_alloc();
    // Unimplemented: our own product will do.
  }
  return cache.emplace(key, std::move(made)).first->second.get();
}

}  // namespace

bool onednn_gemm_bf16(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t c_row,
                      bool accumulate) try {
  constexpr int64_t kWorthwhile = 48 * 48 * 48;  // below, the call costs more than the product
  // A primitive is cut up for its number of threads; within a parallel region only the first of them would run.
  if (m * n * k < kWorthwhile || omp_in_parallel()) return false;
  // One of two strides must be 1; an extent of 1 has any.
  if (a.column != 1 && a.row != 1) return false;
  if (b.column != 1 && b.row != 1) return false;
  const Product* p = find({m, n, k, a.row, a.column, b.row, b.column, c_row, accumulate, num_threads()});
  if (!p) return false;
  thread_local dnnl::stream stream(engine());
  const Scratch scratch(p->scratch_bytes);
  p->primitive.execute(stream, {{DNNL_ARG_SRC, memory(p->a, engine(), const_cast<void*>(a.data))},
                                {DNNL_ARG_WEIGHTS, memory(p->b, engine(), const_cast<void*>(b.data))},
                                {DNNL_ARG_DST, memory(p->c, engine(), c)},
                                {DNNL_ARG_SCRATCHPAD,
                                 memory(memory::desc({p->scratch_bytes}, memory::data_type::u8, memory::format_tag::x),
                                        engine(), scratch.as<void>())}});
  stream.wait();
  return true;
} catch (const dnnl::error&) {
  // It could not run now: our own product will do, from the start where nothing is added to.
  if (accumulate) throw std::bad_alloc();
  return false;
}

}  // namespace tandem

#else

namespace tandem {
bool onednn_gemm_bf16(int64_t, int64_t, int64_t, Matrix, Matrix, float*, int64_t, bool) { return false; }
}  // namespace tandem

#endif

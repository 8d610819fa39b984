// Convolutions by oneDNN, in its plain channels-last layout: within a tenth of its blocked layouts, and no
// reorders of images. Created primitives are kept here: a hit in oneDNN's own cache costs microseconds.
#include "kernels/cpu/conv.h"

#ifdef TANDEM_WITH_ONEDNN

#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

using dnnl::memory;

struct Key {
  ConvPart part;
  int64_t biased, threads;  // oneDNN cuts work up for the threads that there are when a primitive is made
  ConvProblem problem;
  bool operator==(const Key& other) const {
    return part == other.part && biased == other.biased && threads == other.threads && problem == other.problem;
  }
};
struct KeyHash {
  size_t operator()(const Key& key) const {
    constexpr size_t words = sizeof(ConvProblem) / sizeof(int64_t);
    int64_t values[words];
    std::memcpy(values, &key.problem, sizeof values);
    uint64_t hash = static_cast<uint64_t>(key.part) * 4 + static_cast<uint64_t>(key.biased) * 2 +
                    static_cast<uint64_t>(key.threads) * 64;
    for (int64_t value : values) hash = (hash ^ static_cast<uint64_t>(value)) * 0x9e3779b97f4a7c15u + (hash >> 29);
    return static_cast<size_t>(hash);
  }
};

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

/// A primitive, the layouts it wants, and the reorder of weights between ours and its own.
struct Convolution {
  dnnl::primitive primitive, reorder;
  memory::desc image, image_out, plain_weight, weight, bias;
  int64_t scratch_bytes = 0;
  bool reorders = false;
};

Convolution create(const Key& key) {
  const ConvProblem& p = key.problem;
  const auto f32 = memory::data_type::f32;
  const auto any = memory::format_tag::any;
  const auto images = memory::format_tag::nhwc;
  const memory::dims x_dims{p.batch, p.in, p.in_height, p.in_width}, y_dims{p.batch, p.out, p.out_height, p.out_width};
  const bool grouped = p.groups > 1;
  const memory::dims w_dims = grouped
                                  ? memory::dims{p.groups, p.out / p.groups, p.in / p.groups, p.kernel[0], p.kernel[1]}
                                  : memory::dims{p.out, p.in, p.kernel[0], p.kernel[1]};
  const memory::dims strides{p.stride[0], p.stride[1]}, padding{p.padding[0], p.padding[1]},
      dilation{p.dilation[0] - 1, p.dilation[1] - 1};
  // What the windows leave over at the far edges counts as (less) padding there.
  memory::dims far_padding(2);
  const int64_t in_extent[] = {p.in_height, p.in_width}, out_extent[] = {p.out_height, p.out_width};
  for (size_t i = 0; i < 2; ++i)
    far_padding[i] =
        (out_extent[i] - 1) * p.stride[i] + p.dilation[i] * (p.kernel[i] - 1) + 1 - in_extent[i] - p.padding[i];

  Convolution c;
  c.image = memory::desc(x_dims, f32, images);
  c.image_out = memory::desc(y_dims, f32, images);
  c.plain_weight = memory::desc(w_dims, f32, grouped ? memory::format_tag::goihw : memory::format_tag::oihw);
  c.bias = key.biased ? memory::desc({p.out}, f32, memory::format_tag::x) : memory::desc();
  const memory::desc free_weight(w_dims, f32, any);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const auto training = dnnl::prop_kind::forward_training;

#if DNNL_VERSION_MAJOR >= 3
  const dnnl::convolution_forward::primitive_desc forward(engine(), training, algorithm, c.image, free_weight, c.bias,
                                                          c.image_out, strides, dilation, padding, far_padding,
                                                          attributes);
#else
  const dnnl::convolution_forward::desc forward_desc =
      key.biased ? dnnl::convolution_forward::desc(training, algorithm, c.image, free_weight, c.bias, c.image_out,
                                                   strides, dilation, padding, far_padding)
                 : dnnl::convolution_forward::desc(training, algorithm, c.image, free_weight, c.image_out, strides,
                                                   dilation, padding, far_padding);
  const dnnl::convolution_forward::primitive_desc forward(forward_desc, attributes, engine());
#endif
  const auto keep = [&](const auto& description, const memory::desc& weight, auto make) {
    c.weight = weight;
    c.scratch_bytes = static_cast<int64_t>(description.scratchpad_desc().get_size());
    c.primitive = make(description);
  };
  switch (key.part) {
    case ConvPart::forward:
      keep(forward, forward.weights_desc(), [](const auto& d) { return dnnl::convolution_forward(d); });
      break;
    case ConvPart::input_grad: {
#if DNNL_VERSION_MAJOR >= 3
      const dnnl::convolution_backward_data::primitive_desc d(engine(), algorithm, c.image, free_weight, c.image_out,
                                                              strides, dilation, padding, far_padding, forward,
                                                              attributes);
#else
      const dnnl::convolution_backward_data::primitive_desc d(
          {algorithm, c.image, free_weight, c.image_out, strides, dilation, padding, far_padding}, attributes, engine(),
          forward);
#endif
      keep(d, d.weights_desc(), [](const auto& d) { return dnnl::convolution_backward_data(d); });
      break;
    }
    case ConvPart::weight_grad: {
#if DNNL_VERSION_MAJOR >= 3
      const dnnl::convolution_backward_weights::primitive_desc d(engine(), algorithm, c.image, free_weight, c.image_out,
                                                                 strides, dilation, padding, far_padding, forward,
                                                                 attributes);
#else
      const dnnl::convolution_backward_weights::primitive_desc d(
          {algorithm, c.image, free_weight, c.image_out, strides, dilation, padding, far_padding}, attributes, engine(),
          forward);
#endif
      keep(d, d.diff_weights_desc(), [](const auto& d) { return dnnl::convolution_backward_weights(d); });
      break;
    }
  }
  c.reorders = c.weight != c.plain_weight;
  if (c.reorders) {
    const bool back = key.part == ConvPart::weight_grad;
    c.reorder = dnnl::reorder(dnnl::reorder::primitive_desc(engine(), back ? c.weight : c.plain_weight, engine(),
                                                            back ? c.plain_weight : c.weight));
  }
  return c;
}

/// The primitive for a key: made once, kept for good. Null where oneDNN has none.
const Convolution* find(const Key& key) {
  static std::mutex mutex;
  static std::unordered_map<Key, std::unique_ptr<const Convolution>, KeyHash> cache;
  const std::lock_guard lock(mutex);
  if (const auto found = cache.find(key); found != cache.end()) return found->second.get();
  std::unique_ptr<const Convolution> made;
  try {
    made = std::make_unique<Convolution>(create(key));
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory) throw std::bad_alloc();
    // Unimplemented: patches will do.
  }
  return cache.emplace(key, std::move(made)).first->second.get();
}

memory bind(const memory::desc& layout, const void* data) { return memory(layout, engine(), const_cast<void*>(data)); }

}  // namespace

bool onednn_convolve(ConvPart part, const ConvProblem& problem, const ConvOperands& operands) try {
  // A primitive is cut up for its number of threads; within a parallel region only the first of them would run.
  if (omp_in_parallel()) return false;
  const Convolution* c = find({part, operands.bias != nullptr, num_threads(), problem});
  if (!c) return false;
  thread_local dnnl::stream stream(engine());
  const Scratch scratch(c->scratch_bytes);
  const Scratch reordered(c->reorders ? static_cast<int64_t>(c->weight.get_size()) : 0);
  const bool makes_weight = part == ConvPart::weight_grad;
  void* plain = makes_weight ? operands.result : const_cast<void*>(operands.b);
  void* weight = c->reorders ? reordered.as<void>() : plain;
  const memory weight_memory = bind(c->weight, weight);
  const auto reorder = [&] {
    if (!c->reorders) return;
    const memory plain_memory = bind(c->plain_weight, plain);
    c->reorder.execute(stream, {{DNNL_ARG_FROM, makes_weight ? weight_memory : plain_memory},
                                {DNNL_ARG_TO, makes_weight ? plain_memory : weight_memory}});
  };
  const memory scratchpad(memory::desc({c->scratch_bytes}, memory::data_type::u8, memory::format_tag::x), engine(),
                          scratch.as<void>());
  if (!makes_weight) reorder();
  switch (part) {
    case ConvPart::forward: {
      std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, bind(c->image, operands.a)},
                                                {DNNL_ARG_WEIGHTS, weight_memory},
                                                {DNNL_ARG_DST, bind(c->image_out, operands.result)},
                                                {DNNL_ARG_SCRATCHPAD, scratchpad}};
      if (operands.bias) arguments.emplace(DNNL_ARG_BIAS, bind(c->bias, operands.bias));
      c->primitive.execute(stream, arguments);
      break;
    }
    case ConvPart::input_grad:
      c->primitive.execute(stream, {{DNNL_ARG_DIFF_DST, bind(c->image_out, operands.a)},
                                    {DNNL_ARG_WEIGHTS, weight_memory},
                                    {DNNL_ARG_DIFF_SRC, bind(c->image, operands.result)},
                                    {DNNL_ARG_SCRATCHPAD, scratchpad}});
      break;
    case ConvPart::weight_grad:
      c->primitive.execute(stream, {{DNNL_ARG_DIFF_DST, bind(c->image_out, operands.a)},
                                    {DNNL_ARG_SRC, bind(c->image, operands.b)},
                                    {DNNL_ARG_DIFF_WEIGHTS, weight_memory},
                                    {DNNL_ARG_SCRATCHPAD, scratchpad}});
      reorder();
      break;
  }
  stream.wait();
  return true;
} catch (const dnnl::error&) { return false; }  // it could not run now: patches will do

}  // namespace tandem

#else

namespace tandem {
bool onednn_convolve(ConvPart, const ConvProblem&, const ConvOperands&) { return false; }
}  // namespace tandem

#endif

// Elements per second of the shared scalar mathematics, in cache, on one thread, for each instruction set.
//
//     math_bench --benchmark_filter=tanh
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/math/tables.h"

extern "C" const MathTable math_table_cpp_portable;
#if defined(__x86_64__)
extern "C" const MathTable math_table_cpp_avx2;
extern "C" const MathTable math_table_cpp_avx512;
#endif

namespace {

constexpr long count = 4096;  // 16 KiB in and 16 KiB out: the first-level cache

struct Buffers {
  alignas(64) float x[count], y[count];
  alignas(64) unsigned short half[count];
  Buffers() {
    for (long i = 0; i < count; ++i) {
      x[i] = static_cast<float>(i % 1999) * 0.004f - 3.9f;
      half[i] = static_cast<unsigned short>(i * 7);
    }
  }
};

template <class Call> void measure(const std::string& name, Call call) {
  benchmark::RegisterBenchmark(name.c_str(), [call](benchmark::State& state) {
    static Buffers buffers;
    for (auto _ : state) {
      call(buffers);
      benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations() * count);
  });
}

void measure_all(const std::string& level, const MathTable& table) {
#define MATH_MEASURE(function) \
  measure(#function "/" + level, [&table](Buffers& b) { table.function(b.x, b.y, count); });
  MATH_FUNCTIONS(MATH_MEASURE)
#undef MATH_MEASURE
  measure("uniform/" + level, [&table](Buffers& b) { table.uniform(1, 2, 0, b.y, count); });
  measure("uniform_blocks/" + level, [&table](Buffers& b) { table.uniform_blocks(1, 2, 0, b.y, count); });
  measure("normal/" + level, [&table](Buffers& b) { table.normal(1, 2, 0, b.y, count); });
  measure("normal_blocks/" + level, [&table](Buffers& b) { table.normal_blocks(1, 2, 0, b.y, count); });
  measure("widen_f16/" + level, [&table](Buffers& b) { table.widen_f16(b.half, b.y, count); });
  measure("widen_bf16/" + level, [&table](Buffers& b) { table.widen_bf16(b.half, b.y, count); });
  measure("narrow_f16/" + level, [&table](Buffers& b) { table.narrow_f16(b.x, b.half, count); });
  measure("narrow_bf16/" + level, [&table](Buffers& b) { table.narrow_bf16(b.x, b.half, count); });
}

}  // namespace

int main(int argc, char** argv) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    measure_all("avx512", math_table_cpp_avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) measure_all("avx2", math_table_cpp_avx2);
#endif
  measure_all("portable", math_table_cpp_portable);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

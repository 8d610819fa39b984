// What errors of the device say.
#include <doctest/doctest.h>

#include <string>

#include "kernels/cuda/capture.h"
#include "tandem.h"
#include "tests/support.h"

#ifdef TANDEM_EMULATOR
#include "cuda_runtime.h"
#endif

using namespace tandem;

#ifdef TANDEM_EMULATOR
namespace {

template <class F> std::string error_of(F f) {
  try {
    f();
  } catch (const KernelError& error) { return error.what(); }
  return "";
}

}  // namespace

TEST_CASE(
    "cuda: an error of a kernel is told by who waits, and with each launch waited for names the op and its line") {
  const NoGrad guard;
  const Tensor x = ones({10}, {.device = cuda(0)});
  synchronize(cuda(0));
  const auto run = [&] {
    tandem_emulator::fail_launch(2);
    const Tensor y = x * 2 + 1;
    const Tensor z = tanh(y);
    (void)z.cpu();
  };
  const std::string late = error_of(run);
  CHECK_MESSAGE(contains(late, "transfer: CUDA: copy between devices"), late);
  CHECK_MESSAGE(contains(late, "TANDEM_CUDA_SYNC=1"), late);
  CHECK_MESSAGE(contains(late, "cuda_runtime_test.cpp:"), late);

  gpu::set_synchronous(true);
  const std::string text = error_of(run);
  CHECK_MESSAGE(contains(text, "add: CUDA: launch of "), text);
  CHECK_MESSAGE(contains(text, "cudaErrorIllegalAddress"), text);
  CHECK_MESSAGE(contains(text, "cuda_runtime_test.cpp:"), text);
  gpu::set_synchronous(false);

  // In compiled functions likewise; one that is recorded runs step by step then.
  const auto f = [](const Tensor& a) { return sum(exp(a), 0) + sort(a).values; };
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    for (const bool each : {false, true}) {
      gpu::set_synchronous(each);
      auto g = compile(f, {.mode = mode});
      for (int call = 0; call < 3; ++call) (void)g(x).cpu();
      synchronize(cuda(0));
      tandem_emulator::fail_launch(1);
      const std::string said = error_of([&] {
        const Tensor result = g(x);
        synchronize(cuda(0));
      });
      CAPTURE(said);
      CHECK(contains(said, each ? "CUDA: launch of " : "synchronize: CUDA: synchronize: "));
      CHECK(contains(said, "cuda_runtime_test.cpp:"));
      tandem_emulator::fail_launch(0);
      CHECK(g(x).cpu().shape() == x.shape());
      gpu::set_synchronous(false);
    }
  }
}
#endif

// Ops that compute on the host (kernels/cuda/on_host.def) for tensors on cuda(0), emulated or on a GPU: in all modes, in order with
// the device's kernels, with the CPU's errors; no capture holds them.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "core/dispatch.h"
#include "kernels/cuda/capture.h"
#include "tandem.h"

using namespace tandem;
using namespace tandem::linalg;

namespace {

/// A batch of well-conditioned symmetric matrices, made by kernels of the device.
Tensor matrices(Device device, DType type) {
  const Tensor x = arange(0, 32, 1, {.dtype = type}).reshape({2, 4, 4}).to(device);
  const Tensor s = sin(x * x * 0.37);  // of full rank
  return matmul(s, transpose(s, -2, -1)) + eye(4, 4, {.dtype = type, .device = device}) * 2;
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) { return error.message(); }
  return "none";
}

}  // namespace

TEST_CASE("cuda: the listed ops have the host's kernel") {
  const char* const names[] = {
#define TANDEM_CUDA_ON_HOST(op) #op,
#include "kernels/cuda/on_host.def"
  };
  for (const char* name : names) {
    CAPTURE(name);
    CHECK(find_op(name).contiguous_inputs);
    const bool one = kernel_for(find_op(name), {DeviceKind::cuda}) == kernel_for(find_op(names[0]), {DeviceKind::cuda});
    CHECK(one);
  }
}

TEST_CASE("cuda: linear algebra between kernels of the device, with gradients, in all modes") {
  for (const DType type : {float32, float64}) {
    const auto run = [&](Device device, Mode mode) {
      const Tensor start = matrices(device, type);
      auto step = compile(
          [](const Tensor& a) {
            const Tensor lower = cholesky(a.detach() * 1.5), x = solve(a + 1.0, lower),
                         both = inverse(transpose(a, -2, -1));
            const auto [sign, logarithm] = slogdet(a);
            const auto [w, v] = eigh(a);
            return (x * both).sum() + logarithm.sum() * sign.sum() + (matmul(v, v) * 0).sum() + w.sum();
          },
          {.mode = mode});
      std::vector<double> results;
      for (int i = 0; i < 4; ++i) {  // a recording would be made by the third
        Tensor a = (start + 0.25 * i).detach().requires_grad(true);
        const Tensor y = step(a);
        y.backward();
        results.push_back(y.item<double>());
        results.push_back(sum(a.grad() * a.grad()).item<double>());
      }
      return results;
    };
    const std::vector<double> wanted = run(cpu(), Mode::eager);
    for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
      CAPTURE(name_of(mode));
      const std::vector<double> got = run(cuda(0), mode);
      REQUIRE(got.size() == wanted.size());
      for (size_t i = 0; i < got.size(); ++i)
        CHECK(got[i] == doctest::Approx(wanted[i]).epsilon(type == float32 ? 1e-4 : 1e-10));
    }
  }
}

TEST_CASE("cuda: linear algebra of transposed, broadcast and empty operands") {
  NoGrad guard;
  const auto run = [&](Device device) {
    const Tensor a = matrices(device, float32), c = arange(0, 24).reshape({4, 6}).to(device) * 0.3, b = sin(c * c);
    const auto [q, r] = qr(transpose(b, 0, 1));
    return Tensors{solve(a, b),
                   det(a[1]),
                   matmul(q, r),
                   pinv(b),
                   svdvals(a),
                   lstsq(transpose(b, 0, 1), transpose(b, 0, 1)),
                   solve_triangular(a, b, {.upper = true}),
                   eigvalsh(a),
                   det(zeros({3, 0, 0}, {.device = device})),
                   inverse(zeros({0, 2, 2}, {.device = device}))};
  };
  const Tensors wanted = run(cpu()), got = run(cuda(0));
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i].device() == cuda(0));
    CHECK(allclose(got[i].cpu(), wanted[i], {.rtol = 1e-4, .atol = 1e-5}));
  }
}

TEST_CASE("cuda: linear algebra has the CPU's errors") {
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    auto f = compile([](const Tensor& a) { return inverse(a * 1.0); }, {.mode = mode});
    const std::string wanted = error_of([&] { inverse(zeros({2, 2})); });
    CHECK(error_of([&] { f(zeros({2, 2}, {.device = cuda(0)})); }) == wanted);
  }
}

TEST_CASE("cuda: a compiled function with an op of the host runs step by step") {
  NoGrad guard;
  const Tensor a = matrices(cuda(0), float32);
  const auto is_recorded = [&](const std::function<Tensor(const Tensor&)>& of) {
    auto f = compile([&](const Tensor& x) { return of(x); }, {.mode = Mode::compiled});
    for (int i = 0; i < 4; ++i) CHECK(allclose(f(a + i).cpu(), of(a + i).cpu(), {.rtol = 1e-4, .atol = 1e-5}));
    return f.plan().find("recorded as one launch") != std::string::npos;
  };
  CHECK(is_recorded([](const Tensor& x) { return matmul(x * 2, x); }));
  CHECK_FALSE(is_recorded([](const Tensor& x) { return matmul(x * 2, inverse(x)); }));
}

TEST_CASE("cuda: a capture refuses what computes on the host") {
  NoGrad guard;
  const Tensor a = matrices(cuda(0), float32);
  gpu::Capture capture(cuda(0));
  CHECK(error_of([&] { capture.record([&] { inverse(a); }); }) ==
        "inverse: it computes on the host, which a recording of the device's work can't repeat");
  CHECK(inverse(a).cpu().numel() == 32);
}

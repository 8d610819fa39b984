// ctc_loss and its gradients on cuda(0) against the CPU, emulated or on a GPU: targets in rows and one after another, more states
// than a block has threads and than fit into shared memory, labels that are the blank, and what is out of range.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/dispatch.h"
#include "tandem.h"
#include "tests/cuda/orders.h"

using namespace tandem;

namespace {

/// Numbers in [-1, 1), or labels below `bound`, that are the same at every run.
std::vector<double> draw(int64_t count, uint32_t seed, int64_t bound = 0) {
  std::vector<double> values(static_cast<size_t>(count));
  uint32_t state = seed * 2654435761u + 1;
  for (double& value : values) {
    state = state * 1664525u + 1013904223u;
    value = bound > 0 ? static_cast<double>((state >> 8) % static_cast<uint32_t>(bound))
                      : static_cast<double>(static_cast<int32_t>(state)) * 0x1p-31;
  }
  return values;
}
Tensor numbers(const Shape& shape, DType type, uint32_t seed) {
  return tensor(draw(shape.numel(), seed)).reshape(shape).to(type);
}
Tensor whole(const std::vector<int64_t>& values) { return tensor(values); }

void check_same(const Tensor& got, const Tensor& wanted, double tolerance) {
  REQUIRE(got.shape() == wanted.shape());
  const std::vector<double> a = got.to_vector<double>(), b = wanted.to_vector<double>();
  size_t wrong = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])) ||
                      std::fabs(a[i] - b[i]) <= tolerance * std::fmax(1, std::fabs(b[i]));
    wrong += same ? 0 : 1;
  }
  CHECK(wrong == 0);
}

struct Problem {
  int64_t time, classes;
  Tensor targets, times, lengths;
  bool zero_infinity = false;
  int64_t blank = 0;
};

/// The loss, its gradient and that one's on both devices.
void compare(const Problem& p, DType type) {
  NoGrad guard;
  const int64_t batch = p.times.shape()[0];
  const Tensor x = log_softmax(numbers({p.time, batch, p.classes}, type, 3) * 2, -1), g = numbers({batch}, type, 4),
               u = numbers(x.shape(), type, 5);
  const Attributes attributes{{"blank", p.blank}, {"zero_infinity", p.zero_infinity}};
  const auto run = [&](Device device) {
    const auto on = [&](const Tensor& t) { return t.to(device); };
    const Tensors of{on(x), on(p.targets), on(p.times), on(p.lengths)};
    Tensors results = dispatch_all(find_op("ctc_loss"), of, attributes, Where::current());
    const Tensors grad{on(g), of[0], of[1], of[2], of[3]}, second{on(g), of[0], of[1], of[2], of[3], on(u)};
    for (const Tensor& each : dispatch_all(find_op("ctc_loss_grad"), grad, attributes, Where::current()))
      results.push_back(each);
    for (const Tensor& each : dispatch_all(find_op("ctc_loss_second"), second, attributes, Where::current()))
      results.push_back(each);
    for (Tensor& each : results) each = each.cpu();
    return results;
  };
  const Tensors wanted = run(cpu());
  Tensors before;
  in_every_order([&](bool first) {
    const Tensors got = run(cuda(0));
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      const double tolerance = type == float64 ? 1e-11 : type == float32 ? 1e-5 : type == float16 ? 1e-3 : 8e-3;
      check_same(got[i], first ? wanted[i] : before[i], first ? tolerance : 0);
    }
    if (first) before = got;
  });
}

Tensor labels(const Shape& shape, int64_t classes, int64_t least) {
  std::vector<int64_t> values;
  for (const double each : draw(shape.numel(), 9, classes - least))
    values.push_back(static_cast<int64_t>(each) + least);
  return whole(values).reshape(shape);
}

}  // namespace

TEST_CASE("cuda: ctc_loss and its gradients over dtypes") {
  for (const DType type : {float32, float64, float16, bfloat16}) {
    CAPTURE(name_of(type));
    const Tensor rows = whole({1, 2, 2, 3, 0, 0, 1, 1, 3}).reshape({3, 3}), row = whole({1, 2, 2, 3, 1});
    const Tensor times = whole({6, 4, 5});
    compare({6, 4, rows, times, whole({3, 1, 2})}, type);
    compare({6, 4, row, times, whole({3, 0, 2})}, type);
    compare({6, 4, rows, whole({3, 0, 0}), whole({3, 0, 2})}, type);  // no path, and no steps
    compare({6, 4, rows, whole({3, 0, 0}), whole({3, 0, 2}), true}, type);
    compare({6, 4, rows, times, whole({2, 2, 3}), false, 2}, type);  // labels that are the blank
  }
}

TEST_CASE("cuda: ctc_loss of long targets") {
  // Of one lane's state to several, in shared memory; then in a workspace for the second gradient, and for all three.
  compare({190, 7, labels({2, 150}, 7, 1), whole({190, 160}), whole({150, 31})}, float32);
  compare({300, 5, labels({240 + 7}, 5, 1), whole({300, 20}), whole({240, 7})}, float64);
  compare({12, 40, labels({2, 1100}, 40, 1), whole({12, 12}), whole({1100, 6}), true}, float32);
}

TEST_CASE("cuda: ctc_loss without sequences or labels") {
  compare({4, 3, whole({}).reshape({0, 2}), whole({}), whole({})}, float32);
  compare({4, 3, whole({}).reshape({2, 0}), whole({4, 2}), whole({0, 0})}, float32);
  compare({4, 3, whole({}), whole({4, 2}), whole({0, 0})}, float64);
}

TEST_CASE("cuda: lengths and labels of ctc_loss out of range are the CPU's errors") {
  NoGrad guard;
  const Tensor x = log_softmax(numbers({5, 2, 4}, float32, 1), -1), rows = whole({1, 2, 3, 1}).reshape({2, 2}),
               row = whole({1, 2, 3});
  const auto error_of = [&](Device device, const Tensor& targets, const Tensor& times, const Tensor& lengths,
                            Mode mode) {
    auto f = compile([&](const Tensor& p, const Tensor& a, const Tensor& b,
                         const Tensor& c) { return ctc_loss(p, a, b, c, {.reduction = Reduction::sum}); },
                     {.mode = mode});
    std::string message = "none";
    try {
      f(x.to(device), targets.to(device), times.to(device), lengths.to(device)).item<double>();
    } catch (const DimensionError& error) {
      message = "DimensionError: " + error.message();
    } catch (const ValueError& error) { message = "ValueError: " + error.message(); }
    return message;
  };
  struct {
    Tensor targets, times, lengths;
  } cases[] = {
      {rows, whole({5, 6}), whole({2, 1})},     {rows, whole({-1, 5}), whole({2, 1})},
      {rows, whole({5, 5}), whole({2, 3})},     {rows, whole({5, 5}), whole({-2, 3})},
      {row, whole({5, 5}), whole({2, 2})},      {row, whole({5, 5}), whole({4, 1})},
      {rows + 1, whole({5, 5}), whole({2, 2})}, {rows - 2, whole({5, 5}), whole({2, 2})},
      {row + 1, whole({5, 5}), whole({2, 1})},  {row, whole({5, 5}), whole({int64_t{1} << 40, -1})},
  };
  for (const auto& each : cases) {
    const std::string wanted = error_of(cpu(), each.targets, each.times, each.lengths, Mode::eager);
    CHECK(wanted != "none");
    for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled})
      CHECK(error_of(cuda(0), each.targets, each.times, each.lengths, mode) == wanted);
  }
  CHECK(error_of(cuda(0), row, whole({5, 5}), whole({2, 1}), Mode::eager) == "none");
}

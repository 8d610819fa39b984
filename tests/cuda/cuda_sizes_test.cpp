// More elements, rows and tiles than a launch counts in 32 bits, or than a grid has blocks: how work is cut into parts, by the
// numbers alone; that parts give what the whole gives, with launches that are told to take few items; and the errors for what
// can't be cut (docs/cuda.md, Sizes).
#include <doctest/doctest.h>

#include <cstdlib>
#include <vector>

#include "graph/codegen/cuda_source.h"
#include "graph/ir/graph.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/matmul.h"
#include "tandem.h"
#include "tests/cuda/against_cpu.h"
#include "tests/raises.h"
#include "tests/support.h"

using namespace tandem;
using against_cpu::channels_last;
using against_cpu::check_op;

namespace {

constexpr int64_t kTwo31 = int64_t{1} << 31;

/// Launches of few items, for a scope.
class Parts {
 public:
  explicit Parts(int64_t items) : before_(gpu::items_at_once()) { gpu::set_items_at_once(items); }
  ~Parts() { gpu::set_items_at_once(before_); }
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;

 private:
  int64_t before_;
};

// For the suite that is made from the op table.
const bool fewer_items = [] {
  const char* const items = std::getenv("TANDEM_TEST_ITEMS");
  if (items) gpu::set_items_at_once(std::atoll(items));
  return items != nullptr;
}();

template <class F> void in_parts(F f) {
  for (const int64_t items : {7, 40, 256}) {
    CAPTURE(items);
    const Parts parts(items);
    f();
  }
}

}  // namespace

TEST_CASE("cuda sizes: dims of more than 2^32 elements are walked in pieces, each element once, in order") {
  const Parts parts(int64_t{1} << 30);  // whatever the environment says
  for (const Shape& shape :
       {Shape{3, kTwo31 * 2 + 5, 2}, Shape{kTwo31 + 1}, Shape{5, 3, 7, 1 << 30}, Shape{kTwo31, 2}}) {
    CAPTURE(shape);
    const Shape index = contiguous_strides(shape), expanded = Shape::filled(shape.size(), 0);
    int64_t expected = 0, pieces = 0;
    gpu::in_pieces(gpu::Iteration(shape, {{&shape, &index}, {&shape, &expanded}}),
                   [&](const gpu::Iteration& piece, const int64_t* offset) {
                     CHECK(piece.numel() <= int64_t{1} << 30);
                     CHECK(offset[0] == expected);
                     CHECK(offset[1] == 0);
                     expected += piece.numel();
                     ++pieces;
                     const gpu::Layout<2> layout(piece);
                     CHECK(layout.numel == piece.numel());
                   });
    CHECK(expected == shape.numel());
    CHECK(pieces <= 2 * shape.numel() / (int64_t{1} << 30) + 2);
  }
  for (const auto& [rows, width] :
       {std::pair{5 * kTwo31 + 3, int64_t{1}}, {kTwo31 / 2 + 1, int64_t{3}}, {int64_t{3}, kTwo31}}) {
    int64_t expected = 0;
    gpu::in_rows(rows, width, [&, width = width](int64_t first, int64_t count) {
      CHECK(first == expected);
      CHECK((count == 1 || count * width <= int64_t{1} << 30));
      expected += count;
    });
    CHECK(expected == rows);
  }
}

TEST_CASE("cuda sizes: elementwise ops and copies in parts") {
  in_parts([] {
    compare({numbers({5, 37}), numbers({37, 5}, float32, 2)}, [](const Tensors& t) {
      const Tensor x = t[0], y = t[1].transpose(0, 1);
      return Tensors{x + y,
                     x[0] * y,
                     where(x > 0, y, x),
                     x.to(int32),
                     y.contiguous(),
                     x.to(float16).transpose(0, 1).contiguous(),
                     pad(x, {1, 2, 3, 1}),
                     concat({x, y}, 1),
                     flip(y, {0, 1}),
                     x.tril(3),
                     y.contiguous().triu(-1)};
    });
    compare1({numbers({3, 40, 24})}, [](const Tensors& t) { return t[0].permute({2, 0, 1}).contiguous(); });
    compare1({integers({60}, 11)}, [](const Tensors& t) { return one_hot(t[0], 11); });
    compare({numbers({9, 30}), integers({9, 30}, 9), integers({14}, 30)}, [](const Tensors& t) {
      return Tensors{t[0].gather(0, t[1]), t[0].index_select(1, t[2]), t[0].scatter(0, t[1], t[0]),
                     t[0].scatter_add(0, t[1], t[0])};
    });
    check_op("adamw",
             {numbers({90}), numbers({90}, float32, 2), numbers({90}, float32, 3), abs(numbers({90}, float32, 4)),
              full({}, 0.1), full({}, 0.2), full({}, 0.3)},
             {{"beta1", 0.9}, {"beta2", 0.99}, {"epsilon", 1e-8}, {"weight_decay", 0.1}, {"decoupled", true}}, 4);
  });
}

TEST_CASE("cuda sizes: reductions of parts of the results, and of parts of what is folded") {
  in_parts([] {
    for (const DType type : {float32, float64, int32, uint8}) {
      CAPTURE(name_of(type));
      const Tensor x = (numbers({6, 7, 90}) * (is_floating(type) ? 1 : 100)).to(type);
      for (const Shape& dims : {Shape{0}, Shape{1}, Shape{2}, Shape{0, 2}, Shape{0, 1, 2}})
        compare({x}, [&](const Tensors& t) {
          return Tensors{sum(t[0], dims), max(t[0], dims), min(t[0].transpose(0, 2), dims)};
        });
      compare({x}, [](const Tensors& t) {
        return Tensors{argmax(t[0], 0), argmax(t[0], 2), argmin(t[0].reshape({-1}), 0),
                       argmin(t[0].transpose(0, 2), 1)};
      });
    }
    // Equals: the first is in the first part, or alone in the last.
    Tensor same = full({1000}, -INFINITY);
    compare({same, concat({zeros({999}), ones({1})}, 0), concat({same, full({1}, NAN), full({20}, NAN)}, 0)},
            [](const Tensors& t) {
              return Tensors{argmax(t[0], 0), argmin(t[0], 0), argmax(t[1], 0),
                             argmin(t[1], 0), argmax(t[2], 0), max(t[2])};
            });
    compare1({numbers({30, 50})}, [](const Tensors& t) { return mean(t[0]); });
    compare1({zeros({4, 0})}, [](const Tensors& t) { return sum(t[0], 1); });
  });
}

TEST_CASE("cuda sizes: rows in parts") {
  in_parts([] {
    for (const int64_t columns : {5, 600, 9000}) {
      const int64_t rows = columns > 5000 ? 9 : 41;
      const Tensor x = numbers({rows, columns}), g = numbers({rows, columns}, float32, 2);
      const Tensor w = numbers({columns}, float32, 3), b = numbers({columns}, float32, 4);
      compare({x}, [](const Tensors& t) { return Tensors{softmax(t[0]), log_softmax(t[0])}; });
      check_op("softmax_grad", {g, softmax(x)}, {}, 8);
      const Tensors y = check_op("layer_norm", {x, w, b}, {{"epsilon", 1e-5}}, 8);
      check_op("layer_norm_grad", {g, x, w, y[1], y[2]}, {}, 30);
      check_op("rms_norm", {x, w}, {{"epsilon", 1e-5}}, 8);
      const Tensor labels = integers({rows}, columns);
      check_op("cross_entropy", {x, labels}, {}, 4);
      check_op("cross_entropy", {x, labels}, {{"ignore_index", int64_t{3}}}, 4);
    }
    // The place of a label out of range is that in the whole.
    std::vector<int64_t> labels(600, 1);
    labels[590] = 7;
    const Tensor loss = cross_entropy(numbers({600, 5}).to(cuda(0)), tensor(labels).to(cuda(0)));
    try {
      (void)loss.item<float>();
      FAIL_CHECK("no error");
    } catch (const Error& error) { CHECK_MESSAGE(contains(error.what(), "590"), std::string(error.what())); }
  });
}

TEST_CASE("cuda sizes: products and convolutions in parts of rows, columns, terms and images") {
  const gpu::Library before = gpu::library();
  gpu::set_library(gpu::Library::own);
  in_parts([] {
    for (const DType type : {float32, float16, int32}) {
      const Tensor a = (numbers({3, 50, 70}) * 4).to(type), b = (numbers({3, 70, 45}, float32, 2) * 4).to(type);
      compare1({a, b}, [](const Tensors& t) { return matmul(t[0], t[1]); }, {1e-3, 1e-2});
      compare1({a, b}, [](const Tensors& t) { return matmul(t[1].transpose(1, 2), t[0].transpose(1, 2)); },
               {1e-3, 1e-2});
    }
    compare1({numbers({30, 70}), numbers({20, 70}, float32, 2), numbers({20}, float32, 3)},
             [](const Tensors& t) { return linear(t[0], t[1], t[2]); }, {1e-4, 1e-4});
    const Tensor x = numbers({5, 4, 9, 8}), w = numbers({6, 2, 3, 3}, float32, 2), bias = numbers({6}, float32, 3);
    const Attributes attributes{
        {"stride", Shape{2, 1}}, {"padding", Shape{1, 1}}, {"dilation", Shape{1, 1}}, {"groups", int64_t{2}}};
    const Tensors y = check_op("conv2d", {channels_last(x), w, bias}, attributes, 4);
    check_op("conv2d", {x, w, bias}, attributes, 4);
    Attributes of_x = attributes, of_w = attributes;
    of_x.set({"shape", x.shape()});
    of_w.set({"shape", w.shape()});
    check_op("conv2d_input_grad", {y[0], w}, of_x, 4);
    check_op("conv2d_weight_grad", {y[0], x}, of_w, 10);
    compare1({channels_last(x)}, [](const Tensors& t) { return avg_pool2d(t[0], 2); }, {1e-5, 1e-6});
  });
  // More tiles of columns than a grid has in its second dim.
  const int64_t columns = int64_t{65535} * 32 + 40;
  const Tensor row = ones({1, columns}, {.dtype = int32, .device = cuda(0)});
  const Tensor product = matmul(full({1, 1}, 3, {.dtype = int32, .device = cuda(0)}), row);
  CHECK(product.sum().item<int64_t>() == 3 * columns);
  gpu::set_library(before);
}

TEST_CASE("cuda sizes: generated kernels count rows, columns and elements of more than 2^31 in 64 bits") {
  auto f = compile([](const Tensor& x) { return softmax(x * 2); });
  f(numbers({6, 40}));
  bool found = false;
  for (const Node& node : f.stages().back().graph.nodes) {
    if (!node.fused) continue;
    LoopKernel kernel = *node.fused;
    const auto text_of = [&] {
      graph::CudaSource source;
      source.add(kernel);
      return source.text();
    };
    for (Segment& segment : kernel.segments) {
      if (!segment.by_row) continue;
      found = true;
      CHECK(contains(text_of(), "for (td_u32 first"));
      CHECK(contains(text_of(), "const td_u32 column"));
      segment.rows = {kTwo31 * 2 + 3};
      segment.columns = {kTwo31};
      CHECK(contains(text_of(), "for (td_u64 first"));
      CHECK(contains(text_of(), "const td_u64 column"));
    }
  }
  CHECK(found);
}

TEST_CASE("cuda sizes: what a kernel can't count is an error that says so") {
  const NoGrad guard;
  const auto of = [](const Shape& shape) { return ones({1}, {.device = cuda(0)}).expand(shape); };
  RAISES(KernelError, conv2d(of({1, 1, 1 << 16, 1 << 15}), of({1, 1, 1, 1}), {}, {.stride = 1 << 15}),
         "conv2d: 2147483648 pixels in an image, and the CUDA kernel takes at most 1073741823; compute in parts, or on "
         "the CPU");
  RAISES(KernelError, scaled_dot_product_attention(of({1, 1, 8}), of({1, kTwo31, 8}), of({1, kTwo31, 8})),
         "2147483648 sources");
  RAISES(KernelError, interpolate(of({1, 1, 1, kTwo31}), {.size = Pair{1, 1}}), "pixels in a line");
}

#ifndef TANDEM_EMULATOR  // it would take minutes
TEST_CASE("cuda sizes: 2^32 elements and more, of one in memory") {
  const int64_t many = 2 * kTwo31 + 5;
  const Tensor x = ones({1}, {.dtype = bool_, .device = cuda(0)}).expand({many});
  CHECK(x.sum().item<int64_t>() == many);
  CHECK(argmax(x, 0).item<int64_t>() == 0);
  CHECK(x.expand({3, many}).sum(1).to_vector<int64_t>() == std::vector<int64_t>(3, many));
  CHECK(max(x.to(bool_)).item<bool>());
  const Tensor row = ones({1}, {.dtype = float16, .device = cuda(0)}).expand({1, many});
  CHECK(matmul(row, row.transpose(0, 1)).item<double>() == INFINITY);  // 2^32 is no float16
}
#endif

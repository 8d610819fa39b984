// Samples of views, concat and slice_grad: numbers that move, and never change.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// `from` gives the position in operand 0 of each position of the result; -1 is a zero.
void add(Samples& samples, const char* op, std::string label, const Shape& shape, const Shape& result, Call call,
         std::function<int64_t(const Shape&)> from) {
  samples.push_back({.op = op, .label = std::move(label), .operands = {{shape, spread(-9, 9)}}, .dtypes = kAll, .call = std::move(call),
                     .reference = [result, from = std::move(from)](const NumberLists& in) {
                       Numbers out(result, in[0].dtype);
                       for (int64_t i = 0; i < out.numel(); ++i) {
                         const int64_t position = from(unravel(i, result));
                         out[i] = position < 0 ? 0 : in[0][position];
                       }
                       return NumberLists{out};
                     },
                     .ulps = 0, .gradients = Gradients::second, .large = shape.numel() > 1000});
}

void add_reshapes(Samples& samples) {
  const auto reshapes = [&](const Shape& from, const Shape& to, const Shape& result) {
    add(samples, "reshape", detail::str(from, " to ", to), from, result, [to](const Tensors& x) { return Tensors{reshape(x[0], to)}; },
        [result](const Shape& index) { return ravel(index, result); });
  };
  reshapes({6}, {2, 3}, {2, 3});
  reshapes({2, 3, 4}, {6, -1}, {6, 4});
  reshapes({2, 3, 4}, {2, 12}, {2, 12});
  reshapes({4, 6}, {2, 2, 3, 2}, {2, 2, 3, 2});
  reshapes({1, 17, 1}, {17}, {17});
  reshapes({33, 17}, {17, 33}, {17, 33});
  reshapes({1}, {}, {});
  reshapes({}, {1, 1}, {1, 1});
  reshapes({0, 3}, {3, 0, 2}, {3, 0, 2});
  reshapes({2, 3, 2, 2}, {3, 4, 2}, {3, 4, 2});
}

void add_permutes(Samples& samples) {
  const auto permutes = [&](const Shape& shape, const Dims& dims) {
    Shape result = dims;
    for (int d = 0; d < dims.size(); ++d) result[d] = shape[static_cast<int>(dims[d])];
    add(samples, "permute", detail::str(shape, " by ", dims), shape, result, [dims](const Tensors& x) { return Tensors{permute(x[0], dims)}; },
        [shape, dims](const Shape& index) {
          Shape original = shape;
          for (int d = 0; d < dims.size(); ++d) original[static_cast<int>(dims[d])] = index[d];
          return ravel(original, shape);
        });
  };
  permutes({3, 4}, {1, 0});
  permutes({2, 3, 4}, {2, 0, 1});
  permutes({2, 3, 4, 5}, {0, 3, 1, 2});
  permutes({33, 17}, {1, 0});
  permutes({5}, {0});
  permutes({}, Dims{});
  permutes({0, 4, 2}, {2, 1, 0});
  permutes({1, 2, 1, 2, 1, 2, 1, 3}, {7, 6, 5, 4, 3, 2, 1, 0});
}

void add_slices(Samples& samples) {
  const auto slices = [&](const Shape& shape, int dim, int64_t begin, int64_t end, int64_t step, int64_t extent, int64_t first) {
    Shape result = shape;
    result[dim] = extent;
    const std::string label = detail::str(shape, " dim ", dim, " ", begin, ":", end, ":", step);
    add(samples, "slice", label, shape, result, [=](const Tensors& x) { return Tensors{slice(x[0], dim, begin, end, step)}; },
        [=](Shape index) {
          index[dim] = first + index[dim] * step;
          return ravel(index, shape);
        });
    // Its gradient puts the same elements back among zeros.
    add(samples, "slice_grad", label, result, shape,
        [=](const Tensors& x) { return Tensors{slice_grad(x[0], dim, first, step, shape[dim])}; },
        [=](Shape index) -> int64_t {
          const int64_t at = index[dim] - first;
          if (at < 0 || at % step != 0 || at / step >= extent) return -1;
          index[dim] = at / step;
          return ravel(index, result);
        });
  };
  slices({7}, 0, 2, 5, 1, 3, 2);
  slices({7}, 0, 1, 7, 3, 2, 1);
  slices({7}, 0, -3, 100, 1, 3, 4);
  slices({4, 5}, 1, 1, -1, 2, 2, 1);
  slices({4, 5}, 0, 1, 3, 1, 2, 1);
  slices({2, 33, 3}, 1, 0, 33, 4, 9, 0);
  slices({4, 5}, 0, 3, 2, 1, 0, 3);
  slices({0, 3}, 1, 1, 3, 1, 2, 1);
}

void add_expands(Samples& samples) {
  const auto expands = [&](const Shape& shape, const Shape& wanted, const Shape& result) {
    add(samples, "expand", detail::str(shape, " to ", wanted), shape, result, [wanted](const Tensors& x) { return Tensors{expand(x[0], wanted)}; },
        [shape, result](const Shape& index) { return broadcast_position(ravel(index, result), result, shape); });
  };
  expands({3}, {4, 3}, {4, 3});
  expands({3, 1}, {3, 5}, {3, 5});
  expands({1, 3, 1}, {2, -1, 4}, {2, 3, 4});
  expands({}, {2, 2}, {2, 2});
  expands({17, 1}, {17, 33}, {17, 33});
  expands({1, 3}, {0, 3}, {0, 3});
}

void add_concats(Samples& samples) {
  const auto concats = [&](std::vector<Shape> shapes, int dim) {
    std::vector<Operand> operands;
    std::string label;
    for (size_t i = 0; i < shapes.size(); ++i) {
      operands.push_back({shapes[i], spread(-9, 9, static_cast<int>(i))});
      label += to_string(shapes[i]) + " ";
    }
    samples.push_back({.op = "concat", .label = label + "in dim " + std::to_string(dim), .operands = operands, .dtypes = kAll,
                       .call = [dim](const Tensors& x) { return Tensors{concat(x, dim)}; },
                       .reference = [dim](const NumberLists& in) {
                         Shape shape = in[0].shape;
                         shape[dim] = 0;
                         for (const Numbers& each : in) shape[dim] += each.shape[dim];
                         Numbers out(shape, in[0].dtype);
                         int64_t begin = 0;
                         for (const Numbers& each : in) {
                           for (int64_t i = 0; i < each.numel(); ++i) {
                             Shape index = unravel(i, each.shape);
                             index[dim] += begin;
                             out[ravel(index, shape)] = each[i];
                           }
                           begin += each.shape[dim];
                         }
                         return NumberLists{out};
                       },
                       .ulps = 0, .gradients = Gradients::second});
  };
  concats({{3}}, 0);
  concats({{3}, {5}, {2}}, 0);
  concats({{2, 3}, {4, 3}}, 0);
  concats({{3, 2}, {3, 17}, {3, 1}}, 1);
  concats({{2, 3, 4}, {2, 1, 4}}, 1);
  concats({{2, 0}, {2, 3}}, 1);
  concats({{0, 3}, {0, 3}}, 0);
}

}  // namespace

void add_shape_samples(Samples& samples) {
  add_reshapes(samples);
  add_permutes(samples);
  add_slices(samples);
  add_expands(samples);
  add_concats(samples);
}

}  // namespace tandem::samples

// Samples of views, concat, pad, flip and triangles, and of what is made of them: numbers that move, and never change.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// `from` gives the position in operand 0 of each position of the result; -1 is a zero.
void add(Samples& samples, const char* op, std::string label, const Shape& shape, const Shape& result, Call call,
         std::function<int64_t(const Shape&)> from) {
  samples.push_back({.op = op,
                     .label = std::move(label),
                     .operands = {{shape, spread(-9, 9)}},
                     .dtypes = kAll,
                     .call = std::move(call),
                     .reference =
                         [result, from = std::move(from)](const NumberLists& in) {
                           Numbers out(result, in[0].dtype);
                           for (int64_t i = 0; i < out.numel(); ++i) {
                             const int64_t position = from(unravel(i, result));
                             out[i] = position < 0 ? 0 : in[0][position];
                           }
                           return NumberLists{out};
                         },
                     .ulps = 0,
                     .gradients = Gradients::second,
                     .large = shape.numel() > 1000});
}

void add_reshapes(Samples& samples) {
  const auto reshapes = [&](const Shape& from, const Shape& to, const Shape& result) {
    add(
        samples, "reshape", detail::str(from, " to ", to), from, result,
        [to](const Tensors& x) { return Tensors{reshape(x[0], to)}; },
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
    add(
        samples, "permute", detail::str(shape, " by ", dims), shape, result,
        [dims](const Tensors& x) { return Tensors{permute(x[0], dims)}; },
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
  const auto slices = [&](const Shape& shape, int dim, int64_t begin, int64_t end, int64_t step, int64_t extent,
                          int64_t first) {
    Shape result = shape;
    result[dim] = extent;
    const std::string label = detail::str(shape, " dim ", dim, " ", begin, ":", end, ":", step);
    add(
        samples, "slice", label, shape, result,
        [=](const Tensors& x) { return Tensors{slice(x[0], dim, begin, end, step)}; },
        [=](Shape index) {
          index[dim] = first + index[dim] * step;
          return ravel(index, shape);
        });
    // Its gradient puts the same elements back among zeros.
    add(
        samples, "slice_grad", label, result, shape,
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
    add(
        samples, "expand", detail::str(shape, " to ", wanted), shape, result,
        [wanted](const Tensors& x) { return Tensors{expand(x[0], wanted)}; },
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
    samples.push_back({.op = "concat",
                       .label = label + "in dim " + std::to_string(dim),
                       .operands = operands,
                       .dtypes = kAll,
                       .call = [dim](const Tensors& x) { return Tensors{concat(x, dim)}; },
                       .reference =
                           [dim](const NumberLists& in) {
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
                       .ulps = 0,
                       .gradients = Gradients::second});
  };
  concats({{3}}, 0);
  concats({{3}, {5}, {2}}, 0);
  concats({{2, 3}, {4, 3}}, 0);
  concats({{3, 2}, {3, 17}, {3, 1}}, 1);
  concats({{2, 3, 4}, {2, 1, 4}}, 1);
  concats({{2, 0}, {2, 3}}, 1);
  concats({{0, 3}, {0, 3}}, 0);
}

void add_windows(Samples& samples) {
  const auto windows = [&](const Shape& whole, const Shape& shape, const Shape& strides, int64_t offset, bool apart) {
    const std::string label = detail::str(whole, " as ", shape, " strides ", strides, " offset ", offset);
    const auto position = [=](const Shape& index) {
      int64_t at = offset;
      for (int d = 0; d < shape.size(); ++d) at += index[d] * strides[d];
      return at;
    };
    add(
        samples, "as_strided", label, whole, shape,
        [=](const Tensors& x) { return Tensors{as_strided(contiguous(x[0]), shape, strides, offset)}; }, position);
    if (!apart) return;
    samples.push_back(
        {.op = "as_strided_scatter",
         .label = label,
         .operands = {{whole, spread(-9, 9)}, {shape, spread(-9, 9, 1)}},
         .dtypes = kAll,
         .call = [=](const Tensors& x) { return Tensors{as_strided_scatter(x[0], x[1], shape, strides, offset)}; },
         .reference =
             [=](const NumberLists& in) {
               Numbers out = in[0];
               for (int64_t i = 0; i < shape.numel(); ++i) out[position(unravel(i, shape))] = in[1][i];
               return NumberLists{out};
             },
         .ulps = 0,
         .gradients = Gradients::second});
  };
  windows({12}, {3, 2}, {4, 1}, 1, true);
  windows({3, 5}, {2, 3}, {1, 5}, 2, true);
  windows({7}, {3, 3}, {2, 1}, 0, false);
  windows({4}, {2, 3}, {0, 1}, 1, false);
  windows({2, 3}, {}, {}, 4, true);
  windows({5}, {0, 2}, {1, 2}, 0, true);
}

void add_diagonals(Samples& samples) {
  const auto diagonals = [&](const Shape& shape, int64_t offset, int dim1, int dim2, int64_t length) {
    Shape result;
    for (int d = 0; d < shape.size(); ++d)
      if (d != dim1 && d != dim2) result.push_back(shape[d]);
    result.push_back(length);
    const std::string label = detail::str(shape, " offset ", offset, " dims ", dim1, " ", dim2);
    add(
        samples, "diagonal", label, shape, result,
        [=](const Tensors& x) { return Tensors{diagonal(x[0], offset, dim1, dim2)}; },
        [=](const Shape& index) {
          Shape from = shape;
          for (int d = 0, next = 0; d < shape.size(); ++d)
            from[d] = d == dim1   ? index.back() + std::max<int64_t>(-offset, 0)
                      : d == dim2 ? index.back() + std::max<int64_t>(offset, 0)
                                  : index[next++];
          return ravel(from, shape);
        });
    add(
        samples, "diagonal_grad", label, result, shape,
        [=](const Tensors& x) { return Tensors{diagonal_grad(x[0], shape, offset, dim1, dim2)}; },
        [=](const Shape& index) -> int64_t {
          if (index[dim2] - index[dim1] != offset) return -1;
          Shape from;
          for (int d = 0; d < shape.size(); ++d)
            if (d != dim1 && d != dim2) from.push_back(index[d]);
          from.push_back(std::min(index[dim1], index[dim2]));
          return ravel(from, result);
        });
  };
  diagonals({3, 3}, 0, 0, 1, 3);
  diagonals({3, 5}, 1, 0, 1, 3);
  diagonals({3, 5}, -2, 0, 1, 1);
  diagonals({3, 5}, 7, 0, 1, 0);
  diagonals({2, 3, 4}, 0, 1, 2, 3);
  diagonals({2, 3, 4}, 1, 2, 0, 1);
  diagonals({17, 2, 33}, 3, 0, 2, 17);
}

void add_triangles(Samples& samples) {
  for (const Shape& shape : {Shape{3, 3}, {2, 5}, {5, 2}, {2, 3, 4}, {1, 1}, {0, 3}, {33, 17}}) {
    for (const int64_t diagonal : {0, 1, -2, 9}) {
      const int rank = shape.size();
      const std::string label = detail::str(shape, " diagonal ", diagonal);
      add(
          samples, "tril", label, shape, shape, [=](const Tensors& x) { return Tensors{tril(x[0], diagonal)}; },
          [=](const Shape& index) { return index[rank - 1] <= index[rank - 2] + diagonal ? ravel(index, shape) : -1; });
      add(
          samples, "triu", label, shape, shape, [=](const Tensors& x) { return Tensors{triu(x[0], diagonal)}; },
          [=](const Shape& index) { return index[rank - 1] >= index[rank - 2] + diagonal ? ravel(index, shape) : -1; });
    }
  }
}

void add_flips(Samples& samples) {
  const auto flips = [&](const Shape& shape, const Dims& dims) {
    add(
        samples, "flip", detail::str(shape, " dims ", dims), shape, shape,
        [dims](const Tensors& x) { return Tensors{flip(x[0], dims)}; },
        [=](Shape index) {
          for (int64_t d : dims)
            index[static_cast<int>(d)] = shape[static_cast<int>(d)] - 1 - index[static_cast<int>(d)];
          return ravel(index, shape);
        });
  };
  flips({5}, 0);
  flips({3, 4}, 0);
  flips({3, 4}, 1);
  flips({3, 4}, {0, 1});
  flips({2, 3, 4}, {2, 0});
  flips({1, 3, 1}, {0, 1, 2});
  flips({0, 3}, 1);
  flips({33, 17}, {1});
  flips({2, 2}, Dims{});
  const auto rolls = [&](const Shape& shape, const Dims& shifts, const Dims& dims) {
    add(
        samples, "concat", detail::str("roll ", shape, " by ", shifts, " dims ", dims), shape, shape,
        [=](const Tensors& x) { return Tensors{roll(x[0], shifts, dims)}; },
        [=](Shape index) {
          if (dims.empty()) return ((ravel(index, shape) - shifts[0]) % shape.numel() + shape.numel()) % shape.numel();
          for (int i = 0; i < dims.size(); ++i) {
            const int d = static_cast<int>(dims[i]);
            index[d] = ((index[d] - shifts[i]) % shape[d] + shape[d]) % shape[d];
          }
          return ravel(index, shape);
        });
  };
  rolls({5}, 2, Dims{});
  rolls({5}, -7, 0);
  rolls({3, 4}, 1, 1);
  rolls({3, 4}, {1, -2}, {0, 1});
  rolls({3, 4}, 5, Dims{});
  rolls({0, 3}, 1, 0);
}

void add_pads(Samples& samples) {
  const auto pads = [&](const Shape& shape, std::vector<int64_t> padding, PadMode mode, const Shape& result) {
    const char* const names[] = {"constant", "reflect", "replicate", "circular"};
    const Shape amounts(padding);
    add(
        samples, mode == PadMode::constant ? "pad" : "concat",
        detail::str(names[static_cast<int>(mode)], " pad ", shape, " by ", amounts), shape, result,
        [=](const Tensors& x) { return Tensors{pad(x[0], padding, {.mode = mode})}; },
        [=](Shape index) -> int64_t {
          for (int d = 0; d < shape.size(); ++d) {
            const size_t at = 2 * static_cast<size_t>(shape.size() - 1 - d);
            const int64_t extent = shape[d];
            int64_t& i = index[d];
            i -= at < padding.size() ? padding[at] : 0;
            if (i >= 0 && i < extent) continue;
            if (mode == PadMode::constant) return -1;
            if (mode == PadMode::reflect) i = i < 0 ? -i : 2 * (extent - 1) - i;
            if (mode == PadMode::replicate) i = i < 0 ? 0 : extent - 1;
            if (mode == PadMode::circular) i = (i + extent) % extent;
          }
          return ravel(index, shape);
        });
  };
  pads({3}, {1, 2}, PadMode::constant, {6});
  pads({2, 3}, {1, 0}, PadMode::constant, {2, 4});
  pads({2, 3}, {0, 2, 1, 1}, PadMode::constant, {4, 5});
  pads({2, 3, 4}, {-1, 2, 1, -1}, PadMode::constant, {2, 3, 5});
  pads({2, 3, 4}, {0, 0, 0, 0, 2, 1}, PadMode::constant, {5, 3, 4});
  pads({0, 3}, {1, 1}, PadMode::constant, {0, 5});
  pads({2, 0}, {1, 1}, PadMode::constant, {2, 2});
  pads({33, 17}, {3, 2, 1, 4}, PadMode::constant, {38, 22});
  for (const PadMode mode : {PadMode::reflect, PadMode::replicate, PadMode::circular}) {
    pads({4}, {2, 3}, mode, {9});
    pads({2, 3}, {1, 2, 1, 1}, mode, {4, 6});
    pads({2, 4, 3}, {0, 1, 2, 2}, mode, {2, 8, 4});
    if (mode != PadMode::circular) pads({2, 4, 3}, {0, 1, -1, 2}, mode, {2, 5, 4});
  }
  samples.push_back({.op = "pad",
                     .label = "with a value",
                     .operands = {{{2, 3}, spread(-9, 9)}},
                     .dtypes = kNumbers,
                     .call =
                         [](const Tensors& x) {
                           return Tensors{pad(x[0], {1, 0}, {.value = 7})};
                         },
                     .reference =
                         [](const NumberLists& in) {
                           Numbers out({2, 4}, in[0].dtype);
                           for (int64_t i = 0; i < 8; ++i) out[i] = i % 4 ? in[0][i / 4 * 3 + i % 4 - 1] : 7;
                           return NumberLists{out};
                         },
                     .ulps = 0,
                     .gradients = Gradients::second});
}

void add_repeats(Samples& samples) {
  const auto repeats = [&](const Shape& shape, const Shape& times) {
    Shape wide = shape, result = times;
    while (wide.size() < times.size()) wide.insert(0, 1);
    for (int d = 0; d < times.size(); ++d) result[d] *= wide[d];
    add(
        samples, "expand", detail::str("repeat ", shape, " by ", times), shape, result,
        [times](const Tensors& x) { return Tensors{tandem::repeat(x[0], times)}; },
        [=](Shape index) {
          for (int d = 0; d < wide.size(); ++d) index[d] %= wide[d];
          return ravel(index, wide);
        });
  };
  repeats({3}, {2});
  repeats({2, 3}, {2, 1});
  repeats({2, 3}, {2, 2, 3});
  repeats({1, 3}, {4, 2});
  repeats({}, {3});
  repeats({2, 3}, {0, 2});
  repeats({2, 1, 2, 1, 2, 1, 2, 1}, {2, 1, 2, 2, 1, 1, 2, 1});
  const auto interleaves = [&](const Shape& shape, int64_t times, int dim) {
    Shape result;
    for (int d = 0; d < shape.size(); ++d) result.push_back(d == dim ? shape[d] * times : shape[d]);
    add(
        samples, "expand", detail::str("repeat_interleave ", shape, " by ", times, " dim ", dim), shape, result,
        [=](const Tensors& x) { return Tensors{repeat_interleave(x[0], times, dim)}; },
        [=](Shape index) {
          index[dim] /= times;
          return ravel(index, shape);
        });
  };
  interleaves({3}, 2, 0);
  interleaves({2, 3, 2}, 3, 1);
  interleaves({2, 3}, 1, 1);
  interleaves({1, 2}, 4, 0);
}

/// Pieces, each a result.
void add_pieces(Samples& samples) {
  const auto pieces = [&](std::string label, const Shape& shape, int dim, bool drops, std::vector<int64_t> sizes,
                          Call call) {
    samples.push_back({.op = "slice",
                       .label = std::move(label),
                       .operands = {{shape, spread(-9, 9)}},
                       .dtypes = kAll,
                       .call = std::move(call),
                       .reference =
                           [=](const NumberLists& in) {
                             NumberLists results;
                             int64_t begin = 0;
                             for (const int64_t size : sizes) {
                               Shape piece = shape;
                               piece[dim] = size;
                               Numbers out(piece, in[0].dtype);
                               for (int64_t i = 0; i < out.numel(); ++i) {
                                 Shape index = unravel(i, piece);
                                 index[dim] += begin;
                                 out[i] = in[0][ravel(index, shape)];
                               }
                               if (drops) out.shape.erase(dim);
                               results.push_back(std::move(out));
                               begin += size;
                             }
                             return results;
                           },
                       .ulps = 0,
                       .gradients = Gradients::second});
  };
  pieces("split by 2", {5, 2}, 0, false, {2, 2, 1}, [](const Tensors& x) { return split(x[0], 2); });
  pieces("split by sizes", {2, 6}, 1, false, {1, 0, 5}, [](const Tensors& x) { return split(x[0], {1, 0, 5}, -1); });
  pieces("chunk", {2, 7}, 1, false, {3, 3, 1}, [](const Tensors& x) { return chunk(x[0], 3, 1); });
  pieces("unbind", {2, 3}, 1, true, {1, 1, 1}, [](const Tensors& x) { return unbind(x[0], 1); });
  pieces("narrow", {2, 6}, 1, false, {4}, [](const Tensors& x) { return Tensors{narrow(x[0], 1, 0, 4)}; });
  add(
      samples, "permute", "movedim", {2, 3, 4}, {3, 4, 2},
      [](const Tensors& x) { return Tensors{movedim(x[0], 0, -1)}; },
      [](const Shape& index) {
        return ravel({index[2], index[0], index[1]}, {2, 3, 4});
      });
  add(
      samples, "permute", "movedim of two", {2, 3, 4}, {4, 3, 2},
      [](const Tensors& x) {
        return Tensors{movedim(x[0], {0, 2}, {2, 0})};
      },
      [](const Shape& index) {
        return ravel({index[2], index[1], index[0]}, {2, 3, 4});
      });
  for (const int dim : {0, 1, 2})
    samples.push_back({.op = "concat",
                       .label = detail::str("stack dim ", dim),
                       .operands = {{{2, 3}, spread(-9, 9)}, {{2, 3}, spread(-9, 9, 1)}},
                       .dtypes = kAll,
                       .call = [dim](const Tensors& x) { return Tensors{stack(x, dim)}; },
                       .reference =
                           [dim](const NumberLists& in) {
                             Shape shape{2, 3};
                             shape.insert(dim, 2);
                             Numbers out(shape, in[0].dtype);
                             for (int64_t i = 0; i < out.numel(); ++i) {
                               Shape index = unravel(i, shape);
                               const auto which = static_cast<size_t>(index[dim]);
                               index.erase(dim);
                               out[i] = in[which][ravel(index, {2, 3})];
                             }
                             return NumberLists{out};
                           },
                       .ulps = 0,
                       .gradients = Gradients::second});
}

}  // namespace

void add_shape_samples(Samples& samples) {
  add_reshapes(samples);
  add_permutes(samples);
  add_slices(samples);
  add_expands(samples);
  add_concats(samples);
  add_diagonals(samples);
  add_windows(samples);
  add_triangles(samples);
  add_flips(samples);
  add_pads(samples);
  add_repeats(samples);
  add_pieces(samples);
}

}  // namespace tandem::samples

// Samples of matmul and linear, and of einsum, outer, dot and bmm.
#include <map>

#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// The product of matrices under broadcast batch dims; vectors are rows on the left and columns on the right.
NumberLists product(const NumberLists& in) {
  Shape a = in[0].shape, b = in[1].shape;
  if (a.size() == 1) a.insert(0, 1);
  if (b.size() == 1) b.push_back(1);
  const int64_t m = a[a.size() - 2], k = a.back(), n = b.back();
  Shape batch_a = a, batch_b = b;
  batch_a.resize(a.size() - 2), batch_b.resize(b.size() - 2);
  const Shape batch = broadcast_shapes(batch_a, batch_b);
  Shape shape = batch;
  if (in[0].shape.size() > 1) shape.push_back(m);
  if (in[1].shape.size() > 1) shape.push_back(n);
  Numbers out(shape, in[0].dtype);
  out.make_scale();
  for (int64_t p = 0; p < batch.numel(); ++p) {
    const int64_t left = broadcast_position(p, batch, batch_a) * m * k,
                  right = broadcast_position(p, batch, batch_b) * k * n;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const int64_t to = (p * m + i) * n + j;
        Real total = 0;
        for (int64_t l = 0; l < k; ++l) {
          const double term = in[0][left + i * k + l] * in[1][right + l * n + j];
          total += term;
          out.scale[static_cast<size_t>(to)] += std::fabs(term);
        }
        out[to] = static_cast<double>(total);
      }
    }
  }
  return {out};
}

NumberLists affine(const NumberLists& in) {
  const int64_t out_width = in[1].shape[0], in_width = in[1].shape[1];
  Shape shape;
  for (int d = 0; d + 1 < in[0].shape.size(); ++d) shape.push_back(in[0].shape[d]);
  shape.push_back(out_width);
  Numbers out(shape, in[0].dtype);
  out.make_scale();
  for (int64_t i = 0; i < out.numel(); ++i) {
    const int64_t row = i / out_width, column = i % out_width;
    Real total = in.size() > 2 ? in[2][column] : 0;
    double scale = static_cast<double>(std::fabs(total));
    for (int64_t l = 0; l < in_width; ++l) {
      const double term = in[0][row * in_width + l] * in[1][column * in_width + l];
      total += term;
      scale += std::fabs(term);
    }
    out[i] = static_cast<double>(total);
    out.scale[static_cast<size_t>(i)] = scale;
  }
  return {out};
}

/// Rounding errors of a product grow with its length, at worst where all terms are equal.
double ulps(int64_t length) { return 8 + static_cast<double>(length) / 8; }

/// The sum over all labels of the product of the operands, one combination after another. Dims of one element repeat.
Reference sums_of_products(std::vector<std::string> terms, std::string result) {
  return [=](const NumberLists& in) {
    std::map<char, int64_t> extents;
    for (size_t k = 0; k < terms.size(); ++k)
      for (size_t d = 0; d < terms[k].size(); ++d) {
        int64_t& extent = extents.try_emplace(terms[k][d], 1).first->second;
        if (extent == 1) extent = in[k].shape[static_cast<int>(d)];
      }
    Shape shape;
    for (const char label : result) shape.push_back(extents[label]);
    Numbers out(shape, in[0].dtype);
    out.make_scale();
    std::map<char, int64_t> at;
    int64_t combinations = 1;
    for (const auto& [label, extent] : extents) combinations *= extent;
    for (int64_t n = 0; n < combinations; ++n) {
      int64_t rest = n;
      for (const auto& [label, extent] : extents) at[label] = rest % extent, rest /= extent;
      double term = 1;
      for (size_t k = 0; k < terms.size(); ++k) {
        Shape index;
        for (size_t d = 0; d < terms[k].size(); ++d)
          index.push_back(in[k].shape[static_cast<int>(d)] == 1 ? 0 : at[terms[k][d]]);
        term *= in[k][ravel(index, in[k].shape)];
      }
      Shape index;
      for (const char label : result) index.push_back(at[label]);
      const int64_t to = ravel(index, shape);
      out[to] += term;
      out.scale[static_cast<size_t>(to)] += std::fabs(term);
    }
    return NumberLists{out};
  };
}

void add_einsums(Samples& samples) {
  // `terms` and `result` are the equation with "..." spelt out in capitals.
  const auto add = [&](std::string equation, std::vector<std::string> terms, std::string result,
                       std::vector<Shape> shapes) {
    std::vector<Operand> operands;
    std::string label = "einsum " + equation;
    for (const Shape& shape : shapes) {
      operands.push_back({shape, spread(-2, 2, static_cast<int>(operands.size()))});
      label += " " + to_string(shape);
    }
    samples.push_back({.op = "matmul",
                       .label = label,
                       .operands = std::move(operands),
                       .dtypes = {float32, float64, bfloat16},
                       .call = [equation](const Tensors& x) { return Tensors{einsum(equation, x)}; },
                       .reference = sums_of_products(std::move(terms), std::move(result)),
                       .ulps = shapes.size() > 2 ? 1e5 : 24,
                       .gradients = Gradients::second,
                       .agreement = Agreement::close});
    if (shapes.size() > 2) samples.back().dtypes = {float64}, samples.back().ulps = 64;
  };
  add("bij,bjk->bik", {"bij", "bjk"}, "bik", {{2, 3, 4}, {2, 4, 5}});
  add("ij,kj->ik", {"ij", "kj"}, "ik", {{3, 4}, {5, 4}});
  add("ji,jk", {"ji", "jk"}, "ik", {{4, 3}, {4, 5}});
  add("i,i->", {"i", "i"}, "", {{5}, {5}});
  add("i,j->ij", {"i", "j"}, "ij", {{3}, {4}});
  add("i,j->ji", {"i", "j"}, "ji", {{3}, {4}});
  add("ij->ji", {"ij"}, "ji", {{3, 4}});
  add("ij->", {"ij"}, "", {{3, 4}});
  add("ij->i", {"ij"}, "i", {{3, 4}});
  add("ii->i", {"ii"}, "i", {{4, 4}});
  add("ii", {"ii"}, "", {{4, 4}});
  add("iij->ji", {"iij"}, "ji", {{3, 3, 2}});
  add("iji,ji->j", {"iji", "ji"}, "j", {{2, 3, 2}, {3, 2}});
  add("iii->i", {"iii"}, "i", {{3, 3, 3}});
  add("bhqd,bhkd->bhqk", {"bhqd", "bhkd"}, "bhqk", {{2, 2, 3, 4}, {2, 2, 5, 4}});
  add("bqhd,bkhd->bhqk", {"bqhd", "bkhd"}, "bhqk", {{2, 3, 2, 4}, {2, 5, 2, 4}});
  add("abcd,cdef->abef", {"abcd", "cdef"}, "abef", {{2, 3, 2, 2}, {2, 2, 3, 2}});
  add("abcd,dcaf->fb", {"abcd", "dcaf"}, "fb", {{2, 3, 2, 2}, {2, 2, 2, 3}});
  add("ij,ij->ij", {"ij", "ij"}, "ij", {{3, 4}, {3, 4}});
  add("ij,jk,kl->il", {"ij", "jk", "kl"}, "il", {{2, 3}, {3, 4}, {4, 2}});
  add("i,j,k->kji", {"i", "j", "k"}, "kji", {{2}, {3}, {2}});
  add("ijk,il,jl,kl->l", {"ijk", "il", "jl", "kl"}, "l", {{2, 3, 2}, {2, 3}, {3, 3}, {2, 3}});
  add("...ij,...jk->...ik", {"ABij", "Bjk"}, "ABik", {{2, 3, 2, 4}, {3, 4, 2}});
  add("...ij,...jk", {"Aij", "jk"}, "Aik", {{2, 3, 4}, {4, 2}});
  add("i...,i->...", {"iAB", "i"}, "AB", {{3, 2, 4}, {3}});
  add("...,...->...", {"AB", "B"}, "AB", {{2, 3}, {3}});
  add("ij , jk -> ik", {"ij", "jk"}, "ik", {{3, 1}, {4, 2}});
  add("bij,bjk->bik", {"bij", "bjk"}, "bik", {{1, 3, 4}, {2, 4, 5}});
  add("ij,jk->ik", {"ij", "jk"}, "ik", {{3, 0}, {0, 2}});
  add("ij,jk->ik", {"ij", "jk"}, "ik", {{0, 3}, {3, 2}});
}

}  // namespace

void add_matmul_samples(Samples& samples) {
  const std::pair<Shape, Shape> shapes[] = {{{3, 4}, {4, 5}},
                                            {{1, 1}, {1, 1}},
                                            {{17, 33}, {33, 9}},
                                            {{1, 17}, {17, 1}},
                                            {{5, 1}, {1, 6}},
                                            {{2, 3, 4}, {2, 4, 5}},
                                            {{2, 1, 3, 4}, {3, 4, 2}},
                                            {{3, 4}, {2, 4, 2}},
                                            {{2, 3, 4}, {4, 2}},
                                            {{4}, {4}},
                                            {{3, 4}, {4}},
                                            {{4}, {4, 3}},
                                            {{2, 3, 4}, {4}},
                                            {{4}, {2, 4, 3}},
                                            {{0, 4}, {4, 3}},
                                            {{3, 0}, {0, 2}},
                                            {{0, 2, 3}, {3, 2}},
                                            {{65, 130}, {130, 71}},
                                            {{128, 257}, {257, 64}}};
  for (const auto& [a, b] : shapes) {
    Sample sample{.op = "matmul",
                  .label = detail::str(a, " x ", b),
                  .operands = {{a, spread(-2, 2)}, {b, spread(-2, 2, 1)}},
                  .dtypes = kFloats,
                  .call = [](const Tensors& x) { return Tensors{matmul(x[0], x[1])}; },
                  .reference = product,
                  .ulps = ulps(a.back()),
                  .gradients = Gradients::second,
                  .agreement = Agreement::close,
                  .large = a.numel() > 1000};
    samples.push_back(sample);
    sample.operands = {{a, integers(-5, 6)}, {b, integers(-5, 6, 1)}};
    sample.dtypes = {int32, int64, int16, int8};
    sample.gradients = Gradients::none;
    samples.push_back(sample);
  }
  samples.push_back({.op = "matmul",
                     .label = "bmm",
                     .operands = {{{2, 3, 4}, spread(-2, 2)}, {{2, 4, 5}, spread(-2, 2, 1)}},
                     .dtypes = kFloats,
                     .call = [](const Tensors& x) { return Tensors{bmm(x[0], x[1])}; },
                     .reference = product,
                     .ulps = ulps(4),
                     .gradients = Gradients::second,
                     .agreement = Agreement::close});
  samples.push_back({.op = "matmul",
                     .label = "dot",
                     .operands = {{{33}, spread(-2, 2)}, {{33}, spread(-2, 2, 1)}},
                     .dtypes = kFloats,
                     .call = [](const Tensors& x) { return Tensors{dot(x[0], x[1])}; },
                     .reference = product,
                     .ulps = ulps(33),
                     .gradients = Gradients::second,
                     .agreement = Agreement::close});
  samples.push_back({.op = "mul",
                     .label = "outer",
                     .operands = {{{3}, spread(-2, 2)}, {{17}, spread(-2, 2, 1)}},
                     .dtypes = kNumbers,
                     .call = [](const Tensors& x) { return Tensors{outer(x[0], x[1])}; },
                     .reference =
                         [](const NumberLists& in) {
                           Numbers out({3, 17}, in[0].dtype);
                           for (int64_t i = 0; i < out.numel(); ++i) out[i] = in[0][i / 17] * in[1][i % 17];
                           return NumberLists{out};
                         },
                     .ulps = 0.5,
                     .gradients = Gradients::second});
  add_einsums(samples);
  const std::tuple<Shape, int64_t> layers[] = {{{4}, 3},       {{2, 4}, 3},    {{17, 33}, 9},
                                               {{1, 5}, 1},    {{2, 3, 4}, 5}, {{0, 4}, 3},
                                               {{2, 0, 4}, 3}, {{3, 0}, 4},    {{64, 130}, 71}};
  for (const auto& [x, outputs] : layers) {
    for (const bool biased : {false, true}) {
      std::vector<Operand> operands = {{x, spread(-2, 2)}, {{outputs, x.back()}, spread(-2, 2, 1)}};
      if (biased) operands.push_back({{outputs}, spread(-2, 2, 2)});
      samples.push_back({.op = "linear",
                         .label = detail::str(x, " to ", outputs, biased ? ", bias" : ""),
                         .operands = operands,
                         .dtypes = kFloats,
                         .call =
                             [](const Tensors& in) {
                               return Tensors{in.size() > 2 ? linear(in[0], in[1], in[2]) : linear(in[0], in[1])};
                             },
                         .reference = affine,
                         .ulps = ulps(x.back()),
                         .gradients = Gradients::second,
                         .agreement = Agreement::close,
                         .large = x.numel() > 1000});
    }
  }
}

}  // namespace tandem::samples

// Samples of linear algebra. References are textbook algorithms in long double; what is unique but for a sign is compared,
// and differentiated, after the signs were fixed.
#include <algorithm>

#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// One matrix in long double.
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<Real> values = {};
  Matrix(int64_t rows, int64_t columns)
      : rows(rows), columns(columns), values(static_cast<size_t>(rows * columns), Real(0)) {}
  Real& operator()(int64_t i, int64_t j) { return values[static_cast<size_t>(i * columns + j)]; }
  Real operator()(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * columns + j)]; }
};
Matrix identity(int64_t n) {
  Matrix result(n, n);
  for (int64_t i = 0; i < n; ++i) result(i, i) = 1;
  return result;
}
Matrix transposed(const Matrix& x) {
  Matrix result(x.columns, x.rows);
  for (int64_t i = 0; i < x.rows; ++i)
    for (int64_t j = 0; j < x.columns; ++j) result(j, i) = x(i, j);
  return result;
}
Matrix product(const Matrix& a, const Matrix& b) {
  Matrix result(a.rows, b.columns);
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t l = 0; l < a.columns; ++l)
      for (int64_t j = 0; j < b.columns; ++j) result(i, j) += a(i, l) * b(l, j);
  return result;
}

/// A^-1 B by elimination with pivots, and det A.
Matrix solved(Matrix a, Matrix b, Real* determinant = nullptr) {
  Real det = 1;
  for (int64_t k = 0; k < a.rows; ++k) {
    int64_t best = k;
    for (int64_t i = k; i < a.rows; ++i)
      if (std::fabs(a(i, k)) > std::fabs(a(best, k))) best = i;
    if (best != k) {
      det = -det;
      for (int64_t j = 0; j < a.columns; ++j) std::swap(a(k, j), a(best, j));
      for (int64_t j = 0; j < b.columns; ++j) std::swap(b(k, j), b(best, j));
    }
    det *= a(k, k);
    for (int64_t i = 0; i < a.rows; ++i) {
      if (i == k) continue;
      const Real factor = a(i, k) / a(k, k);
      for (int64_t j = k; j < a.columns; ++j) a(i, j) -= factor * a(k, j);
      for (int64_t j = 0; j < b.columns; ++j) b(i, j) -= factor * b(k, j);
    }
  }
  for (int64_t i = 0; i < b.rows; ++i)
    for (int64_t j = 0; j < b.columns; ++j) b(i, j) /= a(i, i);
  if (determinant) *determinant = det;
  return b;
}
/// A'(A A')^-1 of a wide A, (A' A)^-1 A' of another.
Matrix pseudo_inverse(const Matrix& a) {
  const Matrix t = transposed(a);
  if (a.rows < a.columns) return transposed(solved(product(a, t), a));
  return solved(product(t, a), t);
}

/// Eigenvalues and vectors (in columns) of a symmetric matrix, ascending, by Jacobi's rotations.
std::pair<std::vector<Real>, Matrix> eigenpairs(Matrix a) {
  const int64_t n = a.rows;
  Matrix v = identity(n);
  for (int sweep = 0; sweep < 60; ++sweep)
    for (int64_t p = 0; p < n; ++p)
      for (int64_t q = p + 1; q < n; ++q) {
        if (a(p, q) == 0) continue;
        const Real theta = (a(q, q) - a(p, p)) / (2 * a(p, q));
        const Real t = (theta < 0 ? -1 : 1) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const Real cosine = 1 / std::sqrt(t * t + 1), sine = t * cosine;
        const auto rotate = [&](Real& x, Real& y) {
          const Real old = x;
          x = cosine * old - sine * y;
          y = sine * old + cosine * y;
        };
        for (int64_t k = 0; k < n; ++k) rotate(a(k, p), a(k, q));
        for (int64_t k = 0; k < n; ++k) rotate(a(p, k), a(q, k));
        for (int64_t k = 0; k < n; ++k) rotate(v(k, p), v(k, q));
      }
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = i;
  std::sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return a(x, x) < a(y, y); });
  std::vector<Real> values;
  Matrix vectors(n, n);
  for (int64_t j = 0; j < n; ++j) {
    const int64_t from = order[static_cast<size_t>(j)];
    values.push_back(a(from, from));
    for (int64_t i = 0; i < n; ++i) vectors(i, j) = v(i, from);
  }
  return {values, vectors};
}
/// Turns columns of x so that their first element is positive; columns of `with` follow.
void fix_signs(Matrix& x, Matrix* with = nullptr) {
  for (int64_t j = 0; j < x.columns; ++j) {
    if (x.rows == 0 || x(0, j) >= 0) continue;
    for (int64_t i = 0; i < x.rows; ++i) x(i, j) = -x(i, j);
    for (int64_t i = 0; with && i < with->rows; ++i) (*with)(i, j) = -(*with)(i, j);
  }
}

// Batches of them ---------------------------------------------------------------------------------------------------

Shape batch_of(const Shape& shape) {
  Shape batch = shape;
  batch.resize(shape.size() - 2);
  return batch;
}
Shape matrices(const Shape& batch, int64_t rows, int64_t columns) {
  Shape shape = batch;
  shape.push_back(rows);
  shape.push_back(columns);
  return shape;
}
Shape vectors(const Shape& batch, int64_t extent) {
  Shape shape = batch;
  shape.push_back(extent);
  return shape;
}
Matrix matrix_at(const Numbers& x, int64_t index) {
  Matrix result(x.shape[x.shape.size() - 2], x.shape.back());
  for (int64_t i = 0; i < result.rows * result.columns; ++i)
    result.values[static_cast<size_t>(i)] = x[index * result.rows * result.columns + i];
  return result;
}
void put(Numbers& to, int64_t index, const std::vector<Real>& values) {
  const auto count = static_cast<int64_t>(values.size());
  for (int64_t i = 0; i < count; ++i) to[index * count + i] = static_cast<double>(values[static_cast<size_t>(i)]);
}
void put(Numbers& to, int64_t index, const Matrix& from) { put(to, index, from.values); }
/// Errors are measured against the largest element: that is what backward stable algorithms promise.
Numbers scaled(Numbers x) {
  double largest = 0;
  for (const double value : x.values) largest = std::max(largest, std::fabs(value));
  x.scale.assign(x.values.size(), largest);
  return x;
}

/// A reference that makes one matrix of each matrix of operand 0 (and the one of operand 1 that belongs to it).
using OfOne = std::function<Matrix(const Matrix& a, const Matrix& b)>;
Reference of_each(int64_t rows, int64_t columns, OfOne of_one) {
  return [=](const NumberLists& in) {
    const Shape batch_a = batch_of(in[0].shape), batch_b = in.size() > 1 ? batch_of(in[1].shape) : Shape();
    const Shape batch = broadcast_shapes(batch_a, batch_b);
    Numbers out(matrices(batch, rows, columns), in[0].dtype);
    for (int64_t i = 0; i < batch.numel(); ++i)
      put(out, i,
          of_one(matrix_at(in[0], broadcast_position(i, batch, batch_a)),
                 in.size() > 1 ? matrix_at(in[1], broadcast_position(i, batch, batch_b)) : Matrix(0, 0)));
    return NumberLists{scaled(out)};
  };
}

/// Values without a pattern: those of spread() lie on a lattice, and large matrices of them, or small
/// ones in some layouts, are singular.
Generator scattered(double low, double high, uint64_t salt = 0) {
  return [=](int64_t i) {
    uint64_t bits =
        (static_cast<uint64_t>(i) + 1 + (salt << 32)) * 0x9E3779B97F4A7C15u;  // splitmix64 (Steele et al. 2014)
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
    return low + (high - low) * static_cast<double>((bits ^ (bits >> 31)) >> 40) * 0x1p-24;
  };
}

/// Values of square matrices with a large diagonal, so that they are far from singular.
Generator dominant(int64_t n, uint64_t salt = 0) {
  const Generator other = scattered(-1, 1, salt);
  return [=](int64_t i) {
    const int64_t at = i % std::max<int64_t>(n * n, 1);
    return other(i) + (at % (n + 1) == 0 ? (at % 2 ? -1.0 : 1.0) * (1 + static_cast<double>(n) / 2) : 0.0);
  };
}

/// Symmetric, of any square operand.
Tensor symmetric(const Tensor& x) { return (x + transpose(x, -2, -1)) / 2; }
Matrix symmetric(const Matrix& x) {
  Matrix result(x.rows, x.columns);
  for (int64_t i = 0; i < x.rows; ++i)
    for (int64_t j = 0; j < x.columns; ++j) result(i, j) = (x(i, j) + x(j, i)) / 2;
  return result;
}
/// Positive definite, of any square operand.
Tensor definite(const Tensor& x) {
  return matmul(x, transpose(x, -2, -1)) + eye(x.shape().back(), {}, {.dtype = x.dtype(), .device = x.device()});
}
Matrix definite(const Matrix& x) {
  Matrix result = product(x, transposed(x));
  for (int64_t i = 0; i < x.rows; ++i) result(i, i) += 1;
  return result;
}

Sample sample(const char* op, std::string label, std::vector<Operand> operands, Call call, Reference reference) {
  for (Operand& operand : operands) operand.may_repeat = false;  // repeated rows are singular
  const int64_t n = operands[0].shape.back();
  return {.op = op,
          .label = std::move(label),
          .operands = std::move(operands),
          .dtypes = {float32, float64},
          .call = std::move(call),
          .reference = std::move(reference),
          .ulps = 64 + 8 * static_cast<double>(n),
          .gradients = Gradients::second,
          .agreement = Agreement::close};
}

// The ops -----------------------------------------------------------------------------------------------------------

void add_systems(Samples& samples) {
  const std::pair<Shape, Shape> shapes[] = {{{3, 3}, {3, 2}},          {{1, 1}, {1, 1}},       {{4, 4}, {4, 1}},
                                            {{2, 3, 3}, {2, 3, 2}},    {{3, 3}, {2, 3, 1}},    {{2, 3, 3}, {3, 2}},
                                            {{2, 1, 2, 2}, {3, 2, 2}}, {{0, 3, 3}, {0, 3, 2}}, {{0, 0}, {0, 2}},
                                            {{3, 3}, {3, 0}},          {{64, 64}, {64, 5}}};
  for (const auto& [a, b] : shapes) {
    const int64_t n = a.back(), k = b.back();
    const std::string label = detail::str(a, " x ", b);
    const std::vector<Operand> operands = {{a, dominant(n)}, {b, scattered(-2, 2, 1)}};
    const auto by_elimination = [](const Matrix& a, const Matrix& b) { return solved(a, b); };
    samples.push_back(sample(
        "solve", label, operands, [](const Tensors& x) { return Tensors{linalg::solve(x[0], x[1])}; },
        of_each(n, k, by_elimination)));
    for (const bool upper : {true, false}) {
      for (const bool unit : {true, false}) {
        if (n > 8) continue;  // its inverse grows with n
        samples.push_back(sample(
            "solve_triangular", label + (upper ? ", upper" : ", lower") + (unit ? ", unitriangular" : ""), operands,
            [=](const Tensors& x) {
              return Tensors{linalg::solve_triangular(x[0], x[1], {.upper = upper, .unitriangular = unit})};
            },
            of_each(n, k, [=](const Matrix& a, const Matrix& b) {
              Matrix triangle(a.rows, a.rows);
              for (int64_t i = 0; i < a.rows; ++i)
                for (int64_t j = 0; j < a.rows; ++j)
                  if (i == j) triangle(i, j) = unit ? 1 : a(i, j);
                  else if ((j > i) == upper) triangle(i, j) = a(i, j);
              return solved(triangle, b);
            })));
      }
    }
  }
  samples.push_back(sample(
      "solve", "vector", {{{3, 3}, dominant(3)}, {{3}, scattered(-2, 2, 1)}},
      [](const Tensors& x) { return Tensors{unsqueeze(linalg::solve(x[0], x[1]), -1)}; },
      [](const NumberLists& in) {
        Numbers column = in[1];
        column.shape = {3, 1};
        return of_each(3, 1, [](const Matrix& a, const Matrix& b) { return solved(a, b); })({in[0], column});
      }));
  samples.push_back(sample(
      "solve", "from the right", {{{2, 3, 3}, dominant(3)}, {{2, 2, 3}, scattered(-2, 2, 1)}},
      [](const Tensors& x) { return Tensors{linalg::solve(x[0], x[1], {.left = false})}; },
      of_each(2, 3,
              [](const Matrix& a, const Matrix& b) { return transposed(solved(transposed(a), transposed(b))); })));
  samples.push_back(sample(
      "solve_triangular", "from the right", {{{3, 3}, dominant(3)}, {{2, 2, 3}, scattered(-2, 2, 1)}},
      [](const Tensors& x) { return Tensors{linalg::solve_triangular(x[0], x[1], {.upper = false, .left = false})}; },
      of_each(2, 3, [](Matrix a, const Matrix& b) {
        for (int64_t i = 0; i < 3; ++i)
          for (int64_t j = i + 1; j < 3; ++j) a(i, j) = 0;
        return transposed(solved(transposed(a), transposed(b)));
      })));

  const std::pair<Shape, Shape> fits[] = {{{5, 3}, {5, 2}},    {{2, 5}, {2, 2}},       {{3, 3}, {3, 1}},
                                          {{1, 1}, {1, 1}},    {{2, 4, 2}, {4, 1}},    {{3, 2}, {2, 3, 1}},
                                          {{2, 2, 3}, {2, 1}}, {{0, 4, 2}, {0, 4, 1}}, {{3, 0}, {3, 2}},
                                          {{0, 3}, {0, 2}},    {{40, 17}, {40, 3}}};
  for (const auto& [a, b] : fits)
    samples.push_back(sample(
        "lstsq", detail::str(a, " x ", b), {{a, scattered(-2, 2, 3)}, {b, scattered(-2, 2, 1)}},
        [](const Tensors& x) { return Tensors{linalg::lstsq(x[0], x[1])}; },
        of_each(a.back(), b.back(), [](const Matrix& a, const Matrix& b) { return product(pseudo_inverse(a), b); })));
}

void add_inverses(Samples& samples) {
  for (const Shape& shape : {Shape{3, 3}, {1, 1}, {2, 4, 4}, {2, 2, 2, 2}, {0, 3, 3}, {0, 0}, {2, 0, 0}, {64, 64}}) {
    const int64_t n = shape.back();
    samples.push_back(sample(
        "inverse", to_string(shape), {{shape, dominant(n)}},
        [](const Tensors& x) { return Tensors{linalg::inverse(x[0])}; },
        of_each(n, n, [](const Matrix& a, const Matrix&) { return solved(a, identity(a.rows)); })));
    const auto determinants = [](bool logarithm) {
      return [=](const NumberLists& in) {
        Numbers first(batch_of(in[0].shape), in[0].dtype), second = first;
        for (int64_t i = 0; i < first.numel(); ++i) {
          Real det = 1;
          solved(matrix_at(in[0], i), Matrix(in[0].shape.back(), 0), &det);
          first[i] = static_cast<double>(logarithm ? Real(det < 0 ? -1 : 1) : det);
          second[i] = static_cast<double>(std::log(std::fabs(det)));
        }
        return logarithm ? NumberLists{first, second} : NumberLists{first};
      };
    };
    samples.push_back(sample(
        "slogdet", to_string(shape), {{shape, dominant(n)}},
        [](const Tensors& x) {
          const auto [sign, logabsdet] = linalg::slogdet(x[0]);
          return Tensors{sign, logabsdet};
        },
        determinants(true)));
    if (n > 8) continue;  // past float32's range
    samples.push_back(sample(
        "det", to_string(shape), {{shape, dominant(n)}}, [](const Tensors& x) { return Tensors{linalg::det(x[0])}; },
        determinants(false)));
  }
  for (const Shape& shape : {Shape{3, 3}, {4, 2}, {2, 4}, {1, 1}, {2, 3, 2}, {0, 3, 2}, {0, 3}, {3, 0}, {20, 12}})
    samples.push_back(sample(
        "pinv", to_string(shape), {{shape, scattered(-2, 2, 3)}},
        [](const Tensors& x) { return Tensors{linalg::pinv(x[0])}; },
        of_each(shape.back(), shape[shape.size() - 2],
                [](const Matrix& a, const Matrix&) { return pseudo_inverse(a); })));
}

void add_decompositions(Samples& samples) {
  for (const Shape& shape : {Shape{3, 3}, {1, 1}, {2, 3, 3}, {4, 4}, {0, 3, 3}, {0, 0}, {64, 64}}) {
    const int64_t n = shape.back();
    samples.push_back(sample(
        "cholesky", to_string(shape), {{shape, scattered(-1, 1)}},
        [](const Tensors& x) { return Tensors{linalg::cholesky(definite(x[0]))}; },
        of_each(n, n, [](const Matrix& x, const Matrix&) {
          Matrix a = definite(x), l(x.rows, x.rows);
          for (int64_t j = 0; j < a.rows; ++j)
            for (int64_t i = j; i < a.rows; ++i) {
              Real rest = a(i, j);
              for (int64_t k = 0; k < j; ++k) rest -= l(i, k) * l(j, k);
              l(i, j) = i == j ? std::sqrt(rest) : rest / l(j, j);
            }
          return l;
        })));
    const auto spectrum = [](bool with_vectors) {
      return [=](const NumberLists& in) {
        const int64_t n = in[0].shape.back();
        const Shape batch = batch_of(in[0].shape);
        Numbers values(vectors(batch, n), in[0].dtype), columns(in[0].shape, in[0].dtype);
        for (int64_t i = 0; i < batch.numel(); ++i) {
          auto [w, v] = eigenpairs(symmetric(matrix_at(in[0], i)));
          fix_signs(v);
          put(values, i, w), put(columns, i, v);
        }
        return with_vectors ? NumberLists{scaled(values), scaled(columns)} : NumberLists{scaled(values)};
      };
    };
    // Values far apart; errors of vectors grow as they come together.
    samples.push_back(sample(
        "eigh", to_string(shape), {{shape, scattered(-2, 2, 5)}},
        [](const Tensors& x) {
          const auto [w, v] = linalg::eigh(symmetric(x[0]));
          if (v.numel() == 0) return Tensors{w, v};
          return Tensors{w, v * sign(slice(v, -2, 0, 1)).detach()};
        },
        spectrum(true)));
    samples.back().ulps *= n > 8 ? 64 : 8;
    samples.push_back(sample(
        "eigvalsh", to_string(shape), {{shape, scattered(-2, 2, 5)}},
        [](const Tensors& x) { return Tensors{linalg::eigvalsh(symmetric(x[0]))}; }, spectrum(false)));
  }

  for (const Shape& shape : {Shape{3, 3},
                             {1, 1},
                             {4, 2},
                             {2, 4},
                             {2, 3, 2},
                             {1, 3},
                             {3, 1},
                             {0, 3, 2},
                             {0, 3},
                             {3, 0},
                             {0, 0},
                             {24, 20},
                             {20, 24}}) {
    const int64_t m = shape[shape.size() - 2], n = shape.back(), k = std::min(m, n);
    const Generator value = scattered(-2, 2, 3);
    const auto unique_qr = [](linalg::QrMode mode) {  // R's diagonal is made positive
      return [=](const Tensors& x) {
        const auto [q, r] = linalg::qr(x[0], mode);
        if (r.numel() == 0) return Tensors{q, r};
        const Tensor signs = sign(diagonal(r, 0, -2, -1)).detach();
        return Tensors{q * unsqueeze(signs, -2), unsqueeze(signs, -1) * r};
      };
    };
    const Reference by_projections = [=](const NumberLists& in) {
      const Shape batch = batch_of(in[0].shape);
      Numbers left(matrices(batch, m, k), in[0].dtype), right(matrices(batch, k, n), in[0].dtype);
      for (int64_t b = 0; b < batch.numel(); ++b) {
        Matrix q(m, k), r(k, n), rest = matrix_at(in[0], b);
        for (int64_t j = 0; j < k; ++j) {
          for (int64_t i = 0; i < m; ++i) r(j, j) += rest(i, j) * rest(i, j);
          r(j, j) = std::sqrt(r(j, j));
          for (int64_t i = 0; i < m; ++i) q(i, j) = rest(i, j) / r(j, j);
          for (int64_t c = j + 1; c < n; ++c) {
            for (int64_t i = 0; i < m; ++i) r(j, c) += q(i, j) * rest(i, c);
            for (int64_t i = 0; i < m; ++i) rest(i, c) -= q(i, j) * r(j, c);
          }
        }
        put(left, b, q), put(right, b, r);
      }
      return NumberLists{scaled(left), scaled(right)};
    };
    samples.push_back(
        sample("qr", to_string(shape), {{shape, value}}, unique_qr(linalg::QrMode::reduced), by_projections));
    samples.back().ulps *= m > 8 ? 8 : 1;
    if (m <= n)
      samples.push_back(sample("qr", to_string(shape) + ", complete", {{shape, value}},
                               unique_qr(linalg::QrMode::complete), by_projections));

    const auto singular_values = [=](bool with_vectors) {
      return [=](const NumberLists& in) {
        const Shape batch = batch_of(in[0].shape);
        Numbers left(matrices(batch, m, k), in[0].dtype), values(vectors(batch, k), in[0].dtype),
            right(matrices(batch, k, n), in[0].dtype);
        for (int64_t b = 0; b < batch.numel(); ++b) {
          // The smaller of A'A and AA' has the squares for eigenvalues; the other side's vectors follow.
          Matrix a = matrix_at(in[0], b);
          if (m < n) a = transposed(a);
          const auto [squares, v] = eigenpairs(product(transposed(a), a));
          std::vector<Real> s;
          Matrix mine(a.columns, k), other(a.rows, k);
          for (int64_t j = 0; j < k; ++j) {
            const int64_t from = k - 1 - j;
            s.push_back(std::sqrt(squares[static_cast<size_t>(from)]));
            for (int64_t i = 0; i < a.columns; ++i) mine(i, j) = v(i, from);
            for (int64_t i = 0; i < a.rows; ++i) {
              for (int64_t l = 0; l < a.columns; ++l) other(i, j) += a(i, l) * v(l, from);
              other(i, j) /= s.back();
            }
          }
          Matrix &u = m < n ? mine : other, &w = m < n ? other : mine;
          fix_signs(u, &w);
          put(left, b, u), put(values, b, s), put(right, b, transposed(w));
        }
        if (!with_vectors) return NumberLists{scaled(values)};
        return NumberLists{scaled(left), scaled(values), scaled(right)};
      };
    };
    samples.push_back(sample(
        "svd", to_string(shape), {{shape, value}},
        [](const Tensors& x) {
          const auto [u, s, vh] = linalg::svd(x[0]);
          if (u.numel() * vh.numel() == 0) return Tensors{u, s, vh};
          const Tensor signs = sign(slice(u, -2, 0, 1)).detach();
          return Tensors{u * signs, s, transpose(signs, -2, -1) * vh};
        },
        singular_values(true)));
    samples.back().ulps *= m > 8 ? 64 : 8;
    samples.push_back(sample(
        "svdvals", to_string(shape), {{shape, value}}, [](const Tensors& x) { return Tensors{linalg::svdvals(x[0])}; },
        singular_values(false)));
  }
  samples.push_back(sample(
      "qr", "[5, 2], complete", {{{5, 2}, scattered(-2, 2)}},
      [](const Tensors& x) {
        const auto [q, r] = linalg::qr(x[0], linalg::QrMode::complete);
        return Tensors{matmul(q, r), matmul(q, transpose(q, -2, -1))};
      },
      [](const NumberLists& in) {
        Numbers square({5, 5}, in[0].dtype);
        put(square, 0, identity(5));
        return NumberLists{scaled(in[0]), scaled(square)};
      }));
  samples.back().gradients = Gradients::none;
}

}  // namespace

void add_linalg_samples(Samples& samples) {
  add_systems(samples);
  add_inverses(samples);
  add_decompositions(samples);
}

}  // namespace tandem::samples

// Systems of equations and decompositions of matrices. Below, A' is the transpose of A, gX the gradient of X, and sums
// over a broadcast batch are left out. Sources of the gradients:
//   Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation" (2008): solve,
//     inverse, determinant, eigenvalues
//   Murray, "Differentiation of the Cholesky decomposition" (2016)
//   Walter and Lehmann, "Algorithmic differentiation of linear algebra functions with application in optimum experimental
//     design" (2018), and Roberts and Roberts, "QR and LQ decomposition matrix backpropagation algorithms" (2020): QR
//   Townsend, "Differentiating the singular value decomposition" (2016)
//   Golub and Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems" (1973)
#include "core/ops/linalg.h"

#include <cmath>

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

// What ops give ----------------------------------------------------------------------------------------------------

void check_matrices(const Infer& op, int i) {
  const Tensor& a = op.input(i);
  op.check<DTypeError>(a.dtype() == float32 || a.dtype() == float64, "operand ", i, " must be float32 or float64, got ",
                       a.dtype(), "; cast it with to(float32)");
  op.check<ShapeError>(a.rank() >= 2, "operand ", i, " must be a matrix [.., m, n], got ", a.shape(),
                       a.rank() == 1 ? "; unsqueeze() makes one of a vector" : "");
}
void check_square(const Infer& op) {
  check_matrices(op, 0);
  const Shape& a = op.input(0).shape();
  op.check<ShapeError>(a[a.size() - 2] == a.back(), "needs square matrices [.., n, n], got ", a, " (", a[a.size() - 2],
                       " rows and ", a.back(), " columns)");
}

/// Rows and columns, and their number if they are of one size.
struct Extents {
  int64_t rows, columns;
  explicit Extents(const Shape& shape) : rows(shape[shape.size() - 2]), columns(shape.back()) {}
  int64_t least() const { return std::min(rows, columns); }
};
Shape batch_of(Shape shape, int matrix_rank = 2) {
  shape.resize(shape.size() - matrix_rank);
  return shape;
}
Shape with(Shape batch, std::initializer_list<int64_t> extents) {
  for (const int64_t extent : extents) batch.push_back(extent);
  return batch;
}

/// A [.., m, n] and B [.., m, k] give X [.., n, k].
void infer_system(Infer& op) {
  check_matrices(op, 0), check_matrices(op, 1);
  const Tensor &a = op.input(0), &b = op.input(1);
  op.check<DTypeError>(a.dtype() == b.dtype(), "operands of different dtypes: ", a.dtype(), " and ", b.dtype(),
                       "; cast one with to()");
  const Extents left(a.shape()), right(b.shape());
  op.check<ShapeError>(left.rows == right.rows, "A ", a.shape(), " and B ", b.shape(), " differ in their rows (",
                       left.rows, " and ", right.rows, ")");
  const Shape of_a = batch_of(a.shape()), of_b = batch_of(b.shape());
  Shape batch = of_a.size() < of_b.size() ? of_b : of_a;
  for (int i = 1; i <= batch.size(); ++i) {
    const int64_t ea = i <= of_a.size() ? of_a[of_a.size() - i] : 1, eb = i <= of_b.size() ? of_b[of_b.size() - i] : 1;
    op.check<ShapeError>(ea == eb || ea == 1 || eb == 1, "batch dims don't broadcast: A ", a.shape(), " and B ",
                         b.shape(), " (", ea, " and ", eb, ")");
    batch[batch.size() - i] = ea == 1 ? eb : ea;
  }
  op.output(with(batch, {left.columns, right.columns}), a.dtype());
}
void infer_square_system(Infer& op) {
  check_square(op);
  infer_system(op);
}
void infer_square(Infer& op) {
  check_square(op);
  op.output(op.input(0).shape(), op.input(0).dtype());
}
void infer_det(Infer& op) {
  check_square(op);
  for (int i = 0; i < op.op.outputs; ++i) op.output(batch_of(op.input(0).shape()), op.input(0).dtype());
}
void infer_qr(Infer& op) {
  check_matrices(op, 0);
  const Tensor& a = op.input(0);
  const Extents extents(a.shape());
  const int64_t k = op.attributes.flag("complete") ? extents.rows : extents.least();
  op.output(with(batch_of(a.shape()), {extents.rows, k}), a.dtype());
  op.output(with(batch_of(a.shape()), {k, extents.columns}), a.dtype());
}
void infer_svd(Infer& op) {
  check_matrices(op, 0);
  const Tensor& a = op.input(0);
  const Extents extents(a.shape());
  const Shape batch = batch_of(a.shape());
  op.output(with(batch, {extents.rows, extents.least()}), a.dtype());
  op.output(with(batch, {extents.least()}), a.dtype());
  op.output(with(batch, {extents.least(), extents.columns}), a.dtype());
}
void infer_svdvals(Infer& op) {
  check_matrices(op, 0);
  op.output(with(batch_of(op.input(0).shape()), {Extents(op.input(0).shape()).least()}), op.input(0).dtype());
}
void infer_eigh(Infer& op) {
  check_square(op);
  op.output(batch_of(op.input(0).shape(), 1), op.input(0).dtype());
  if (op.op.outputs > 1) op.output(op.input(0).shape(), op.input(0).dtype());
}
void infer_pinv(Infer& op) {
  check_matrices(op, 0);
  const Tensor& a = op.input(0);
  const Extents extents(a.shape());
  op.output(with(batch_of(a.shape()), {extents.columns, extents.rows}), a.dtype());
}

// Gradients --------------------------------------------------------------------------------------------------------

Tensor transposed(const Tensor& x) { return transpose(x, -2, -1); }
/// x [..] and x [.., n], to scale matrices and their rows or columns.
Tensor as_matrix(const Tensor& x) { return unsqueeze(unsqueeze(x, -1), -1); }
Tensor as_column(const Tensor& x) { return unsqueeze(x, -1); }
Tensor as_row(const Tensor& x) { return unsqueeze(x, -2); }

Tensor call_solve(const Tensor& a, const Tensor& b) { return dispatch(find_op("solve"), {a, b}, {}, Where::current()); }
Tensor call_lstsq(const Tensor& a, const Tensor& b) { return dispatch(find_op("lstsq"), {a, b}, {}, Where::current()); }

/// X = A^-1 B: gB = A'^-1 gX, gA = -gB X'.
Tensors solve_grad(const OpContext& op) {
  const Tensor by_b = call_solve(transposed(op.input(0)), op.grad_output());
  Tensors result(2);
  if (op.needs_grad(0)) result[0] = sum_to(-matmul(by_b, transposed(op.output())), op.input_shape(0));
  if (op.needs_grad(1)) result[1] = sum_to(by_b, op.input_shape(1));
  return result;
}

/// The same, of the triangle that is read.
Tensors triangular_grad(const OpContext& op) {
  const bool upper = op.integer("upper") != 0, unit = op.integer("unitriangular") != 0;
  const Tensor by_b =
      linalg::solve_triangular(transposed(op.input(0)), op.grad_output(), {.upper = !upper, .unitriangular = unit});
  Tensors result(2);
  if (op.needs_grad(0)) {
    const Tensor whole = sum_to(-matmul(by_b, transposed(op.output())), op.input_shape(0));
    result[0] = upper ? triu(whole, unit ? 1 : 0) : tril(whole, unit ? -1 : 0);
  }
  if (op.needs_grad(1)) result[1] = sum_to(by_b, op.input_shape(1));
  return result;
}

/// gA = -X' gX X' of X = A^-1.
Tensors inverse_grad(const OpContext& op) {
  const Tensor x = transposed(op.output());
  return {-matmul(x, matmul(op.grad_output(), x))};
}
/// gA = g det(A) A'^-1.
Tensors det_grad(const OpContext& op) {
  return {as_matrix(op.grad_output() * op.output()) * transposed(linalg::inverse(op.input(0)))};
}
/// gA = g A'^-1, of the logarithm; the sign is constant.
Tensors slogdet_grad(const OpContext& op) {
  return {as_matrix(op.grad_output(1)) * transposed(linalg::inverse(op.input(0)))};
}

/// The lower triangle mirrored into the upper.
Tensor mirrored(const Tensor& x) { return tril(x) + transposed(tril(x, -1)); }

/// Murray, (10): gA = (S + S') / 2 with S = L'^-1 phi(L' gL) L^-1, where phi takes the lower triangle and half the diagonal.
Tensors cholesky_grad(const OpContext& op) {
  const Tensor upper = transposed(op.output());
  const Tensor product = matmul(upper, tril(op.grad_output()));
  const Tensor phi = 0.5 * (tril(product) + tril(product, -1));
  const Tensor s = linalg::solve_triangular(upper, transposed(linalg::solve_triangular(upper, phi)));
  return {0.5 * (s + transposed(s))};
}

/// Walter and Lehmann: gA = (gQ + Q mirrored(R gR' - gQ' Q)) R'^-1, of A with as many columns as Q.
Tensor tall_qr_grad(const Tensor& q, const Tensor& r, const Tensor& by_q, const Tensor& by_r) {
  const Tensor m = matmul(r, transposed(by_r)) - matmul(transposed(by_q), q);
  const Tensor right = by_q + matmul(q, mirrored(m));
  return transposed(linalg::solve_triangular(r, transposed(right)));
}
/// Wide A = [X Y] = Q [U V] (Roberts and Roberts): Q and U depend on X alone, and V = Q' Y.
Tensors qr_grad(const OpContext& op) {
  const Tensor q = op.output(0), r = op.output(1), by_q = op.grad_output(0), by_r = op.grad_output(1);
  const int64_t m = q.shape()[q.rank() - 2], k = q.shape().back(), n = r.shape().back();
  if (k > n)
    throw AutogradError(detail::str("qr: of ", op.input_shape(0), " in complete mode has no gradient: the last ", m - n,
                                    " columns of Q are arbitrary; use QrMode::reduced"),
                        user_line(Where::current()));
  if (k == n) return {tall_qr_grad(q, r, by_q, by_r)};
  const Tensor y = matmul(q, slice(r, -1, k, n)), by_v = slice(by_r, -1, k, n);
  const Tensor by_x = tall_qr_grad(q, slice(r, -1, 0, k), by_q + matmul(y, transposed(by_v)), slice(by_r, -1, 0, k));
  return {concat({by_x, matmul(q, by_v)}, -1)};
}

/// 1 / (x_j - x_i), and 1 on the diagonal, where it meets zeros; of products of differences and sums for squares.
Tensor inverse_gaps(const Tensor& x, bool of_squares) {
  const Tensor gaps = as_row(x) - as_column(x);
  return 1 / ((of_squares ? gaps * (as_row(x) + as_column(x)) : gaps) +
              eye(x.shape().back(), {}, {.dtype = x.dtype(), .device = x.device()}));
}
Tensor skew(const Tensor& x) { return x - transposed(x); }

/// Townsend, with F_ij = 1 / (s_j^2 - s_i^2):
///   gA = U (skew(U' gU) o F S + S skew(V' gV) o F + diag(gs)) V' + (I - U U') gU S^-1 V' + U S^-1 gV' (I - V V')
Tensors svd_grad(const OpContext& op) {
  const Tensor u = op.output(0), s = op.output(1), vh = op.output(2);
  const Tensor of_values = matmul(u * as_row(op.grad_output(1)), vh);
  if (!op.has_grad_output(0) && !op.has_grad_output(2)) return {of_values};
  const Tensor by_u = op.grad_output(0), by_vh = op.grad_output(2), gaps = inverse_gaps(s, true);
  const Tensor u_by_u = matmul(transposed(u), by_u), by_vh_v = matmul(by_vh, transposed(vh));
  const Tensor inner = skew(u_by_u) * gaps * as_row(s) + as_column(s) * (skew(transposed(by_vh_v)) * gaps);
  Tensor result = of_values + matmul(u, matmul(inner, vh));
  const Extents extents(op.input_shape(0));
  if (extents.rows > extents.columns) result = result + matmul((by_u - matmul(u, u_by_u)) / as_row(s), vh);
  if (extents.rows < extents.columns) result = result + matmul(u, (by_vh - matmul(by_vh_v, vh)) / as_column(s));
  return {result};
}
Tensors svdvals_grad(const OpContext& op) {
  const auto [u, s, vh] = linalg::svd(op.input(0));
  return {matmul(u * as_row(op.grad_output()), vh)};
}

/// Giles, 3.1, for symmetric changes of A: gA = V (diag(gw) + skew(V' gV) / (2 (w_j - w_i))) V'.
Tensors eigh_grad(const OpContext& op) {
  const Tensor w = op.output(0), v = op.output(1);
  const Tensor of_values = matmul(v * as_row(op.grad_output(0)), transposed(v));
  if (!op.has_grad_output(1)) return {of_values};
  const Tensor inner = 0.5 * skew(matmul(transposed(v), op.grad_output(1))) * inverse_gaps(w, false);
  return {of_values + matmul(v, matmul(inner, transposed(v)))};
}
Tensors eigvalsh_grad(const OpContext& op) {
  const Tensor v = linalg::eigh(op.input(0)).vectors;
  return {matmul(v * as_row(op.grad_output()), transposed(v))};
}

/// X = P B with P the pseudo-inverse of A, R = B - A X, y = P' gX. Golub and Pereyra give, for A of full rank,
///   gB = y, gA = -y X' + R (P y)' + P' X (gX - P A gX)',
/// where R is 0 unless A is tall, and the last term unless it is wide. P z and P' z are problems of this kind again.
Tensors lstsq_grad(const OpContext& op) {
  const Tensor a = op.input(0), x = op.output(), g = op.grad_output();
  const Tensor y = call_lstsq(transposed(a), g);
  Tensors result(2);
  if (op.needs_grad(1)) result[1] = sum_to(y, op.input_shape(1));
  if (!op.needs_grad(0)) return result;
  const Extents extents(a.shape());
  Tensor by_a = -matmul(y, transposed(x));
  if (extents.rows > extents.columns) by_a = by_a + matmul(op.input(1) - matmul(a, x), transposed(call_lstsq(a, y)));
  if (extents.rows < extents.columns)
    by_a = by_a + matmul(call_lstsq(transposed(a), x), transposed(g - call_lstsq(a, matmul(a, g))));
  result[0] = sum_to(by_a, op.input_shape(0));
  return result;
}

/// Golub and Pereyra, (4.12), among matrices of A's rank: with P the pseudo-inverse,
///   gA = -P' g P' + (I - A P) g' P P' + P' P g' (I - P A).
Tensors pinv_grad(const OpContext& op) {
  const Tensor a = op.input(0), p = op.output(), g = op.grad_output(), pt = transposed(p), gt = transposed(g);
  const Tensor left = matmul(gt, matmul(p, pt)), right = matmul(matmul(pt, p), gt);
  return {-matmul(pt, matmul(g, pt)) + (left - matmul(a, matmul(p, left))) + (right - matmul(matmul(right, p), a))};
}

// Helpers of the public functions ----------------------------------------------------------------------------------

double epsilon(DType type) { return type == float64 ? 0x1p-52 : 0x1p-23; }

/// The share of the largest singular value below which another counts as 0.
double rank_tolerance(const Tensor& a, const linalg::RankOptions& options) {
  if (options.rtol) return *options.rtol;
  const Shape& shape = a.shape();
  return shape.size() < 2 ? 0
                          : static_cast<double>(std::max(shape.back(), shape[shape.size() - 2])) * epsilon(a.dtype());
}

Tensor call(const char* name, const Arg& a) { return dispatch(find_op(name), {a.tensor()}, {}, a.where()); }

}  // namespace

void define_linalg(OpTable& table) {
  const auto add = [&](Op op) {
    op.kind = OpKind::opaque;
    op.contiguous_inputs = true;
    op.autocast = AutocastRule::widen;
    table.add(op);
  };
  add({.name = "solve", .inputs = 2, .infer = infer_square_system, .grad = solve_grad, .saved = in(0) | out(0)});
  add({.name = "solve_triangular",
       .inputs = 2,
       .attributes = {{"upper", AttributeType::flag}, {"unitriangular", AttributeType::flag, false}},
       .infer = infer_square_system,
       .grad = triangular_grad,
       .saved = in(0) | out(0)});
  add({.name = "lstsq", .inputs = 2, .infer = infer_system, .grad = lstsq_grad, .saved = in(0) | in(1) | out(0)});
  add({.name = "inverse", .infer = infer_square, .grad = inverse_grad, .saved = out(0)});
  add({.name = "pinv",
       .attributes = {{"rtol", AttributeType::number}},
       .infer = infer_pinv,
       .grad = pinv_grad,
       .saved = in(0) | out(0)});
  add({.name = "det", .infer = infer_det, .grad = det_grad, .saved = in(0) | out(0), .onnx = "Det"});
  add({.name = "slogdet", .outputs = 2, .infer = infer_det, .grad = slogdet_grad, .saved = in(0)});
  add({.name = "cholesky", .infer = infer_square, .grad = cholesky_grad, .saved = out(0)});
  add({.name = "qr",
       .outputs = 2,
       .attributes = {{"complete", AttributeType::flag, false}},
       .infer = infer_qr,
       .grad = qr_grad,
       .saved = out(0) | out(1)});
  add({.name = "svd", .outputs = 3, .infer = infer_svd, .grad = svd_grad, .saved = out(0) | out(1) | out(2)});
  add({.name = "svdvals", .infer = infer_svdvals, .grad = svdvals_grad, .saved = in(0)});
  add({.name = "eigh", .outputs = 2, .infer = infer_eigh, .grad = eigh_grad, .saved = out(0) | out(1)});
  add({.name = "eigvalsh", .infer = infer_eigh, .grad = eigvalsh_grad, .saved = in(0)});
}

namespace linalg {

Tensor solve(const Arg& a, const Arg& b, SolveOptions options) {
  const WhereScope scope(a.where());
  const Tensor &matrix = a.tensor(), &right = b.tensor();
  const bool vector =
      right.rank() == 1 || (right.rank() + 1 == matrix.rank() && right.shape() == batch_of(matrix.shape(), 1));
  if (vector) return squeeze(call_solve(options.left ? matrix : transposed(matrix), as_column(right)), -1);
  if (options.left) return call_solve(matrix, right);
  return transposed(call_solve(transposed(matrix), transposed(right)));
}

Tensor solve_triangular(const Arg& a, const Arg& b, TriangularOptions options) {
  static const Op& op = find_op("solve_triangular");
  const WhereScope scope(a.where());
  if (!options.left)
    return transposed(solve_triangular(transposed(a.tensor()), transposed(b.tensor()),
                                       {.upper = !options.upper, .unitriangular = options.unitriangular}));
  return dispatch(op, {a.tensor(), b.tensor()}, {{"upper", options.upper}, {"unitriangular", options.unitriangular}},
                  a.where());
}

Tensor inverse(const Arg& a) { return call("inverse", a); }
Tensor det(const Arg& a) { return call("det", a); }
SignAndLogarithm slogdet(const Arg& a) {
  const Tensors result = dispatch_all(find_op("slogdet"), {&a.tensor(), 1}, {}, a.where());
  return {result[0], result[1]};
}

Tensor cholesky(const Arg& a, CholeskyOptions options) {
  const Tensor lower = call("cholesky", a);
  return options.upper ? transpose({lower, a.where()}, -2, -1) : lower;
}
QR qr(const Arg& a, QrMode mode) {
  const Tensors result =
      dispatch_all(find_op("qr"), {&a.tensor(), 1}, {{"complete", mode == QrMode::complete}}, a.where());
  return {result[0], result[1]};
}
SVD svd(const Arg& a) {
  const Tensors result = dispatch_all(find_op("svd"), {&a.tensor(), 1}, {}, a.where());
  return {result[0], result[1], result[2]};
}
Tensor svdvals(const Arg& a) { return call("svdvals", a); }
Eigenpairs eigh(const Arg& a) {
  const Tensors result = dispatch_all(find_op("eigh"), {&a.tensor(), 1}, {}, a.where());
  return {result[0], result[1]};
}
Tensor eigvalsh(const Arg& a) { return call("eigvalsh", a); }

Tensor lstsq(const Arg& a, const Arg& b) { return dispatch(find_op("lstsq"), {a.tensor(), b.tensor()}, {}, a.where()); }
Tensor pinv(const Arg& a, RankOptions options) {
  return dispatch(find_op("pinv"), {a.tensor()}, {{"rtol", rank_tolerance(a.tensor(), options)}}, a.where());
}
Tensor matrix_rank(const Arg& a, RankOptions options) {
  const NoGrad guard;
  const WhereScope scope(a.where());
  const Tensor values = svdvals(a);
  if (values.shape().back() == 0) return sum(to(values, int64), -1);
  return sum(to(values > max(values, -1, {.keepdim = true}) * rank_tolerance(a.tensor(), options), int64), -1);
}

Tensor matrix_norm(const Arg& a, std::string_view order, MatrixNormOptions options) {
  const WhereScope scope(a.where());
  if (order != "fro" && order != "nuc")
    throw ValueError(detail::str("matrix_norm: order \"", order,
                                 "\" is neither \"fro\" nor \"nuc\" nor one of the numbers 1, 2, infinity and their "
                                 "negatives"),
                     user_line(a.where()));
  if (a.tensor().rank() < 2)
    throw ShapeError(detail::str("matrix_norm: needs matrices [.., m, n], got ", a.tensor().shape()),
                     user_line(a.where()));
  if (order == "fro") return norm(a, {-2, -1}, {.keepdim = options.keepdim});
  const Tensor total = sum(svdvals(a), -1, {.keepdim = options.keepdim});
  return options.keepdim ? unsqueeze(total, -1) : total;
}

Tensor matrix_norm(const Arg& a, double order, MatrixNormOptions options) {
  const WhereScope scope(a.where());
  const double size = std::fabs(order);
  if (size != 1 && size != 2 && !std::isinf(order))
    throw ValueError(detail::str("matrix_norm: order ", order,
                                 " is not 1, 2, infinity, or one of their negatives; for others there are \"fro\" and "
                                 "\"nuc\""),
                     user_line(a.where()));
  if (a.tensor().rank() < 2)
    throw ShapeError(detail::str("matrix_norm: needs matrices [.., m, n], got ", a.tensor().shape()),
                     user_line(a.where()));
  const Tensor sums = size == 2 ? svdvals(a) : sum(abs(a), size == 1 ? -2 : -1);
  const Tensor result = order > 0 ? max(sums, -1) : min(sums, -1);
  return options.keepdim ? as_matrix(result) : result;
}

Tensor cond(const Arg& a) {
  const WhereScope scope(a.where());
  const Tensor values = svdvals(a);
  return max(values, -1) / min(values, -1);
}

}  // namespace linalg

}  // namespace tandem

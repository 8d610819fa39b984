// Linear algebra: systems of equations, decompositions and what follows from them, as torch.linalg has it.
//
// Operands are matrices [.., m, n] of float32 or float64 (DTypeError else; Autocast widens 16-bit floats); each matrix
// of the batch is one problem. They are read on the CPU. ShapeError where shapes don't fit. LinAlgError, with the place in
// the batch, where a matrix has no such decomposition or isn't finite. All but matrix_rank have gradients of any order.
#pragma once

#include <optional>
#include <string_view>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem::linalg {

struct SolveOptions {
  bool left = true;  ///< A X = B; else X A = B
};
/// X with A X = B, of A [.., n, n] and B [.., n, k], batches broadcast; B may be a vector [n], or vectors: A's shape
/// without the last dim. By LU factors with row pivots. LinAlgError where A is singular: where a pivot is no larger than
/// the rounding errors it is made with.
Tensor solve(const Arg& a, const Arg& b, SolveOptions options = {});

struct TriangularOptions {
  bool upper = true;           ///< A is the upper triangle of its operand, else the lower; the other isn't read
  bool left = true;            ///< A X = B; else X A = B
  bool unitriangular = false;  ///< A's diagonal is taken for ones, and not read
};
/// X with A X = B, of a triangular A [.., n, n] and B [.., n, k], batches broadcast. LinAlgError where A has a zero on its
/// diagonal.
Tensor solve_triangular(const Arg& a, const Arg& b, TriangularOptions options = {});

/// A^-1 of A [.., n, n]. LinAlgError as in solve(), which is the better way to A^-1 B.
Tensor inverse(const Arg& a);
inline Tensor inv(const Arg& a) { return inverse(a); }

/// [..] of A [.., n, n]; 0 for a singular matrix, whose gradient is a LinAlgError: it is made with the inverse.
Tensor det(const Arg& a);
struct SignAndLogarithm {
  Tensor sign, logabsdet;
};
/// det A = sign exp(logabsdet), also where det would overflow; 0 and -inf for a singular matrix. Gradient as of det.
SignAndLogarithm slogdet(const Arg& a);

struct CholeskyOptions {
  bool upper = false;  ///< the transpose of L
};
/// Lower triangular L [.., n, n] with L L^T = A, of a symmetric positive definite A. LinAlgError where A is not: symmetric
/// is |A - A^T| <= sqrt(epsilon) max |A|, and what is read is the lower triangle.
Tensor cholesky(const Arg& a, CholeskyOptions options = {});

/// reduced: q [.., m, k], r [.., k, n], k = min(m, n). complete: q [.., m, m], r [.., m, n], differentiable where m <= n.
enum class QrMode : uint8_t { reduced, complete };
struct QR {
  Tensor q, r;
};
/// A = Q R with orthonormal columns in Q and an upper triangular R, of A [.., m, n]; signs as LAPACK's Householder
/// reflections give them. The gradient needs the first k columns of A independent (LinAlgError from solve_triangular else).
QR qr(const Arg& a, QrMode mode = QrMode::reduced);

struct SVD {
  Tensor u, s, vh;
};
/// A = U diag(s) Vh, of A [.., m, n]: u [.., m, k], s [.., k] descending, vh [.., k, n], k = min(m, n). Columns of U with
/// rows of Vh are unique but for their sign, so only what doesn't depend on it has a meaningful gradient. That of u and vh
/// is not finite where two singular values are equal, or, unless A is square, one is 0.
SVD svd(const Arg& a);
/// The singular values alone, which is quicker. A gradient of first order always exists.
Tensor svdvals(const Arg& a);

struct Eigenpairs {
  Tensor values, vectors;
};
/// A V = V diag(w), of a symmetric A [.., n, n]: values [.., n] ascending, vectors [.., n, n] in columns. LinAlgError where
/// A is not symmetric, as for cholesky. The gradient of the vectors, unique but for their sign, is not finite where two
/// values are equal.
Eigenpairs eigh(const Arg& a);
/// The eigenvalues alone, which is quicker. A gradient of first order always exists.
Tensor eigvalsh(const Arg& a);

/// The X [.., n, k] that makes |A X - B| least, of A [.., m, n] and B [.., m, k], batches broadcast: for m < n that of
/// least norm. LinAlgError where A has not full rank; pinv serves there.
Tensor lstsq(const Arg& a, const Arg& b);

struct RankOptions {
  std::optional<double> rtol =
      {};  ///< singular values below rtol times the largest count as 0; max(m, n) epsilon if absent
};
/// The Moore-Penrose inverse [.., n, m] of A [.., m, n]. The gradient is that among matrices of A's rank.
Tensor pinv(const Arg& a, RankOptions options = {});
/// int64 [..]: how many singular values count as more than 0.
Tensor matrix_rank(const Arg& a, RankOptions options = {});

struct MatrixNormOptions {
  bool keepdim = false;
};
/// Of the last two dims. "fro": root of the sum of squares; "nuc": sum of singular values; 2 and -2: the largest and the
/// least of them; 1 and -1: the largest and least sum of |x| over a column; infinity and -infinity: over a row. ValueError
/// for another order.
Tensor matrix_norm(const Arg& a, std::string_view order = "fro", MatrixNormOptions options = {});
Tensor matrix_norm(const Arg& a, double order, MatrixNormOptions options = {});
/// The largest singular value over the least, [..]: how much a relative error of B may grow in solve(A, B).
Tensor cond(const Arg& a);

}  // namespace tandem::linalg

// Products of matrices, and sums of products over labelled dims.
#pragma once

#include <string_view>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Products. matmul: [.., m, k] x [.., k, n] with broadcast batch dims; vectors as in NumPy.
Tensor matmul(const Arg& a, const Arg& b);
Tensor bmm(const Arg& a, const Arg& b);    ///< [batch, m, k] x [batch, k, n], nothing broadcast
Tensor dot(const Arg& a, const Arg& b);    ///< of two vectors
Tensor outer(const Arg& a, const Arg& b);  ///< [m], [n]: [m, n]
/// Sums of products over labelled dims (Einstein's convention): einsum("bij,bjk->bik", {a, b}). Labels are letters, one
/// for each dim; those missing behind the arrow are summed over. A label twice in an operand takes its diagonal, "..."
/// stands for dims that broadcast, and without an arrow the result has all labels that occur once, in alphabetical
/// order. Operands are multiplied from left to right, by matmul where dims are summed.
Tensor einsum(std::string_view equation, const Tensors& operands, Where where = Where::current());
/// x [.., in] by weight [out, in] transposed, plus bias [out] if given.
Tensor linear(const Arg& x, const Tensor& weight, const Tensor& bias = {});
/// Sums over the last `dims` dims of a and the first of b; or over the dims of a and b named, pair by pair.
Tensor tensordot(const Arg& a, const Arg& b, int64_t dims = 2);
Tensor tensordot(const Arg& a, const Arg& b, const Dims& dims_of_a, const Dims& dims_of_b);
/// Each element of a times all of b, as blocks: [rows a * rows b, columns a * columns b] of matrices (Kronecker).
Tensor kron(const Arg& a, const Arg& b);

}  // namespace tandem

// Casts, moves, views, and elements put in other places.
#pragma once

#include <optional>
#include <vector>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Casts and moves.
Tensor to(const Arg& x, DType dtype);
Tensor to(const Arg& x, Device device);
Tensor clone(const Arg& x);
/// A copy of x that the graph compiler takes for another value than x, not to be made before `after` is: what is computed
/// from it is computed again, and no earlier. checkpoint's means to give memory back; see autograd/checkpoint.h.
Tensor barrier(const Arg& x, const Tensor& after);
/// The tensor itself if its elements lie in row-major order, else a copy where they do.
Tensor contiguous(const Arg& x);

// Views. They share storage; reshape copies where strides don't allow it.
Tensor reshape(const Arg& x, const Shape& shape);  ///< one extent may be -1
Tensor flatten(const Arg& x, int64_t start_dim = 0, int64_t end_dim = -1);
Tensor permute(const Arg& x, const Dims& dims);
Tensor transpose(const Arg& x, int64_t a, int64_t b);
Tensor slice(const Arg& x, int64_t dim, int64_t begin, int64_t end, int64_t step = 1);
Tensor select(const Arg& x, int64_t dim, int64_t index);
Tensor expand(const Arg& x, const Shape& shape);      ///< extents of 1 repeat; -1 keeps
Tensor view(const Arg& x, const Shape& shape);        ///< reshape that never copies: ShapeError where it would have to
Tensor squeeze(const Arg& x, const Dims& dims = {});  ///< without these dims, or any, where their extent is 1
/// Dim `dim` as several: one of the extents may be -1.
Tensor unflatten(const Arg& x, int64_t dim, const Shape& sizes);
Tensors broadcast_tensors(const Tensors& tensors, Where where = Where::current());
enum class MeshIndexing : uint8_t { ij, xy };
/// For vectors of extents n0, n1, …, each one's elements along its own dim of [n0, n1, ..]; xy swaps the first two dims.
Tensors meshgrid(const Tensors& vectors, MeshIndexing indexing = MeshIndexing::ij, Where where = Where::current());
Tensor unsqueeze(const Arg& x, int64_t dim);
Tensor narrow(const Arg& x, int64_t dim, int64_t start, int64_t length);
/// The elements whose positions in dim2 and dim1 differ by `offset`, as a new last dim.
Tensor diagonal(const Arg& x, int64_t offset = 0, int64_t dim1 = 0, int64_t dim2 = 1);
/// Dim source[i] becomes dim destination[i]; the others keep their order.
Tensor movedim(const Arg& x, const Dims& source, const Dims& destination);
/// The elements of x's memory, offset + sum of position times stride, as a tensor of that shape. x must be contiguous;
/// ShapeError where the window reaches beyond it.
Tensor as_strided(const Arg& x, const Shape& shape, const Shape& strides, int64_t offset = 0);
inline Tensor swapdims(const Arg& x, int64_t a, int64_t b) { return transpose(x, a, b); }
inline Tensor broadcast_to(const Arg& x, const Shape& shape) { return expand(x, shape); }
/// The slices of `dim`, without it.
Tensors unbind(const Arg& x, int64_t dim = 0);
/// Pieces of `size` along `dim`, the last one smaller where that doesn't divide it; or of the sizes given.
Tensors split(const Arg& x, int64_t size, int64_t dim = 0);
Tensors split(const Arg& x, const std::vector<int64_t>& sizes, int64_t dim = 0);
/// At most `chunks` pieces of one size, ceil(extent / chunks), but for the last.
Tensors chunk(const Arg& x, int64_t chunks, int64_t dim = 0);

// Elements in other places: copies.
/// Joins tensors that agree in every dim but `dim`; their dtypes are promoted.
Tensor concat(const Tensors& tensors, int64_t dim = 0, Where where = Where::current());
/// Joins tensors of one shape along a new dim.
Tensor stack(const Tensors& tensors, int64_t dim = 0, Where where = Where::current());
// x with the elements that slice, select, diagonal or as_strided would show replaced by those of `source`, which has their
// shape and x's dtype (ValueError where as_strided shows an element twice).
Tensor slice_scatter(const Arg& x, const Tensor& source, int64_t dim, int64_t begin, int64_t end, int64_t step = 1);
Tensor select_scatter(const Arg& x, const Tensor& source, int64_t dim, int64_t index);
Tensor diagonal_scatter(const Arg& x, const Tensor& source, int64_t offset = 0, int64_t dim1 = 0, int64_t dim2 = 1);
Tensor as_strided_scatter(const Arg& x, const Tensor& source, const Shape& shape, const Shape& strides,
                          int64_t offset = 0);
Tensor hstack(const Tensors& tensors, Where where = Where::current());  ///< along dim 1, vectors along dim 0
Tensor vstack(const Tensors& tensors, Where where = Where::current());  ///< along dim 0, vectors as rows
Tensor dstack(const Tensors& tensors, Where where = Where::current());  ///< along dim 2, matrices as [rows, columns, 1]
/// `sections` pieces along dim, the first ones longer by one where that doesn't divide it.
Tensors tensor_split(const Arg& x, int64_t sections, int64_t dim = 0);
/// A quarter turn k times, from the first of the dims towards the second.
Tensor rot90(const Arg& x, int64_t k = 1, const Dims& dims = {0, 1});
/// Windows of `size` along dim, `step` apart, as a new last dim.
Tensor unfold(const Arg& x, int64_t dim, int64_t size, int64_t step);
Tensor flip(const Arg& x, const Dims& dims);  ///< in reverse order along these dims
/// Shifts elements along each dim by its shift, those pushed over the end coming back at the start; without dims, as if
/// x were flat.
Tensor roll(const Arg& x, const Dims& shifts, const Dims& dims = {});
/// x over and over, repeats[i] times along dim i; more repeats than dims add leading dims.
Tensor repeat(const Arg& x, const Shape& repeats);
/// Each slice of `dim`, `repeats` times in a row.
Tensor repeat_interleave(const Arg& x, int64_t repeats, int64_t dim);
/// Slice i of `dim`, repeats[i] times in a row. Without `size`, which is their sum, repeats are read: not in a trace.
Tensor repeat_interleave(const Arg& x, const Tensor& repeats, int64_t dim, std::optional<int64_t> size = {});
/// Differences of neighbours along dim, n times over; of bool, whether they differ.
Tensor diff(const Arg& x, int64_t n = 1, int64_t dim = -1);
/// The last dim along a diagonal of zeros, as new dims dim1 and dim2.
Tensor diag_embed(const Arg& x, int64_t offset = 0, int64_t dim1 = -2, int64_t dim2 = -1);
Tensor diag(const Arg& x, int64_t offset = 0);  ///< of a matrix its diagonal, of a vector the matrix that has it as one
/// The lower and upper triangle of the last two dims, zeros elsewhere: columns up to (from) row + diagonal.
Tensor tril(const Arg& x, int64_t diagonal = 0);
Tensor triu(const Arg& x, int64_t diagonal = 0);
/// reflect mirrors without repeating the edge (3 2 | 1 2 3 | 2 1), replicate repeats the edge, circular wraps around.
enum class PadMode : uint8_t { constant, reflect, replicate, circular };
struct PadOptions {
  PadMode mode = PadMode::constant;
  double value = 0;  ///< of a constant padding
};
/// Widens dims: `padding` has how much before and after the last dim, then before and after the one ahead of it, and so on, as
/// in PyTorch. Negative numbers cut off.
Tensor pad(const Arg& x, const std::vector<int64_t>& padding, PadOptions options = {});
/// `x` placed at [begin, begin + step, …) of `dim` in zeros of extent `size`: the gradient of slice.
Tensor slice_grad(const Arg& x, int64_t dim, int64_t begin, int64_t step, int64_t size);
/// x along a diagonal of zeros of `shape`: the gradient of diagonal.
Tensor diagonal_grad(const Arg& x, const Shape& shape, int64_t offset, int64_t dim1, int64_t dim2);
/// Sums away what broadcasting added, so that the result has `shape`.
Tensor sum_to(const Arg& x, const Shape& shape);

}  // namespace tandem

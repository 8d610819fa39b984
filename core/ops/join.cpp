// Tensors side by side and dims made of others: stacks, meshes, diagonals, differences, contractions.
#include "core/dispatch.h"
#include "core/ops/composed.h"

namespace tandem {

Tensor unflatten(const Arg& x, int64_t dim, const Shape& sizes) {
  const CallScope scope("unflatten", x.where());
  const int d = dim_of("unflatten", x, dim);
  const Shape& from = x.tensor().shape();
  const int64_t extent = from.empty() ? 1 : from[d];
  int64_t known = 1;
  int free_dim = -1;
  bool fits = !sizes.empty();
  for (int i = 0; fits && i < sizes.size(); ++i) {
    if (sizes[i] == -1 && free_dim < 0) free_dim = i;
    else fits = sizes[i] >= 0 && !__builtin_mul_overflow(known, sizes[i], &known);
  }
  if (!fits || (free_dim < 0 ? known != extent : known == 0 || extent % known != 0))
    throw ShapeError(detail::str("unflatten: dim ", d, " of ", from, " can't become ", sizes), user_line(x.where()));
  Shape shape;
  for (int i = 0; i < std::max(from.size(), 1); ++i) {
    if (i != d) shape.push_back(from[i]);
    else
      for (int k = 0; k < sizes.size(); ++k) shape.push_back(k == free_dim ? extent / known : sizes[k]);
  }
  return reshape(x, shape);
}

Tensors broadcast_tensors(const Tensors& tensors, Where where) {
  const CallScope scope("broadcast_tensors", where);
  const Shape shape = broadcast_shape("broadcast_tensors", tensors, where);
  Tensors result;
  for (const Tensor& tensor : tensors) result.push_back(expand({tensor, where}, shape));
  return result;
}

Tensors meshgrid(const Tensors& vectors, MeshIndexing indexing, Where where) {
  const CallScope scope("meshgrid", where);
  Shape shape;
  for (const Tensor& vector : vectors) {
    if (vector.rank(where) > 1)
      throw ShapeError(detail::str("meshgrid: needs vectors, got ", vector.shape()), user_line(where));
    shape.push_back(vector.numel());
  }
  Tensors result;
  for (int i = 0; i < shape.size(); ++i) {
    Shape along = Shape::filled(shape.size(), 1);
    along[i] = shape[i];
    const Tensor grid = expand(reshape(vectors[static_cast<size_t>(i)], along), shape);
    result.push_back(indexing == MeshIndexing::xy && shape.size() > 1 ? transpose(grid, 0, 1) : grid);
  }
  return result;
}

Tensor hstack(const Tensors& tensors, Where where) {
  const CallScope scope("hstack", where);
  Tensors parts;
  for (const Tensor& tensor : tensors) parts.push_back(tensor.rank(where) == 0 ? reshape(tensor, {1}) : tensor);
  return concat(parts, parts.empty() || parts[0].rank() == 1 ? 0 : 1, where);
}

Tensor vstack(const Tensors& tensors, Where where) {
  const CallScope scope("vstack", where);
  Tensors parts;
  for (const Tensor& tensor : tensors)
    parts.push_back(tensor.rank(where) < 2 ? reshape(tensor, {1, tensor.numel()}) : tensor);
  return concat(parts, 0, where);
}

Tensor diff(const Arg& x, int64_t n, int64_t dim) {
  const CallScope scope("diff", x.where());
  const int d = dim_of("diff", x, dim);
  if (x.tensor().rank() == 0 || n < 0)
    throw ValueError(detail::str("diff: ", n, " differences of ", x.tensor().shape()), user_line(x.where()));
  Tensor result = x.tensor();
  for (int64_t i = 0; i < n && result.shape()[d] > 0; ++i) {
    const int64_t extent = result.shape()[d];
    const Tensor later = slice(result, d, 1, extent), earlier = slice(result, d, 0, extent - 1);
    result = result.dtype() == bool_ ? later ^ earlier : later - earlier;
  }
  return result;
}

Tensor diag_embed(const Arg& x, int64_t offset, int64_t dim1, int64_t dim2) {
  const CallScope scope("diag_embed", x.where());
  const Shape& from = x.tensor().shape();
  const int rank = from.size() + 1;
  const auto place = [&](int64_t dim) {
    if (dim < -rank || dim >= rank)
      throw DimensionError(detail::str("diag_embed: dim ", dim, " is out of range for a result of rank ", rank),
                           user_line(x.where()));
    return static_cast<int>(dim < 0 ? dim + rank : dim);
  };
  const int d1 = place(dim1), d2 = place(dim2);
  if (from.empty() || d1 == d2)
    throw DimensionError(
        detail::str("diag_embed: needs x of at least one dim, and two dims, got ", from, ", ", dim1, " and ", dim2),
        user_line(x.where()));
  constexpr int64_t kMost = 1 << 20;  // a matrix of more rows has no room anywhere
  if (offset < -kMost || offset > kMost)
    throw ValueError(detail::str("diag_embed: offset ", offset, " is out of range"), user_line(x.where()));
  const int64_t extent = from.back() + (offset < 0 ? -offset : offset);
  Shape shape;
  for (int d = 0, next = 0; d < rank; ++d) shape.push_back(d == d1 || d == d2 ? extent : from[next++]);
  return diagonal_grad(x, shape, offset, d1, d2);
}

Tensor diag(const Arg& x, int64_t offset) {
  const CallScope scope("diag", x.where());
  const int rank = x.tensor().rank();
  if (rank != 1 && rank != 2)
    throw ShapeError(
        detail::str("diag: needs a vector or a matrix, got ", x.tensor().shape(), "; diagonal takes others"),
        user_line(x.where()));
  return rank == 1 ? diag_embed(x, offset) : clone(diagonal(x, offset));
}

// ---- Contractions.

Tensor tensordot(const Arg& a, const Arg& b, int64_t dims) {
  const int rank = a.tensor().rank();
  if (dims < 0 || dims > rank || dims > b.tensor().rank())
    throw ValueError(detail::str("tensordot: ", dims, " dims of ", a.tensor().shape(), " and ", b.tensor().shape()),
                     user_line(a.where()));
  Dims of_a, of_b;
  for (int64_t i = 0; i < dims; ++i) of_a.push_back(rank - dims + i), of_b.push_back(i);
  return tensordot(a, b, of_a, of_b);
}

Tensor tensordot(const Arg& a, const Arg& b, const Dims& dims_of_a, const Dims& dims_of_b) {
  const CallScope scope("tensordot", a.where());
  const Shape &from_a = a.tensor().shape(), &from_b = b.tensor().shape();
  Dims order_a, order_b;
  Shape shape, summed_a, summed_b;
  bool fits = dims_of_a.size() == dims_of_b.size();
  for (int64_t d : dims_of_a) summed_a.push_back(dim_of("tensordot", a, d));
  for (int64_t d : dims_of_b) summed_b.push_back(dim_of("tensordot", b, d));
  for (int i = 0; fits && i < summed_a.size(); ++i)
    fits = from_a[static_cast<int>(summed_a[i])] == from_b[static_cast<int>(summed_b[i])];
  if (!fits)
    throw ShapeError(detail::str("tensordot: dims ", dims_of_a, " of ", from_a, " and ", dims_of_b, " of ", from_b,
                                 " don't pair up"),
                     user_line(a.where()));
  int64_t rows = 1, width = 1, columns = 1;
  for (int d = 0; d < from_a.size(); ++d)
    if (!summed_a.contains(d)) order_a.push_back(d), shape.push_back(from_a[d]), rows *= from_a[d];
  for (int64_t d : summed_a) order_a.push_back(d), width *= from_a[static_cast<int>(d)];
  for (int64_t d : summed_b) order_b.push_back(d);
  for (int d = 0; d < from_b.size(); ++d)
    if (!summed_b.contains(d)) order_b.push_back(d), shape.push_back(from_b[d]), columns *= from_b[d];
  return reshape(matmul(reshape(permute(a, order_a), {rows, width}), reshape(permute(b, order_b), {width, columns})),
                 shape);
}

Tensor kron(const Arg& a, const Arg& b) {
  const CallScope scope("kron", a.where());
  const int rank = std::max(a.tensor().rank(), b.tensor().rank());
  if (rank > kMaxRank / 2)
    throw ShapeError(
        detail::str("kron: ", a.tensor().shape(), " and ", b.tensor().shape(), ": at most ", kMaxRank / 2, " dims"),
        user_line(a.where()));
  Shape outer, inner, shape;
  for (int d = 0; d < rank; ++d) {
    const auto extent = [&](const Tensor& x) {
      const int at = d - (rank - x.rank());
      return at < 0 ? 1 : x.shape()[at];
    };
    const int64_t m = extent(a.tensor()), n = extent(b.tensor());
    outer.push_back(m), outer.push_back(1);
    inner.push_back(1), inner.push_back(n);
    shape.push_back(m * n);
  }
  return reshape(reshape(a, outer) * reshape(b, inner), shape);
}

Tensor dstack(const Tensors& tensors, Where where) {
  const CallScope scope("dstack", where);
  Tensors parts;
  for (const Tensor& tensor : tensors)
    parts.push_back(tensor.rank(where) < 2    ? reshape(tensor, {1, tensor.numel(), 1})
                    : tensor.rank(where) == 2 ? unsqueeze(tensor, 2)
                                              : tensor);
  return concat(parts, 2, where);
}

Tensors tensor_split(const Arg& x, int64_t sections, int64_t dim) {
  const CallScope scope("tensor_split", x.where());
  const int d = dim_of("tensor_split", x, dim);
  constexpr int64_t kMost = 1 << 20;  // pieces
  if (sections < 1 || sections > kMost || x.tensor().rank() == 0)
    throw ValueError(detail::str("tensor_split: ", sections, " pieces of ", x.tensor().shape()), user_line(x.where()));
  const int64_t extent = x.tensor().shape()[d], longer = extent % sections;
  Tensors result;
  int64_t begin = 0;
  for (int64_t i = 0; i < sections; ++i) {
    const int64_t length = extent / sections + (i < longer ? 1 : 0);
    result.push_back(slice(x, d, begin, begin + length));
    begin += length;
  }
  return result;
}

Tensor rot90(const Arg& x, int64_t k, const Dims& dims) {
  const CallScope scope("rot90", x.where());
  if (dims.size() != 2 || dim_of("rot90", x, dims[0]) == dim_of("rot90", x, dims[1]))
    throw DimensionError(detail::str("rot90: needs two dims, got ", dims), user_line(x.where()));
  switch ((k % 4 + 4) % 4) {
    case 1: return flip(transpose(x, dims[0], dims[1]), dims[0]);
    case 2: return flip(x, dims);
    case 3: return flip(transpose(x, dims[0], dims[1]), dims[1]);
    default: return x.tensor();
  }
}

Tensor unfold(const Arg& x, int64_t dim, int64_t size, int64_t step) {
  const CallScope scope("unfold", x.where());
  const int d = dim_of("unfold", x, dim);
  const int64_t extent = x.tensor().rank() ? x.tensor().shape()[d] : 0;
  if (size < 1 || step < 1 || size > extent)
    throw ValueError(
        detail::str("unfold: windows of ", size, ", ", step, " apart, along dim ", d, " of ", x.tensor().shape()),
        user_line(x.where()));
  const int64_t count = (extent - size) / step + 1;
  const TensorOptions positions{.dtype = int64, .device = x.tensor().device()};
  const Tensor begins = unsqueeze(arange(0, count, 1, positions) * step, 1);
  return movedim(take(x, begins + arange(0, size, 1, positions), d), d + 1, -1);
}

}  // namespace tandem

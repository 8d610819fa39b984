// Views (reshape, permute, slice, expand, diagonal), concat, and ops that put elements in other places (pad, flip, tril). Views
// share storage; only reshape of a layout that strides can't express copies. What is made of these is in rearrange.cpp.
#include <optional>

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

/// Strides with which `to` shows the same elements in the same order, if there are any. Walks both
/// shapes from the inside: a run of input dims that lie evenly in memory is split among output dims.
std::optional<Shape> reshape_strides(const Shape& from, const Shape& strides, const Shape& to) {
  if (from.numel() == 0 || is_contiguous(from, strides)) return contiguous_strides(to);
  Shape result = Shape::filled(to.size(), 1);
  int j = to.size() - 1;
  int64_t run = 1, inner = 1;  // elements in the run, and the stride of its innermost dim
  for (int i = from.size() - 1; i >= 0; --i) {
    if (from[i] != 1) {
      if (run == 1) inner = strides[i];
      run *= from[i];
    }
    int outer = i - 1;
    while (outer >= 0 && from[outer] == 1) --outer;
    const bool run_ends = outer < 0 || (from[i] != 1 && strides[outer] != from[i] * strides[i]);
    if (!run_ends) continue;
    for (int64_t stride = inner; j >= 0 && (run > 1 || to[j] == 1); --j) {
      if (run % to[j] != 0) return std::nullopt;
      run /= to[j];
      result[j] = stride;
      stride *= to[j];
    }
    if (run != 1) return std::nullopt;
  }
  return result;
}

void infer_reshape(Infer& op) {
  const Tensor& x = op.input(0);
  const Shape& shape = op.attributes.integers("shape");
  op.check<ShapeError>(shape.numel() == x.numel(), x.shape(), " has ", x.numel(), " elements, ", shape, " doesn't");
  const std::optional<Shape> strides = reshape_strides(x.shape(), x.strides(), shape);
  op.check<ShapeError>(strides.has_value(), x.shape(), " with strides ", x.strides(), " can't be seen as ", shape,
                       " without a copy; td::reshape() makes one");
  op.view(shape, *strides);
}

void infer_permute(Infer& op) {
  const Tensor& x = op.input(0);
  const Shape& dims = op.dims("dims");
  op.check<DimensionError>(dims.size() == x.rank(), "needs one dim for each of the ", x.rank(), " of ", x.shape(),
                           ", got ", dims);
  Shape shape = dims, strides = dims;
  for (int i = 0; i < dims.size(); ++i) {
    shape[i] = x.shape()[dims[i]];
    strides[i] = x.strides()[dims[i]];
  }
  op.view(shape, strides);
}

void infer_slice(Infer& op) {
  const Tensor& x = op.input(0);
  const int d = op.dim("dim");
  Shape shape = x.shape(), strides = x.strides();
  const int64_t end = op.integer("end", 0, shape[d]), begin = op.integer("begin", 0, end), step = op.integer("step", 1);
  shape[d] = end > begin ? (end - begin - 1) / step + 1 : 0;
  if (shape[d] > 1) strides[d] *= step;  // else it may be beyond every extent, and leads nowhere
  op.view(shape, strides, shape[d] ? begin * x.strides()[d] : 0);
}

void infer_expand(Infer& op) {
  const Tensor& x = op.input(0);
  const Shape& shape = op.attributes.integers("shape");
  op.check<ShapeError>(shape.size() >= x.rank(), "can't expand ", x.shape(), " to ", shape, ": fewer dims");
  Shape strides = Shape::filled(shape.size(), 0);
  const int shift = shape.size() - x.rank();
  for (int i = 0; i < x.rank(); ++i) {
    op.check<ShapeError>(x.shape()[i] == shape[i + shift] || x.shape()[i] == 1, "can't expand ", x.shape(), " to ",
                         shape, " (", x.shape()[i], " and ", shape[i + shift], " at dim ", i + shift,
                         "); only extents of 1 repeat");
    strides[i + shift] = x.shape()[i] == 1 && shape[i + shift] != 1 ? 0 : x.strides()[i];
  }
  op.view(shape, strides);
}

void infer_concat(Infer& op) {
  op.check<ValueError>(!op.inputs.empty(), "needs at least one tensor");
  const Tensor& first = op.input(0);
  op.check<ShapeError>(first.rank() > 0, "0-d tensors can't be joined; unsqueeze them");
  const int dim = op.dim("dim");
  Shape shape = first.shape();
  shape[dim] = 0;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const Tensor& x = op.inputs[i];
    op.check<DTypeError>(x.dtype() == first.dtype(), "tensor ", i, " is ", x.dtype(), ", tensor 0 is ", first.dtype());
    bool fits = x.rank() == first.rank();
    for (int d = 0; fits && d < x.rank(); ++d) fits = d == dim || x.shape()[d] == first.shape()[d];
    op.check<ShapeError>(fits, "tensor ", i, " ", x.shape(), " doesn't fit tensor 0 ", first.shape(),
                         " in every dim but ", dim);
    shape[dim] = checked_add(shape[dim], x.shape()[dim]);
  }
  op.output(shape, first.dtype());
}

void infer_slice_grad(Infer& op) {
  Shape shape = op.input(0).shape();
  const int dim = op.dim("dim");
  const int64_t size = op.integer("size", 0), begin = op.integer("begin", 0, size), step = op.integer("step", 1),
                count = shape[dim];
  op.check<ShapeError>(count == 0 || (begin < size && count - 1 <= (size - begin - 1) / step), count, " elements from ",
                       begin, " in steps of ", step, " are not within ", size);
  shape[dim] = size;
  op.output(shape, op.input(0).dtype());
}

/// Where a diagonal of a shape begins, and its own shape.
struct Diagonal {
  int dim1, dim2;
  int64_t first1 = 0, first2 = 0;
  Shape shape;

  Diagonal(const Infer& op, const Shape& of) : dim1(op.dim("dim1", of.size())), dim2(op.dim("dim2", of.size())) {
    op.check<DimensionError>(of.size() >= 2 && dim1 != dim2, "needs two dims of ", of, ", got ", dim1, " and ", dim2);
    // An offset beyond the edges is one to them.
    const int64_t offset = std::clamp(op.attributes.integer("offset"), -of[dim1], of[dim2]);
    (offset < 0 ? first1 : first2) = offset < 0 ? -offset : offset;
    for (int d = 0; d < of.size(); ++d)
      if (d != dim1 && d != dim2) shape.push_back(of[d]);
    shape.push_back(std::min(of[dim1] - first1, of[dim2] - first2));
  }
};

/// Over dims of strides s1 and s2, their sum is its stride.
void infer_diagonal(Infer& op) {
  const Tensor& x = op.input(0);
  const Diagonal diagonal(op, x.shape());
  const auto [dim1, dim2, first1, first2, shape] = diagonal;
  Shape strides;
  for (int d = 0; d < x.rank(); ++d)
    if (d != dim1 && d != dim2) strides.push_back(x.strides()[d]);
  strides.push_back(x.strides()[dim1] + x.strides()[dim2]);
  op.view(shape, strides, shape.back() ? first1 * x.strides()[dim1] + first2 * x.strides()[dim2] : 0);
}

/// Checks that a window into dense memory lies within it.
void check_window(Infer& op, const Shape& shape, const Shape& strides, int64_t offset) {
  const Tensor& x = op.input(0);
  op.check<ShapeError>(is_dense(x.shape(), x.strides()), "needs a tensor whose elements fill its memory, got strides ",
                       x.strides(), " of ", x.shape(), "; call contiguous() first");
  op.check<ShapeError>(shape.size() == strides.size(), "shape ", shape, " and strides ", strides,
                       " must have as many dims as one another");
  int64_t last = offset, reach = 0;
  bool empty = false, beyond = offset < 0;
  for (int i = 0; i < shape.size(); ++i) {
    op.check<ShapeError>(shape[i] >= 0, "negative extent in shape ", shape);
    op.check<ShapeError>(strides[i] >= 0, "negative stride in ", strides);
    empty = empty || shape[i] == 0;
    beyond = beyond || __builtin_mul_overflow(std::max<int64_t>(shape[i] - 1, 0), strides[i], &reach) ||
             __builtin_add_overflow(last, reach, &last);
  }
  op.check<ShapeError>(empty || (!beyond && last < x.numel()), "shape ", shape, " with strides ", strides,
                       " and offset ", offset, " reaches beyond the ", x.numel(), " elements of ", x.shape());
}

void infer_as_strided(Infer& op) {
  const Shape &shape = op.attributes.integers("shape"), &strides = op.attributes.integers("strides");
  const int64_t offset = op.attributes.integer("offset");
  check_window(op, shape, strides, offset);
  op.view(shape, strides, shape.numel() ? offset : 0);
}

void infer_as_strided_scatter(Infer& op) {
  const Tensor &x = op.input(0), &source = op.input(1);
  const Shape &shape = op.attributes.integers("shape"), &strides = op.attributes.integers("strides");
  check_window(op, shape, strides, op.attributes.integer("offset"));
  op.check<ShapeError>(source.shape() == shape, "source ", source.shape(), " for a window ", shape);
  op.check<DTypeError>(source.dtype() == x.dtype(), "source is ", source.dtype(), ", the tensor ", x.dtype());
  op.check<ValueError>(!may_overlap(shape, strides), "elements of shape ", shape, " with strides ", strides,
                       " lie on one another");
  op.output(x);
}

/// Of every device: made of its copies.
void as_strided_scatter_kernel(KernelContext& op) {
  static const Op& copy = find_op("copy");
  const Tensor &x = op.inputs[0], &source = op.inputs[1], &result = op.outputs[0];
  if (x.impl()->data != result.impl()->data) run_kernel(copy, {&x, 1}, {}, {&result, 1}, op.where);
  if (source.numel() == 0) return;
  const Tensor window = Tensor::adopt(TensorImpl::create());
  TensorImpl& impl = *window.impl();
  impl.dtype = x.dtype();
  impl.device = x.device();
  impl.set_layout(op.attributes.integers("shape"), op.attributes.integers("strides"));
  impl.data = static_cast<char*>(result.impl()->data) + op.attributes.integer("offset") * size_of(x.dtype());
  run_kernel(copy, {&source, 1}, {}, {&window, 1}, op.where);
}

/// Of a window into x, which is contiguous: each element's gradient goes to where it was read.
Tensors as_strided_grad(const OpContext& op) {
  const Shape &shape = op.integers("shape"), &strides = op.integers("strides");
  const int64_t offset = op.integer("offset");
  const Tensor gradient = op.grad_output();
  const TensorOptions options{.dtype = gradient.dtype(), .device = op.device()};
  if (!may_overlap(shape, strides))
    return {as_strided_scatter(zeros(op.input_shape(0), options), gradient, shape, strides, offset)};
  Tensor positions = full({}, static_cast<double>(offset), {.dtype = int64, .device = op.device()});
  for (int i = 0; i < shape.size(); ++i)
    positions = unsqueeze(positions, -1) + arange(0, shape[i], 1, {.dtype = int64, .device = op.device()}) * strides[i];
  const Tensor sums = index_add(zeros({op.input_shape(0).numel()}, options), 0, flatten(positions), flatten(gradient));
  return {reshape(sums, op.input_shape(0))};
}

void infer_diagonal_grad(Infer& op) {
  const Shape &shape = op.attributes.integers("shape"), &g = op.input(0).shape();
  check_extents(shape);
  const Shape diagonal = Diagonal(op, shape).shape;
  op.check<ShapeError>(g == diagonal, "the diagonal of ", shape, " is ", diagonal, ", not ", g);
  op.output(shape, op.input(0).dtype());
}

void infer_pad(Infer& op) {
  Shape shape = op.input(0).shape();
  const Shape &before = op.integers("before", shape.size(), 0), &after = op.integers("after", shape.size(), 0);
  for (int d = 0; d < shape.size(); ++d) shape[d] = checked_add(shape[d], checked_add(before[d], after[d]));
  op.output(shape, op.input(0).dtype());
}

void infer_same(Infer& op) { op.output(op.input(0).shape(), op.input(0).dtype()); }

void infer_flip(Infer& op) {
  op.dims("dims");
  infer_same(op);
}

/// Rows and columns of a triangle's matrices: a diagonal lies within them, or leaves all or nothing as one at the edge does.
void infer_triangle(Infer& op) {
  const Shape& shape = op.input(0).shape();
  op.check<ShapeError>(shape.size() >= 2, "needs [.., rows, columns], got ", shape);
  op.integer("diagonal", -shape[shape.size() - 2], shape.back());
  infer_same(op);
}

template <bool lower> Tensors decompose_triangle(std::span<const Tensor> inputs, const Attributes& attributes) {
  const Tensor& x = inputs[0];
  const TensorOptions options{.dtype = int64, .device = x.device()};
  const Tensor rows = unsqueeze(arange(0, x.shape()[x.rank() - 2], 1, options), 1),
               columns = arange(0, x.shape().back(), 1, options);
  const Tensor last = rows + attributes.integer("diagonal");
  return {where(lower ? columns <= last : columns >= last, x, zeros({}, {.dtype = x.dtype(), .device = x.device()}))};
}

int checked_dim(const char* name, int64_t dim, int rank, Where where) {
  if (dim < -rank || dim >= rank)
    throw DimensionError(
        detail::str(name, ": dim ", dim, " is out of range for rank ", rank, " (", -rank, " to ", rank - 1, ")"),
        user_line(where));
  return static_cast<int>(dim < 0 ? dim + rank : dim);
}

}  // namespace

void define_shape(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "reshape",
             .kind = OpKind::view,
             .attributes = {{"shape", ints}},
             .infer = infer_reshape,
             .grad = [](const OpContext& op) { return Tensors{reshape(op.grad_output(), op.input_shape(0))}; },
             .onnx = "Reshape",
             .view = View::reshape,
             .keeps_values = true});
  table.add({.name = "permute",
             .kind = OpKind::view,
             .attributes = {{"dims", ints}},
             .infer = infer_permute,
             .grad =
                 [](const OpContext& op) {
                   const Shape& dims = op.integers("dims");
                   Dims inverse = dims;
                   for (int i = 0; i < dims.size(); ++i) inverse[static_cast<int>(dims[i])] = i;
                   return Tensors{permute(op.grad_output(), inverse)};
                 },
             .onnx = "Transpose",
             .view = View::permute});
  table.add({.name = "slice",
             .kind = OpKind::view,
             .attributes = {{"dim", integer}, {"begin", integer}, {"end", integer}, {"step", integer, 1}},
             .infer = infer_slice,
             .grad =
                 [](const OpContext& op) {
                   const int64_t dim = op.integer("dim");
                   return Tensors{slice_grad(op.grad_output(), dim, op.integer("begin"), op.integer("step"),
                                             op.input_shape(0)[static_cast<int>(dim)])};
                 },
             .onnx = "Slice",
             .rows = [](std::span<const Tensor>, const Attributes& attributes) -> uint32_t {
               return attributes.integer("dim") > 0 ? in(0) : 0;
             }});
  table.add({.name = "expand",
             .kind = OpKind::view,
             .attributes = {{"shape", ints}},
             .infer = infer_expand,
             .grad = [](const OpContext& op) { return Tensors{sum_to(op.grad_output(), op.input_shape(0))}; },
             .onnx = "Expand",
             .view = View::expand,
             .keeps_values = true});
  table.add({.name = "concat",
             .kind = OpKind::opaque,
             .inputs = kVariadic,
             .attributes = {{"dim", integer}},
             .infer = infer_concat,
             .grad =
                 [](const OpContext& op) {
                   Tensors result;
                   const int64_t dim = op.integer("dim");
                   int64_t begin = 0;
                   for (int i = 0; i < op.input_count(); ++i) {
                     const int64_t extent = op.input_shape(i)[static_cast<int>(dim)];
                     result.push_back(op.needs_grad(i) ? slice(op.grad_output(), dim, begin, begin + extent)
                                                       : Tensor());
                     begin += extent;
                   }
                   return result;
                 },
             .onnx = "Concat"});
  table.add({.name = "slice_grad",
             .kind = OpKind::opaque,
             .attributes = {{"dim", integer}, {"begin", integer}, {"step", integer}, {"size", integer}},
             .infer = infer_slice_grad,
             .grad = [](const OpContext& op) {
               const int64_t begin = op.integer("begin"), step = op.integer("step"), dim = op.integer("dim");
               const int64_t count = op.input_shape(0)[static_cast<int>(dim)];
               return Tensors{
                   slice(op.grad_output(), dim, begin, count ? begin + (count - 1) * step + 1 : begin, step)};
             }});
  table.add({.name = "as_strided",
             .kind = OpKind::view,
             .attributes = {{"shape", ints}, {"strides", ints}, {"offset", integer, 0}},
             .infer = infer_as_strided,
             .grad = as_strided_grad});
  Op& scatter = table.add({.name = "as_strided_scatter",
                           .kind = OpKind::opaque,
                           .inputs = 2,
                           .attributes = {{"shape", ints}, {"strides", ints}, {"offset", integer, 0}},
                           .infer = infer_as_strided_scatter,
                           .grad =
                               [](const OpContext& op) {
                                 const Shape &shape = op.integers("shape"), &strides = op.integers("strides");
                                 const int64_t offset = op.integer("offset");
                                 const Tensor gradient = contiguous(op.grad_output());
                                 Tensors result(2);
                                 if (op.needs_grad(0))
                                   result[0] = as_strided_scatter(
                                       gradient, zeros(shape, {.dtype = gradient.dtype(), .device = op.device()}),
                                       shape, strides, offset);
                                 if (op.needs_grad(1)) result[1] = as_strided(gradient, shape, strides, offset);
                                 return result;
                               },
                           .updates_operand = true});
  scatter.kernels.fill(as_strided_scatter_kernel);
  table.add({.name = "diagonal",
             .kind = OpKind::view,
             .attributes = {{"offset", integer, 0}, {"dim1", integer, 0}, {"dim2", integer, 1}},
             .infer = infer_diagonal,
             .grad = [](const OpContext& op) {
               return Tensors{diagonal_grad(op.grad_output(), op.input_shape(0), op.integer("offset"),
                                            op.integer("dim1"), op.integer("dim2"))};
             }});
  table.add({.name = "diagonal_grad",
             .kind = OpKind::opaque,
             .attributes = {{"shape", ints}, {"offset", integer, 0}, {"dim1", integer, 0}, {"dim2", integer, 1}},
             .infer = infer_diagonal_grad,
             .grad = [](const OpContext& op) {
               return Tensors{diagonal(op.grad_output(), op.integer("offset"), op.integer("dim1"), op.integer("dim2"))};
             }});
  table.add({.name = "pad",
             .kind = OpKind::opaque,
             .attributes = {{"before", ints}, {"after", ints}, {"value", number, 0.0}},
             .infer = infer_pad,
             .grad =
                 [](const OpContext& op) {
                   const Shape &before = op.integers("before"), &shape = op.input_shape(0);
                   Tensor g = op.grad_output();
                   for (int d = 0; d < shape.size(); ++d)
                     if (g.shape()[d] != shape[d]) g = slice(g, d, before[d], before[d] + shape[d]);
                   return Tensors{g};
                 },
             .onnx = "Pad"});
  table.add({.name = "flip",
             .kind = OpKind::opaque,
             .attributes = {{"dims", ints}},
             .infer = infer_flip,
             .grad = [](const OpContext& op) { return Tensors{flip(op.grad_output(), Dims(op.integers("dims")))}; }});
  table.add({.name = "tril",
             .kind = OpKind::opaque,
             .attributes = {{"diagonal", integer, 0}},
             .infer = infer_triangle,
             .grad = [](const OpContext& op) { return Tensors{tril(op.grad_output(), op.integer("diagonal"))}; },
             .contiguous_inputs = true,
             .decompose = decompose_triangle<true>,
             .onnx = "Trilu"});
  table.add({.name = "triu",
             .kind = OpKind::opaque,
             .attributes = {{"diagonal", integer, 0}},
             .infer = infer_triangle,
             .grad = [](const OpContext& op) { return Tensors{triu(op.grad_output(), op.integer("diagonal"))}; },
             .contiguous_inputs = true,
             .decompose = decompose_triangle<false>,
             .onnx = "Trilu"});
}

Tensor reshape(const Arg& x, const Shape& wanted) {
  const Tensor& tensor = x.tensor();
  Shape shape = wanted;
  int64_t known = 1;
  int free_dim = -1;
  for (int i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1 && free_dim < 0) free_dim = i;
    else if (shape[i] < 0)
      throw ShapeError(detail::str("reshape: ", wanted, ": only one extent may be -1, none below"),
                       user_line(x.where()));
    else known = checked_mul(known, shape[i], "reshape", x.where());
  }
  const int64_t numel = tensor.numel();
  if (free_dim >= 0 && known > 0) shape[free_dim] = numel / known;
  if (free_dim >= 0 ? known == 0 || numel % known != 0 : known != numel)
    throw ShapeError(detail::str("reshape: ", tensor.shape(), " has ", numel, " elements, ", wanted, " doesn't"),
                     user_line(x.where()));
  if (numel == 0) check_extents(shape, "reshape", x.where());
  if (shape == tensor.shape()) return tensor;
  static const Op& op = find_op("reshape");
  const Tensor source = reshape_strides(tensor.shape(), tensor.strides(), shape) ? tensor : contiguous(x);
  return dispatch(op, {source}, {{"shape", shape}}, x.where());
}

Tensor flatten(const Arg& x, int64_t start_dim, int64_t end_dim) {
  const Tensor& tensor = x.tensor();
  if (tensor.rank() == 0) return reshape(x, {1});
  const int start = checked_dim("flatten", start_dim, tensor.rank(), x.where()),
            end = checked_dim("flatten", end_dim, tensor.rank(), x.where());
  if (start > end)
    throw DimensionError(detail::str("flatten: start dim ", start, " is after end dim ", end), user_line(x.where()));
  Shape shape;
  for (int i = 0; i < tensor.rank(); ++i) {
    if (i <= start || i > end) shape.push_back(tensor.shape()[i]);
    else shape[start] *= tensor.shape()[i];
  }
  return reshape(x, shape);
}

Tensor permute(const Arg& x, const Dims& dims) {
  static const Op& op = find_op("permute");
  Shape positive = dims;
  for (int64_t& d : positive)
    if (d < 0) d += x.tensor().rank();
  return dispatch(op, {x.tensor()}, {{"dims", positive}}, x.where());
}

Tensor transpose(const Arg& x, int64_t a, int64_t b) {
  const int rank = x.tensor().rank();
  Dims dims;
  for (int i = 0; i < rank; ++i) dims.push_back(i);
  std::swap(dims[checked_dim("transpose", a, rank, x.where())], dims[checked_dim("transpose", b, rank, x.where())]);
  return permute(x, dims);
}

Tensor slice(const Arg& x, int64_t dim, int64_t begin, int64_t end, int64_t step) {
  static const Op& op = find_op("slice");
  const Tensor& tensor = x.tensor();
  const int d = checked_dim("slice", dim, tensor.rank(), x.where());
  if (step < 1)
    throw ValueError(detail::str("slice: step ", step, " must be at least 1; use flip to reverse"),
                     user_line(x.where()));
  const int64_t extent = tensor.shape()[d];
  const auto bound = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + extent : i, 0, extent); };
  begin = bound(begin);
  return dispatch(op, {tensor}, {{"dim", d}, {"begin", begin}, {"end", std::max(begin, bound(end))}, {"step", step}},
                  x.where());
}

Tensor as_strided(const Arg& x, const Shape& shape, const Shape& strides, int64_t offset) {
  static const Op& op = find_op("as_strided");
  if (!x.tensor().is_contiguous())
    throw ShapeError(detail::str("as_strided: strides ", x.tensor().strides(), " of ", x.tensor().shape(),
                                 " aren't row-major; call contiguous() first"),
                     user_line(x.where()));
  return dispatch(op, {x.tensor()}, {{"shape", shape}, {"strides", strides}, {"offset", offset}}, x.where());
}

Tensor as_strided_scatter(const Arg& x, const Tensor& source, const Shape& shape, const Shape& strides,
                          int64_t offset) {
  static const Op& op = find_op("as_strided_scatter");
  return dispatch(op, {contiguous(x), source}, {{"shape", shape}, {"strides", strides}, {"offset", offset}}, x.where());
}

namespace {
/// x with the elements that a view picks replaced by those of `source`.
template <class Picks> Tensor scattered(const Arg& x, const Tensor& source, Picks&& picks) {
  const Tensor base = contiguous(x);
  TensorImpl* impl = TensorImpl::create();  // where the elements lie: nothing is computed
  Tensor header = Tensor::adopt(impl);
  impl->dtype = base.dtype();
  impl->device = base.device();
  impl->set_contiguous_layout(base.shape());
  Tensor window;
  {
    const NoGrad no_grad;
    const InterceptorScope eager(nullptr);
    window = picks(Arg(header, x.where()));
  }
  return as_strided_scatter({base, x.where()}, source, window.shape(), window.strides(), window.impl()->offset);
}
}  // namespace

Tensor slice_scatter(const Arg& x, const Tensor& source, int64_t dim, int64_t begin, int64_t end, int64_t step) {
  const CallScope scope("slice_scatter", x.where());
  return scattered(x, source, [&](const Arg& header) { return slice(header, dim, begin, end, step); });
}
Tensor select_scatter(const Arg& x, const Tensor& source, int64_t dim, int64_t index) {
  const CallScope scope("select_scatter", x.where());
  return scattered(x, source, [&](const Arg& header) { return select(header, dim, index); });
}
Tensor diagonal_scatter(const Arg& x, const Tensor& source, int64_t offset, int64_t dim1, int64_t dim2) {
  const CallScope scope("diagonal_scatter", x.where());
  return scattered(x, source, [&](const Arg& header) { return diagonal(header, offset, dim1, dim2); });
}

Tensor select(const Arg& x, int64_t dim, int64_t index) {
  const Tensor& tensor = x.tensor();
  const int d = checked_dim("select", dim, tensor.rank(), x.where());
  const int64_t extent = tensor.shape()[d];
  if (index < -extent || index >= extent)
    throw DimensionError(detail::str("select: index ", index, " is out of range for dim ", d, " of ", tensor.shape()),
                         user_line(x.where()));
  if (index < 0) index += extent;
  return squeeze({slice(x, d, index, index + 1), x.where()}, d);
}

Tensor expand(const Arg& x, const Shape& wanted) {
  static const Op& op = find_op("expand");
  const Tensor& tensor = x.tensor();
  Shape shape = wanted;
  for (int i = 0; i < shape.size(); ++i)
    if (const int from = i - (shape.size() - tensor.rank()); shape[i] == -1 && from >= 0)
      shape[i] = tensor.shape()[from];
  if (shape == tensor.shape()) return tensor;
  return dispatch(op, {tensor}, {{"shape", shape}}, x.where());
}

Tensor squeeze(const Arg& x, const Dims& dims) {
  const Shape& from = x.tensor().shape();
  Shape chosen, shape;
  for (int64_t dim : dims) chosen.push_back(checked_dim("squeeze", dim, from.size(), x.where()));
  for (int d = 0; d < from.size(); ++d)
    if (from[d] != 1 || !(dims.empty() || chosen.contains(d))) shape.push_back(from[d]);
  return shape == from ? x.tensor() : reshape(x, shape);
}

Tensor view(const Arg& x, const Shape& shape) {
  const Tensor result = reshape(x, shape);
  const Tensor& from = x.tensor();
  if (!reshape_strides(from.shape(), from.strides(), result.shape()))
    throw ShapeError(detail::str("view: ", from.shape(), " with strides ", from.strides(), " can't be seen as ",
                                 result.shape(), " without a copy; reshape makes one where it must"),
                     user_line(x.where()));
  return result;
}

Tensor unsqueeze(const Arg& x, int64_t dim) {
  Shape shape = x.tensor().shape();
  if (shape.size() == kMaxRank)
    throw ShapeError(
        detail::str("unsqueeze: ", shape, " has ", kMaxRank, " dims already, the most that a tensor may have"),
        user_line(x.where()));
  shape.insert(checked_dim("unsqueeze", dim, shape.size() + 1, x.where()), 1);
  return reshape(x, shape);
}

Tensor concat(const Tensors& tensors, int64_t dim, Where where) {
  static const Op& op = find_op("concat");
  if (tensors.empty()) throw ValueError("concat: needs at least one tensor", user_line(where));
  for (const Tensor& tensor : tensors)
    if (!tensor.defined()) throw UndefinedError("concat: a tensor is undefined", user_line(where));
  const int d = checked_dim("concat", dim, tensors[0].rank(), where);
  DType type = tensors[0].dtype();
  bool mixed = false;
  for (const Tensor& tensor : tensors) mixed |= tensor.dtype() != type;
  Tensors cast;
  if (mixed) {
    for (const Tensor& tensor : tensors) type = promote(type, tensor.dtype());
    for (const Tensor& tensor : tensors) cast.push_back(to({tensor, where}, type));
  }
  Tensor output;
  dispatch(op, mixed ? cast : tensors, {{"dim", d}}, {&output, 1}, where);
  return output;
}

Tensor slice_grad(const Arg& x, int64_t dim, int64_t begin, int64_t step, int64_t size) {
  static const Op& op = find_op("slice_grad");
  return dispatch(op, {x.tensor()}, {{"dim", dim}, {"begin", begin}, {"step", step}, {"size", size}}, x.where());
}

Tensor sum_to(const Arg& x, const Shape& shape) {
  const Tensor& tensor = x.tensor();
  if (tensor.shape() == shape) return tensor;
  const int shift = tensor.rank() - shape.size();
  Dims dims;
  for (int i = 0; i < tensor.rank(); ++i)
    if (i < shift || (shape[i - shift] == 1 && tensor.shape()[i] != 1)) dims.push_back(i);
  const Tensor result = dims.empty() ? tensor : sum(x, dims, {.keepdim = true});
  return reshape({result, x.where()}, shape);
}

}  // namespace tandem

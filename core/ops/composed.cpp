// Checks that functions made of ops share.
#include "core/ops/composed.h"

#include "core/dispatch.h"

namespace tandem {

int dim_of(const char* name, const Arg& x, int64_t dim) {
  const int bound = std::max(x.tensor().rank(), 1);
  if (dim < -bound || dim >= bound)
    throw DimensionError(detail::str(name, ": dim ", dim, " is out of range for ", x.tensor().shape(), " (", -bound,
                                     " to ", bound - 1, ")"),
                         user_line(x.where()));
  return static_cast<int>(dim < 0 ? dim + bound : dim);
}

Shape broadcast_shape(const char* name, const Tensors& tensors, Where where) {
  Shape result;
  for (const Tensor& tensor : tensors) {
    const Shape& shape = tensor.shape(where);
    while (result.size() < shape.size()) result.insert(0, 1);
    for (int i = 0; i < shape.size(); ++i) {
      int64_t& extent = result[i + result.size() - shape.size()];
      if (extent == 1) extent = shape[i];
      else if (shape[i] != 1 && shape[i] != extent) {
        std::string shapes;
        for (const Tensor& each : tensors) shapes += (shapes.empty() ? "" : " and ") + to_string(each.shape(where));
        throw ShapeError(detail::str(name, ": shapes don't broadcast: ", shapes, " (", extent, " and ", shape[i],
                                     "); extents must be equal or 1"),
                         user_line(where));
      }
    }
  }
  return result;
}

void check_floating(const char* name, const Arg& x) {
  if (!is_floating(x.tensor().dtype()))
    throw DTypeError(
        detail::str(name, ": needs a floating dtype, got ", x.tensor().dtype(), "; cast it with to(float32)"),
        user_line(x.where()));
}

void check_not_traced(const char* name, const char* alternative, Where where) {
  if (interceptor())
    throw TraceError(
        detail::str(name, ": the size of the result depends on values, which a trace doesn't know; ", alternative),
        user_line(where));
}

Tensor positions_of(const char* name, const Tensor& index, Where where, const char* what) {
  if (index.dtype(where) == int64) return index;
  if (!is_integral(index.dtype()))
    throw DTypeError(detail::str(name, ": ", what, " must be int64, got ", index.dtype(), "; cast ",
                                 std::string_view(what).ends_with('s') ? "them" : "it", " with to(int64)"),
                     user_line(where));
  return to({index, where}, int64);
}

Tensor reduced_loss(const char* name, const Tensor& loss, Reduction reduction, DType type, Where where) {
  switch (reduction) {
    case Reduction::mean: return to(mean(loss), type);
    case Reduction::sum: return to(sum(loss), type);
    case Reduction::none: return to(loss, type);
    case Reduction::batchmean: break;
  }
  throw ValueError(detail::str(name, ": Reduction::batchmean is for kl_div; use mean, sum or none"), user_line(where));
}

}  // namespace tandem

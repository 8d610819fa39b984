// What functions made of ops share: checks that are raised in the name of the function that the user called.
#pragma once

#include "ops.h"

namespace tandem {

/// E of these parts at x's line, unless the condition holds.
template <class E, class... Parts> void check(bool condition, const Arg& x, const Parts&... parts) {
  if (!condition) throw E(detail::str(parts...), user_line(x.where()));
}
inline DType wide_type(DType type) { return type == float64 ? float64 : float32; }

/// `dim` in [0, rank), where a tensor of rank 0 counts as one of rank 1. DimensionError in the name of `name`.
int dim_of(const char* name, const Arg& x, int64_t dim);
/// What these broadcast to; ShapeError in the name of `name` where they don't.
Shape broadcast_shape(const char* name, const Tensors& tensors, Where where);
/// A floating x, else DTypeError.
void check_floating(const char* name, const Arg& x);
/// In a trace, TraceError: the size of the result depends on values. `alternative` says what to write.
void check_not_traced(const char* name, const char* alternative, Where where);
/// int64 positions of integers; DTypeError of anything else. `what` they are: "labels".
Tensor positions_of(const char* name, const Tensor& index, Where where, const char* what = "index");
/// x with src multiplied in the places that gather(x, dim, index) reads.
Tensor scatter_prod(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src);
/// x, checked to lie in [low, high] in every mode: ValueError with the message in the name of `name`, on CUDA at the next
/// synchronisation.
Tensor bounded(const char* name, const Tensor& x, double low, double high, const char* message, Where where);
/// f of x with a batch of one in front where it has `rank` - 1 dims, for ops that need `rank` of them.
template <class F> Tensor batched(const Arg& x, int rank, F&& f) {
  if (x.tensor().rank() != rank - 1) return f(x);
  return squeeze({f({unsqueeze(x, 0), x.where()}), x.where()}, 0);
}

/// avg_pool2d with ceil_mode or a divisor, which the op itself has not (pool.cpp).
Tensor padded_average(const Arg& x, Pair kernel, const AvgPool2dOptions& options);
/// What becomes of the losses of single elements; `type` is that of the result.
Tensor reduced_loss(const char* name, const Tensor& loss, Reduction reduction, DType type, Where where);

}  // namespace tandem

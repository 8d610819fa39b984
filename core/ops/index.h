// Reading and writing at positions that are data.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Index: int64 tensors of positions, checked on the CPU. Positions that occur twice are served in the index's order, so
// results don't depend on the number of threads.
/// Rows of weight [count, width] at ids (any shape): [ids.., width].
Tensor embedding(const Arg& ids, const Tensor& weight);
/// Elements of x at index along dim; index int64, of x's rank (torch.gather).
Tensor gather(const Arg& x, int64_t dim, const Tensor& index);
/// x with src (of index's shape, or a number) in the places that gather(x, dim, index) reads; of equal places the last wins.
Tensor scatter(const Arg& x, int64_t dim, const Tensor& index, const Arg& src);
/// x with src added in those places.
Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src);
/// Slices of dim at index [count].
Tensor index_select(const Arg& x, int64_t dim, const Tensor& index);
/// x with slice i of src added to slice index[i] of dim.
Tensor index_add(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src);
/// Slices of dim at an index of any shape, which takes the place of dim: rows of a matrix, by default (numpy.take).
Tensor take(const Arg& x, const Tensor& index, int64_t dim = 0);
/// [labels.., classes] int64, 1 at each label.
Tensor one_hot(const Arg& labels, int64_t classes);
/// Zeros of `shape` with x added at index along dim: the gradient of gather, deterministic.
Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Shape& shape);

}  // namespace tandem

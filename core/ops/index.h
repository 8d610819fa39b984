// Reading and writing at positions that are data.
#pragma once

#include <optional>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Index: int64 tensors of positions (other integers are cast), checked on the CPU. Positions that occur twice are served in the index's order, so
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
/// Negative positions count from the end.
Tensor take(const Arg& x, const Tensor& index, int64_t dim = 0);
/// [labels.., classes] int64, 1 at each label.
Tensor one_hot(const Arg& labels, int64_t classes);
Tensor one_hot(const Arg& labels);  ///< as many classes as the greatest label needs: reads it, so not in a trace

// x[i, :, mask]: positions for each dim of x in turn. An int64 tensor picks positions, negative ones counting from the end,
// a bool mask of as many dims as it covers those where it is true, and an undefined Tensor ({}) all. Positions broadcast
// together, and their shape takes the place of the dims if these are neighbours, else comes first. Masks are read: not in a
// trace (TraceError), where take positions from nonzero(mask, {.size = n}).
/// A copy of these elements: index(x, {i, j}), index(x, {{}, j}), index(x, {mask}).
Tensor index(const Arg& x, const Tensors& indices);
struct IndexPutOptions {
  bool accumulate = false;  ///< adds; else of equal places the last wins
};
/// x with `values`, which broadcast to what index(x, indices) gives, in those places. A number where a mask is true is
/// masked_fill, and can be traced.
Tensor index_put(const Arg& x, const Tensors& indices, const Arg& values, IndexPutOptions options = {});
/// x with slice i of src as slice index[i] of dim; and with a number there.
Tensor index_copy(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src);
Tensor index_fill(const Arg& x, int64_t dim, const Tensor& index, const Arg& value);
/// gather with index and x broadcast in the other dims.
Tensor take_along_dim(const Arg& x, const Tensor& index, int64_t dim);

enum class ScatterReduce : uint8_t { sum, mean, amax, amin, prod };
struct ScatterReduceOptions {
  bool include_self = true;  ///< x's own elements take part
};
/// x with, in each place that gather(x, dim, index) reads, what src has for it, reduced.
Tensor scatter_reduce(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src, ScatterReduce reduce,
                      ScatterReduceOptions options = {});

// Results whose size depends on values: eager only (TraceError in a trace), unless `size` fixes it.
struct NonzeroOptions {
  std::optional<int64_t> size = {};  ///< so many rows: further elements are left out, and missing rows have `fill`
  int64_t fill = 0;
};
/// Positions [count, rank] int64 of what is not zero, in row-major order.
Tensor nonzero(const Arg& x, NonzeroOptions options = {});
inline Tensor argwhere(const Arg& x, NonzeroOptions options = {}) { return nonzero(x, options); }
/// The elements of x [count] where the mask is true; the two broadcast. With `size`, missing ones are 0.
Tensor masked_select(const Arg& x, const Tensor& mask, std::optional<int64_t> size = {});
/// x with the elements of src in turn where the mask (broadcast to x) is true.
Tensor masked_scatter(const Arg& x, const Tensor& mask, const Tensor& src);
struct Unique {
  Tensor values, inverse, counts;
};
/// The distinct elements in ascending order, where each of x (of its shape) is among them, and how often they occur.
Unique unique(const Arg& x);
struct BincountOptions {
  Tensor weights = {};               ///< added up instead of counted
  int64_t minlength = 0;             ///< at least so many
  std::optional<int64_t> size = {};  ///< exactly so many, for a trace
};
/// How often each number occurs in a vector of integers that are not negative.
Tensor bincount(const Arg& x, const BincountOptions& options = {});

enum class BagMode : uint8_t { sum, mean, max };
struct EmbeddingBagOptions {
  BagMode mode = BagMode::mean;
  Tensor offsets = {};  ///< ids is a vector, and bag i begins at offsets[i]; not for max
};
/// Rows of weight at ids [bags, length], reduced over each bag: [bags, width].
Tensor embedding_bag(const Arg& ids, const Tensor& weight, const EmbeddingBagOptions& options = {});
/// Zeros of `shape` with x added at index along dim: the gradient of gather, deterministic.
Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Shape& shape);

}  // namespace tandem

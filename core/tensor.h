// Tensor: a cheap handle on shape, strides, dtype, device and shared storage.
#pragma once

#include <concepts>
#include <functional>
#include <iosfwd>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "device.h"
#include "dtype.h"
#include "error.h"
#include "memory.h"
#include "shape.h"

namespace tandem {

class Tensor;
class Arg;
struct ValuesAndIndices;
struct TensorImpl;
using Tensors = std::vector<Tensor>;

/// A node of the autograd tape, seen from core: something that can be kept alive and let go.
struct TapeNodeBase {
  std::atomic<int> references{1};
  virtual void destroy() = 0;

 protected:
  ~TapeNodeBase() = default;
};

/// What autograd hangs on some tensors (hooks, weak references), seen from core.
struct TensorExtra {
  virtual ~TensorExtra() = default;
};

/// Takes a hook away again. Copies name the same hook; letting go of them leaves it where it is.
class HookHandle {
 public:
  HookHandle() = default;
  explicit HookHandle(std::function<void()> remove) : remove_(std::move(remove)) {}
  void remove() {
    if (remove_) remove_();
  }

 private:
  std::function<void()> remove_;
};

struct TensorOptions {
  DType dtype = DType::float32;
  Device device = {};
  bool requires_grad = false;
};
struct ReduceOptions {
  bool keepdim = false;
};
struct VarianceOptions {
  double correction = 1;  ///< the sum of squared deviations is divided by count - correction
  bool keepdim = false;
};
struct NormOptions {
  double p = 2;  ///< any number; infinity: the greatest |x|, -infinity: the least, 0: how many aren't zero
  bool keepdim = false;
};
struct CloseOptions {
  double rtol = 1e-5, atol = 1e-8;
  bool equal_nan = false;
};
struct SortOptions {
  bool descending = false;
};
struct TopkOptions {
  bool largest = true;
};
/// Of clamp; either may be absent: {.min = 0}.
struct Bounds {
  std::optional<double> min = {}, max = {};
};
struct BackwardOptions {
  bool retain_graph = false;  ///< keep what the tape saved, for another backward
  bool create_graph = false;  ///< record the backward pass itself, so that it can be differentiated
};

/// x[mask] or x[positions], with the line of the call.
struct IndexTensor {
  const Tensor& tensor;
  Where where;
  IndexTensor(const Tensor& tensor, Where where = Where::current()) : tensor(tensor), where(where) {}
};

class Tensor {
 public:
  Tensor() = default;  ///< undefined: defined() is false
  Tensor(const Tensor& other) : impl_(other.impl_) { retain(); }
  Tensor(Tensor&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)) {}
  Tensor& operator=(const Tensor& other) & {
    Tensor copy(other);
    std::swap(impl_, copy.impl_);
    return *this;
  }
  Tensor& operator=(Tensor&& other) & noexcept {
    std::swap(impl_, other.impl_);
    return *this;
  }
  // Compilers show these lines.
  template <class T> void operator=(const T&) && = delete;  // x[0] = y changes no element: write x[0].assign(y)
  ~Tensor() { release(); }

  bool defined() const { return impl_ != nullptr; }
  explicit operator bool() const = delete;  // is it defined()? one element: x.item<bool>(); each: where(x, a, b)

  // What it is.
  const Shape& shape(Where where = Where::current()) const;
  const Shape& strides(Where where = Where::current()) const;  ///< in elements
  int64_t size(int64_t dim, Where where = Where::current()) const;
  int64_t numel(Where where = Where::current()) const;
  int rank(Where where = Where::current()) const;
  DType dtype(Where where = Where::current()) const;
  Device device(Where where = Where::current()) const;
  bool is_contiguous(Where where = Where::current()) const;
  /// True while tracing, for a value that only exists in the graph.
  bool is_symbolic() const;
  bool shares_storage(const Tensor& other) const;

  // Values. These need the numbers, so they raise TraceError for a symbolic tensor.
  /// The single element of a one-element tensor, converted to T.
  template <class T> T item(Where where = Where::current()) const;
  template <class T> std::vector<T> to_vector(Where where = Where::current()) const;
  /// Raw elements; T must match dtype, and the tensor be contiguous and on the CPU.
  template <class T> std::span<const T> data(Where where = Where::current()) const;
  template <class T> std::span<T> mutable_data(Where where = Where::current());

  // Gradients.
  bool requires_grad() const;
  /// Marks a leaf as one that gradients are wanted for. Only floating tensors can be.
  Tensor& requires_grad(bool wanted, Where where = Where::current());
  /// What backward() has accumulated; undefined before.
  Tensor grad() const;
  void set_grad(const Tensor& gradient, Where where = Where::current());  ///< of this shape and dtype, or undefined
  bool is_leaf() const;
  /// Fills grad() of the leaves that this one-element tensor was computed from.
  void backward(BackwardOptions options = {}, Where where = Where::current()) const;
  /// The same for any shape, starting from `gradient` (same shape).
  void backward(const Tensor& gradient, BackwardOptions options = {}, Where where = Where::current()) const;
  /// Calls `hook` with the gradient of this tensor, once for each backward() or grad() that reaches it, when all of it has
  /// arrived. What it returns (same shape) takes the gradient's place; an undefined Tensor leaves it. Hooks run in the order
  /// in which they were registered. AutogradError if the tensor requires no gradient. A compiled function holds the hooks
  /// that there were when it was traced.
  HookHandle register_hook(std::function<Tensor(const Tensor&)> hook, Where where = Where::current()) const;
  /// The same values, cut off from the tape. Shares storage.
  Tensor detach(Where where = Where::current()) const;

  /// The one mutation: overwrites the values (broadcast, cast to this dtype). Not differentiable. InPlaceError if elements share
  /// memory, as those of an expanded tensor do.
  void assign(const Tensor& value, Where where = Where::current());
  /// assign(*this + value) and so on, in this dtype. Where a gradient flows, that of value or of a target that an op has
  /// made, the handle is bound to the sum instead, so that `total += loss` adds up losses: other handles on the tensor stay
  /// as they are. InPlaceError for a target that is a leaf with a gradient, or that other tensors see (views).
  Tensor& operator+=(const Arg& value) &;
  Tensor& operator-=(const Arg& value) &;
  Tensor& operator*=(const Arg& value) &;
  Tensor& operator/=(const Arg& value) &;  ///< of a floating tensor; DTypeError else
  // Of a view that has no name, x[0] += y: always an assign.
  void operator+=(const Arg& value) &&;
  void operator-=(const Arg& value) &&;
  void operator*=(const Arg& value) &&;
  void operator/=(const Arg& value) &&;

  // Moves and casts; the tensor itself where nothing changes.
  Tensor to(Device device, Where where = Where::current()) const;
  Tensor to(DType dtype, Where where = Where::current()) const;
  Tensor cpu(Where where = Where::current()) const;
  Tensor clone(Where where = Where::current()) const;
  Tensor contiguous(Where where = Where::current()) const;

  // Views, sharing storage where strides allow (reshape copies otherwise).
  Tensor reshape(const Shape& shape, Where where = Where::current()) const;  ///< one extent may be -1
  Tensor view(const Shape& shape,
              Where where = Where::current()) const;  ///< reshape that never copies: ShapeError else
  Tensor flatten(int64_t start_dim = 0, int64_t end_dim = -1, Where where = Where::current()) const;
  Tensor transpose(int64_t a, int64_t b, Where where = Where::current()) const;
  Tensor permute(const Dims& dims, Where where = Where::current()) const;
  /// Elements begin, begin + step, … below end along `dim`. Negative bounds count from the end.
  Tensor slice(int64_t dim, int64_t begin, int64_t end, int64_t step = 1, Where where = Where::current()) const;
  Tensor operator[](Index index) const;        ///< x[i]: dim 0 dropped
  Tensor operator[](IndexTensor index) const;  ///< x[mask], x[positions]: a copy; see index()
  Tensor expand(const Shape& shape, Where where = Where::current()) const;
  Tensor squeeze(const Dims& dims = {}, Where where = Where::current()) const;  ///< no dims: all of extent 1
  Tensor unsqueeze(int64_t dim, Where where = Where::current()) const;

  Tensor select(int64_t dim, int64_t index, Where where = Where::current()) const;
  Tensor narrow(int64_t dim, int64_t start, int64_t length, Where where = Where::current()) const;
  Tensor diagonal(int64_t offset = 0, int64_t dim1 = 0, int64_t dim2 = 1, Where where = Where::current()) const;
  Tensor movedim(const Dims& source, const Dims& destination, Where where = Where::current()) const;
  Tensors split(int64_t size, int64_t dim = 0, Where where = Where::current()) const;
  Tensors split(const std::vector<int64_t>& sizes, int64_t dim = 0, Where where = Where::current()) const;
  Tensors chunk(int64_t chunks, int64_t dim = 0, Where where = Where::current()) const;
  Tensors unbind(int64_t dim = 0, Where where = Where::current()) const;

  // Copies of elements in other places.
  Tensor flip(const Dims& dims, Where where = Where::current()) const;
  Tensor roll(const Dims& shifts, const Dims& dims = {}, Where where = Where::current()) const;
  Tensor repeat(const Shape& repeats, Where where = Where::current()) const;
  Tensor repeat_interleave(int64_t repeats, int64_t dim, Where where = Where::current()) const;
  Tensor tril(int64_t diagonal = 0, Where where = Where::current()) const;
  Tensor triu(int64_t diagonal = 0, Where where = Where::current()) const;
  Tensor gather(int64_t dim, const Tensor& index, Where where = Where::current()) const;
  Tensor scatter(int64_t dim, const Tensor& index, const Arg& src) const;
  Tensor scatter_add(int64_t dim, const Tensor& index, const Tensor& src, Where where = Where::current()) const;
  Tensor index_select(int64_t dim, const Tensor& index, Where where = Where::current()) const;
  Tensor index_add(int64_t dim, const Tensor& index, const Tensor& src, Where where = Where::current()) const;
  Tensor index(const Tensors& indices, Where where = Where::current()) const;

  // Reductions; no dims means all of them.
  Tensor sum(const Dims& dims = {}, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor mean(const Dims& dims = {}, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor max(const Dims& dims = {}, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor min(const Dims& dims = {}, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor prod(const Dims& dims = {}, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor any(const Dims& dims = {}, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor all(const Dims& dims = {}, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor var(const Dims& dims = {}, VarianceOptions options = {}, Where where = Where::current()) const;
  Tensor std(const Dims& dims = {}, VarianceOptions options = {}, Where where = Where::current()) const;
  Tensor norm(const Dims& dims = {}, NormOptions options = {}, Where where = Where::current()) const;
  Tensor logsumexp(const Dims& dims = {}, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor argmax(int64_t dim, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor argmax(Where where = Where::current()) const;
  Tensor argmin(int64_t dim, ReduceOptions options = {}, Where where = Where::current()) const;
  Tensor argmin(Where where = Where::current()) const;

  // Along one dim; see ops.h.
  Tensor cumsum(int64_t dim, Where where = Where::current()) const;
  Tensor cumprod(int64_t dim, Where where = Where::current()) const;
  ValuesAndIndices sort(int64_t dim = -1, SortOptions options = {}, Where where = Where::current()) const;
  Tensor argsort(int64_t dim = -1, SortOptions options = {}, Where where = Where::current()) const;
  ValuesAndIndices topk(int64_t k, int64_t dim = -1, TopkOptions options = {}, Where where = Where::current()) const;

  // Pointwise: x.exp(), x.tanh(), x.isnan(), … for every op of one operand, and a few with more.
#define TANDEM_UNARY(name, ...) Tensor name(Where where = Where::current()) const;
#define TANDEM_TEST TANDEM_UNARY
#define TANDEM_BINARY(...)
#define TANDEM_COMPARE(...)
#define TANDEM_TERNARY(...)
#define TANDEM_SELECT(...)
#include "pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_TEST
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT
  Tensor pow(const Arg& exponent) const;
  Tensor clamp(const Arg& min, const Arg& max) const;
  Tensor clamp(Bounds bounds, Where where = Where::current()) const;
  Tensor masked_fill(const Arg& mask, const Arg& value) const;

  // For the engine.
  TensorImpl* impl() const { return impl_; }
  static Tensor adopt(TensorImpl* impl) {
    Tensor result;
    result.impl_ = impl;
    return result;
  }
  static Tensor share(TensorImpl* impl);
  TensorImpl* leak() { return std::exchange(impl_, nullptr); }  ///< gives up the handle without releasing

 private:
  void retain() const;
  void release();
  /// What the handle points at; UndefinedError if that is nothing.
  const TensorImpl& checked(Where where) const;
  TensorImpl* impl_ = nullptr;
};

/// What a Tensor points at. The header is separate from the storage, so views are cheap.
struct TensorImpl {
  std::atomic<int> references{1};
  DType dtype = DType::float32;
  Device device;
  bool requires_grad = false;  ///< a leaf that gradients are wanted for, or computed from one
  bool is_scalar = false;      ///< a C++ number that became an operand: never widens, any device
  bool contiguous = true;
  bool from_graph = false;  ///< the result of a compiled function that has called backward() over it
  Shape shape;
  Shape strides;               ///< in elements
  int64_t offset = 0;          ///< in elements, from the start of the storage
  Storage* storage = nullptr;  ///< null: a header only (inference), or symbolic
  void* data = nullptr;        ///< storage->data + offset
  // Tape (autograd): which node made this tensor; or, for a leaf, its gradient.
  TapeNodeBase* node = nullptr;
  uint32_t output_index = 0;
  Tensor grad;
  TensorExtra* extra = nullptr;  ///< owned; null for nearly all tensors
  // Tracing (graph): which value of which trace this is; 0 is none.
  uint64_t trace = 0;
  int64_t value = -1;

  static TensorImpl* create();  ///< from a pool
  void set_contiguous_layout(const Shape& new_shape) {
    shape = new_shape;
    strides = contiguous_strides(new_shape);
    contiguous = true;
  }
  void set_layout(const Shape& new_shape, const Shape& new_strides) {
    shape = new_shape;
    strides = new_strides;
    contiguous = tandem::is_contiguous(new_shape, new_strides);
  }
  /// Gives an inferred header memory of its own, sized for its (dense) layout: its bytes fit into an int64, as its shape was
  /// checked when it got one.
  void allocate();
  /// Makes an inferred header a view of `base`'s storage, `offset` elements into it.
  void alias(const TensorImpl& base, int64_t relative_offset);
};

namespace detail {
void destroy(TensorImpl* impl);
void release_node(TapeNodeBase* node);
[[noreturn]] void undefined_tensor(Where where);
}  // namespace detail

inline void Tensor::retain() const {
  if (impl_) impl_->references.fetch_add(1, std::memory_order_relaxed);
}
inline void Tensor::release() {
  if (impl_ && impl_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) detail::destroy(impl_);
}
inline Tensor Tensor::share(TensorImpl* impl) {
  Tensor result = adopt(impl);
  result.retain();
  return result;
}
inline const TensorImpl& Tensor::checked(Where where) const {
  if (!impl_) [[unlikely]]
    detail::undefined_tensor(where);
  return *impl_;
}
inline const Shape& Tensor::shape(Where where) const { return checked(where).shape; }
inline const Shape& Tensor::strides(Where where) const { return checked(where).strides; }
inline int64_t Tensor::numel(Where where) const { return checked(where).shape.numel(where); }
inline int Tensor::rank(Where where) const { return checked(where).shape.size(); }
inline DType Tensor::dtype(Where where) const { return checked(where).dtype; }
inline Device Tensor::device(Where where) const { return checked(where).device; }
inline bool Tensor::is_contiguous(Where where) const { return checked(where).contiguous; }
inline bool Tensor::is_symbolic() const { return impl_ && impl_->trace != 0; }
inline bool Tensor::is_leaf() const { return !impl_ || impl_->node == nullptr; }
inline bool Tensor::shares_storage(const Tensor& other) const {
  return impl_ && other.impl_ && impl_->storage && impl_->storage == other.impl_->storage;
}

/// An operand: a tensor or a C++ number, with the line of the call. Public functions take it by
/// const reference, so `2 * x`, `x + 1` and errors in operators all work.
class Arg {
 public:
  Arg(const Tensor& tensor, Where where = Where::current()) : tensor_(&tensor), where_(where) {}
  template <class T>
  requires std::is_arithmetic_v<T> Arg(T value, Where where = Where::current()) : where_(where) {
    if constexpr (std::is_same_v<T, bool>) kind_ = DType::bool_, integer_ = value;
    else if constexpr (std::integral<T>) kind_ = DType::int64, integer_ = static_cast<int64_t>(value);
    else kind_ = DType::float32, number_ = static_cast<double>(value);
  }

  bool is_tensor() const { return tensor_ != nullptr; }
  const Where& where() const { return where_; }
  /// The tensor; UndefinedError if it is not defined. A number becomes a 0-d tensor.
  const Tensor& tensor() const;
  /// A number's category: bool_, int64 or float32.
  DType scalar_kind() const { return kind_; }
  double number() const { return kind_ == DType::float32 ? number_ : static_cast<double>(integer_); }
  int64_t integer() const;
  /// A number as a weak 0-d operand of that dtype.
  Tensor scalar(DType dtype) const;

 private:
  const Tensor* tensor_ = nullptr;
  mutable Tensor owned_;
  DType kind_ = DType::float32;
  union {
    double number_ = 0;
    int64_t integer_;
  };
  Where where_;
};

std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

}  // namespace tandem

// Tensor handles: life, layout, values and assignment. Methods that are ops call the functions in ops.h.
#include "core/tensor.h"

#include <cstring>

#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "core/pool.h"
#include "core/scalar/math.h"

namespace tandem {

TensorImpl* TensorImpl::create() { return Pool<TensorImpl>::create(); }

void TensorImpl::allocate() {
  storage = Storage::allocate(static_cast<size_t>(shape.numel() * size_of(dtype)), device);
  data = storage->data;
}

void TensorImpl::alias(const TensorImpl& base, int64_t relative_offset) {
  storage = base.storage;
  if (storage) storage->retain();
  offset = base.offset + relative_offset;
  // Headers and empty tensors have no memory, and no place in it: nothing is added to a null pointer.
  data = base.data == nullptr ? nullptr : static_cast<char*>(base.data) + relative_offset * size_of(dtype);
}

void detail::release_node(TapeNodeBase* node) {
  if (node->references.fetch_sub(1, std::memory_order_acq_rel) == 1) node->destroy();
}

void detail::destroy(TensorImpl* impl) {
  if (impl->storage) impl->storage->release();
  if (impl->node) release_node(impl->node);
  if (impl->extra) [[unlikely]]
    delete std::exchange(impl->extra, nullptr);
  Pool<TensorImpl>::destroy(impl);
}

void detail::undefined_tensor(Where where) {
  throw UndefinedError("this Tensor is undefined; assign it a value first (was backward() called, if it is a grad()?)",
                       user_line(where));
}

int64_t Tensor::size(int64_t dim, Where where) const {
  where = user_line(where);
  const int64_t r = rank(where);
  if (dim < -r || dim >= r)
    throw DimensionError(
        detail::str("size: dim ", dim, " of a tensor of rank ", r, " ", shape(), "; dims go from ", -r, " to ", r - 1),
        where);
  return shape()[static_cast<int>(dim < 0 ? dim + r : dim)];
}

const Tensor& Arg::tensor() const {
  if (!tensor_) {
    if (!owned_.defined()) owned_ = scalar(kind_);
    return owned_;
  }
  if (!tensor_->defined())
    throw UndefinedError(
        "an operand is an undefined Tensor; assign it a value first (was backward() called, if it is a grad()?)",
        user_line(where_));
  return *tensor_;
}

int64_t Arg::integer() const { return kind_ == DType::float32 ? td_f64_to_i64(number_) : integer_; }

Tensor Arg::scalar(DType dtype) const {
  TensorImpl* impl = TensorImpl::create();
  impl->dtype = dtype;
  impl->is_scalar = true;
  Tensor result = Tensor::adopt(impl);
  impl->allocate();
  switch (dtype) {
    case DType::float32: *static_cast<float*>(impl->data) = static_cast<float>(number()); break;
    case DType::float64: *static_cast<double*>(impl->data) = number(); break;
    case DType::float16: *static_cast<Float16*>(impl->data) = Float16(static_cast<float>(number())); break;
    case DType::bfloat16: *static_cast<BFloat16*>(impl->data) = BFloat16(static_cast<float>(number())); break;
    case DType::int32: *static_cast<int32_t*>(impl->data) = static_cast<int32_t>(integer()); break;
    case DType::int64: *static_cast<int64_t*>(impl->data) = integer(); break;
    case DType::int16: *static_cast<int16_t*>(impl->data) = static_cast<int16_t>(integer()); break;
    case DType::int8: *static_cast<int8_t*>(impl->data) = static_cast<int8_t>(integer()); break;
    case DType::uint8: *static_cast<uint8_t*>(impl->data) = static_cast<uint8_t>(integer()); break;
    case DType::bool_: *static_cast<bool*>(impl->data) = number() != 0; break;
  }
  return result;
}

// ---- Values.

namespace {

/// A contiguous copy on the host, of dtype T, or the tensor itself.
Tensor host_values(const Tensor& tensor, DType dtype, const char* wanted_by, Where where) {
  where = user_line(where);
  if (!tensor.defined()) throw UndefinedError(detail::str(wanted_by, ": the tensor is undefined"), where);
  if (tensor.is_symbolic()) {
    if (Interceptor* tracer = interceptor()) tracer->value_needed(tensor, wanted_by, where);
    throw TraceError(detail::str(wanted_by,
                                 ": this value belongs to a trace that has ended; return it from the traced "
                                 "function instead of keeping it"),
                     where);
  }
  if (Interceptor* tracer = interceptor()) tracer->host_reads(tensor, wanted_by, where);
  const NoGrad no_grad;
  const InterceptorScope eager(nullptr);
  return tensor.detach(where).cpu(where).to(dtype, where).contiguous(where);
}

}  // namespace

template <class T> T Tensor::item(Where where) const {
  if (defined() && numel() != 1)
    throw ShapeError(detail::str("item: needs a tensor of one element, got ", shape(), "; index or reduce it first"),
                     user_line(where));
  const Tensor value = host_values(*this, dtype_of<T>, "item()", where);
  return *static_cast<const T*>(value.impl()->data);
}

template <class T> std::vector<T> Tensor::to_vector(Where where) const {
  const Tensor value = host_values(*this, dtype_of<T>, "to_vector()", where);
  const T* data = static_cast<const T*>(value.impl()->data);
  return std::vector<T>(data, data + value.numel());
}

template <class T> std::span<const T> Tensor::data(Where where) const {
  where = user_line(where);
  if (!defined()) throw UndefinedError("data(): the tensor is undefined", where);
  if (is_symbolic()) host_values(*this, dtype(), "data()", where);
  if (Interceptor* tracer = interceptor()) tracer->host_reads(*this, "data()", where);
  if (dtype() != dtype_of<T>)
    throw DTypeError(
        detail::str("data<", dtype_of<T>, ">(): the tensor is ", dtype(), "; ask for that, or cast with to()"), where);
  if (!device().is_cpu())
    throw DeviceError(detail::str("data(): the tensor is on ", device(), "; call cpu() first"), where);
  if (!is_contiguous()) throw ShapeError("data(): the tensor is not contiguous; call contiguous() first", where);
  return {static_cast<const T*>(impl_->data), static_cast<size_t>(numel())};
}

template <class T> std::span<T> Tensor::mutable_data(Where where) {
  if (Interceptor* tracer = interceptor(); tracer && defined() && !is_symbolic())
    tracer->host_writes(*this, "mutable_data()", user_line(where));
  const auto values = data<T>(where);
  impl_->storage->version++;
  impl_->storage->last_write = user_line(where);
  return {const_cast<T*>(values.data()), values.size()};
}

#define TANDEM_VALUES(T)                                     \
  template T Tensor::item<T>(Where) const;                   \
  template std::vector<T> Tensor::to_vector<T>(Where) const; \
  template std::span<const T> Tensor::data<T>(Where) const;  \
  template std::span<T> Tensor::mutable_data<T>(Where);
TANDEM_VALUES(float)
TANDEM_VALUES(double)
TANDEM_VALUES(Float16)
TANDEM_VALUES(BFloat16)
TANDEM_VALUES(int32_t)
TANDEM_VALUES(int64_t)
TANDEM_VALUES(int16_t)
TANDEM_VALUES(int8_t)
TANDEM_VALUES(uint8_t)
#undef TANDEM_VALUES
template bool Tensor::item<bool>(Where) const;
template std::span<const bool> Tensor::data<bool>(Where) const;
template std::span<bool> Tensor::mutable_data<bool>(Where);
template <> std::vector<bool> Tensor::to_vector<bool>(Where where) const {
  const Tensor value = host_values(*this, bool_, "to_vector()", where);
  const bool* data = static_cast<const bool*>(value.impl()->data);
  return std::vector<bool>(data, data + value.numel());
}

// ---- Gradients and mutation.

bool Tensor::requires_grad() const {
  if (!impl_) return false;
  if (Interceptor* tracer = interceptor()) tracer->requires_grad_read(*this);
  return impl_->requires_grad;
}

Tensor& Tensor::requires_grad(bool wanted, Where where) {
  where = user_line(where);
  if (!defined()) throw UndefinedError("requires_grad: the tensor is undefined", where);
  if (wanted && !is_floating(dtype()))
    throw DTypeError(detail::str("requires_grad: only floating tensors have gradients; this one is ", dtype()), where);
  if (!is_leaf())
    throw AutogradError(
        "requires_grad: this tensor was computed by an op; only a leaf can be changed (detach() makes one)", where);
  impl_->requires_grad = wanted;
  return *this;
}

Tensor Tensor::grad() const {
  if (!impl_) return {};
  if (Interceptor* tracer = interceptor()) tracer->gradient_read(*impl_);
  return impl_->grad;
}

void Tensor::set_grad(const Tensor& gradient, Where where) {
  if (!defined()) throw UndefinedError("set_grad: the tensor is undefined", user_line(where));
  if (gradient.defined() && gradient.shape() != shape())
    throw ShapeError(detail::str("set_grad: gradient ", gradient.shape(), " for a tensor ", shape()), user_line(where));
  if (gradient.defined() && gradient.dtype() != dtype())
    throw DTypeError(
        detail::str("set_grad: the gradient is ", gradient.dtype(), ", the tensor ", dtype(), "; cast it with to()"),
        user_line(where));
  if (Interceptor* tracer = interceptor()) tracer->gradient_written(*impl_);
  impl_->grad = gradient;
}

Tensor Tensor::detach(Where where) const {
  if (!defined()) throw UndefinedError("detach: the tensor is undefined", user_line(where));
  if (Interceptor* tracer = interceptor()) tracer->detached(*impl_);
  TensorImpl* result = TensorImpl::create();
  result->dtype = impl_->dtype;
  result->device = impl_->device;
  result->set_layout(impl_->shape, impl_->strides);
  result->trace = impl_->trace;
  result->value = impl_->value;
  result->alias(*impl_, 0);
  return adopt(result);
}

void Tensor::assign(const Tensor& value, Where where) {
  where = user_line(where);
  if (!defined()) throw UndefinedError("assign: the target is an undefined Tensor", where);
  if (!value.defined()) throw UndefinedError("assign: the value is an undefined Tensor", where);
  if (grad_enabled() && (requires_grad() || value.requires_grad()))
    throw InPlaceError(detail::str("assign: not differentiable, and ", requires_grad() ? "the target" : "the value",
                                   " requires a gradient; write it under NoGrad, or assign value.detach()"),
                       where);
  if (!impl_->contiguous && may_overlap(shape(), strides()))
    throw InPlaceError(detail::str("assign: elements of ", shape(), " with strides ", strides(),
                                   " share memory, as those of an expanded tensor do; assign to a clone()"),
                       where);
  WhereScope scope(where);
  NoGrad no_grad;
  Tensor source = value;
  if (source.shape() != shape()) source = tandem::expand(source, shape());
  if (source.dtype() != dtype()) source = source.to(dtype());
  if (source.device() != device() && !source.impl()->is_scalar) source = source.to(device());
  if (Interceptor* tracer = interceptor()) return tracer->assign(*this, source, where);
  if (shares_storage(source) && (impl_->offset != source.impl()->offset || strides() != source.strides()))
    source = tandem::clone(source);  // overlapping views: read all before writing any
  static const Op& copy = find_op("copy");
  run_kernel(copy, {&source, 1}, {}, {this, 1}, where);
  impl_->storage->version++;
  impl_->storage->last_write = where;
}

namespace {

/// target = result, which is target op value: by an assign, or, where a gradient flows, by binding the handle.
void update(const char* name, Tensor& target, const Arg& value, const Tensor& result, bool has_name) {
  const bool flows = grad_enabled() && result.requires_grad() && !(target.is_leaf() && target.requires_grad());
  if (!flows || !has_name) return target.assign(result, value.where());
  const Where where = user_line(value.where());
  if (result.shape() != target.shape())
    throw ShapeError(detail::str(name, "=: the result is ", result.shape(), ", the target ", target.shape()), where);
  // Other tensors on the same memory would not see the result.
  if (shares_memory(*target.impl()))
    throw InPlaceError(detail::str(name,
                                   "=: the target is a view, or others are views of it, and would keep the old values: "
                                   "write x = x ",
                                   name, " y"),
                       where);
  target = to({result, value.where()}, target.dtype());
}

void check_floating_target(const Tensor& target, const Arg& value) {
  if (target.defined() && !is_floating(target.dtype()))
    throw DTypeError(detail::str("/=: the quotient is floating, the target ", target.dtype(),
                                 "; write x = x / y, or assign floor_divide(x, y)"),
                     user_line(value.where()));
}

}  // namespace

#define TANDEM_UPDATE(symbol, function, check)                                     \
  Tensor& Tensor::operator symbol##=(const Arg& value)& {                          \
    check;                                                                         \
    update(#symbol, *this, value, function({*this, value.where()}, value), true);  \
    return *this;                                                                  \
  }                                                                                \
  void Tensor::operator symbol##=(const Arg& value)&& {                            \
    check;                                                                         \
    update(#symbol, *this, value, function({*this, value.where()}, value), false); \
  }
TANDEM_UPDATE(+, add, )
TANDEM_UPDATE(-, sub, )
TANDEM_UPDATE(*, mul, )
TANDEM_UPDATE(/, div, check_floating_target(*this, value))
#undef TANDEM_UPDATE

// ---- Methods that are functions of ops.h.

Tensor Tensor::to(Device device, Where where) const { return tandem::to({*this, where}, device); }
Tensor Tensor::to(DType dtype, Where where) const { return tandem::to({*this, where}, dtype); }
Tensor Tensor::cpu(Where where) const { return tandem::to({*this, where}, Device{}); }
Tensor Tensor::clone(Where where) const { return tandem::clone({*this, where}); }
Tensor Tensor::contiguous(Where where) const { return tandem::contiguous({*this, where}); }
Tensor Tensor::reshape(const Shape& shape, Where where) const { return tandem::reshape({*this, where}, shape); }
Tensor Tensor::flatten(int64_t start, int64_t end, Where where) const {
  return tandem::flatten({*this, where}, start, end);
}
Tensor Tensor::transpose(int64_t a, int64_t b, Where where) const { return tandem::transpose({*this, where}, a, b); }
Tensor Tensor::permute(const Dims& dims, Where where) const { return tandem::permute({*this, where}, dims); }
Tensor Tensor::slice(int64_t dim, int64_t begin, int64_t end, int64_t step, Where where) const {
  return tandem::slice({*this, where}, dim, begin, end, step);
}
Tensor Tensor::operator[](Index index) const { return tandem::select({*this, index.where}, 0, index.value); }
Tensor Tensor::operator[](IndexTensor index) const { return tandem::index({*this, index.where}, {index.tensor}); }
Tensor Tensor::index(const Tensors& indices, Where where) const { return tandem::index({*this, where}, indices); }
Tensor Tensor::expand(const Shape& shape, Where where) const { return tandem::expand({*this, where}, shape); }
Tensor Tensor::squeeze(const Dims& dims, Where where) const { return tandem::squeeze({*this, where}, dims); }
Tensor Tensor::view(const Shape& shape, Where where) const { return tandem::view({*this, where}, shape); }
Tensor Tensor::unsqueeze(int64_t dim, Where where) const { return tandem::unsqueeze({*this, where}, dim); }
Tensor Tensor::select(int64_t dim, int64_t index, Where where) const {
  return tandem::select({*this, where}, dim, index);
}
Tensor Tensor::narrow(int64_t dim, int64_t start, int64_t length, Where where) const {
  return tandem::narrow({*this, where}, dim, start, length);
}
Tensor Tensor::diagonal(int64_t offset, int64_t dim1, int64_t dim2, Where where) const {
  return tandem::diagonal({*this, where}, offset, dim1, dim2);
}
Tensor Tensor::movedim(const Dims& source, const Dims& destination, Where where) const {
  return tandem::movedim({*this, where}, source, destination);
}
Tensors Tensor::split(int64_t size, int64_t dim, Where where) const { return tandem::split({*this, where}, size, dim); }
Tensors Tensor::split(const std::vector<int64_t>& sizes, int64_t dim, Where where) const {
  return tandem::split({*this, where}, sizes, dim);
}
Tensors Tensor::chunk(int64_t chunks, int64_t dim, Where where) const {
  return tandem::chunk({*this, where}, chunks, dim);
}
Tensors Tensor::unbind(int64_t dim, Where where) const { return tandem::unbind({*this, where}, dim); }
Tensor Tensor::flip(const Dims& dims, Where where) const { return tandem::flip({*this, where}, dims); }
Tensor Tensor::roll(const Dims& shifts, const Dims& dims, Where where) const {
  return tandem::roll({*this, where}, shifts, dims);
}
Tensor Tensor::repeat(const Shape& repeats, Where where) const { return tandem::repeat({*this, where}, repeats); }
Tensor Tensor::repeat_interleave(int64_t repeats, int64_t dim, Where where) const {
  return tandem::repeat_interleave({*this, where}, repeats, dim);
}
Tensor Tensor::tril(int64_t diagonal, Where where) const { return tandem::tril({*this, where}, diagonal); }
Tensor Tensor::triu(int64_t diagonal, Where where) const { return tandem::triu({*this, where}, diagonal); }
Tensor Tensor::gather(int64_t dim, const Tensor& index, Where where) const {
  return tandem::gather({*this, where}, dim, index);
}
Tensor Tensor::scatter(int64_t dim, const Tensor& index, const Arg& src) const {
  return tandem::scatter({*this, src.where()}, dim, index, src);
}
Tensor Tensor::scatter_add(int64_t dim, const Tensor& index, const Tensor& src, Where where) const {
  return tandem::scatter_add({*this, where}, dim, index, src);
}
Tensor Tensor::index_select(int64_t dim, const Tensor& index, Where where) const {
  return tandem::index_select({*this, where}, dim, index);
}
Tensor Tensor::index_add(int64_t dim, const Tensor& index, const Tensor& src, Where where) const {
  return tandem::index_add({*this, where}, dim, index, src);
}
Tensor Tensor::sum(const Dims& dims, ReduceOptions o, Where where) const {
  return tandem::sum({*this, where}, dims, o);
}
Tensor Tensor::mean(const Dims& dims, ReduceOptions o, Where where) const {
  return tandem::mean({*this, where}, dims, o);
}
Tensor Tensor::max(const Dims& dims, ReduceOptions o, Where where) const {
  return tandem::max({*this, where}, dims, o);
}
Tensor Tensor::argmax(int64_t dim, ReduceOptions o, Where where) const {
  return tandem::argmax({*this, where}, dim, o);
}
Tensor Tensor::argmax(Where where) const { return tandem::argmax({flatten(0, -1, where), where}, 0); }
Tensor Tensor::min(const Dims& dims, ReduceOptions o, Where where) const {
  return tandem::min({*this, where}, dims, o);
}
Tensor Tensor::prod(const Dims& dims, ReduceOptions o, Where where) const {
  return tandem::prod({*this, where}, dims, o);
}
Tensor Tensor::any(const Dims& dims, ReduceOptions o, Where where) const {
  return tandem::any({*this, where}, dims, o);
}
Tensor Tensor::all(const Dims& dims, ReduceOptions o, Where where) const {
  return tandem::all({*this, where}, dims, o);
}
Tensor Tensor::var(const Dims& dims, VarianceOptions o, Where where) const {
  return tandem::var({*this, where}, dims, o);
}
Tensor Tensor::std(const Dims& dims, VarianceOptions o, Where where) const {
  return tandem::std({*this, where}, dims, o);
}
Tensor Tensor::norm(const Dims& dims, NormOptions o, Where where) const {
  return tandem::norm({*this, where}, dims, o);
}
Tensor Tensor::logsumexp(const Dims& dims, ReduceOptions o, Where where) const {
  return tandem::logsumexp({*this, where}, dims, o);
}
Tensor Tensor::argmin(int64_t dim, ReduceOptions o, Where where) const {
  return tandem::argmin({*this, where}, dim, o);
}
Tensor Tensor::argmin(Where where) const { return tandem::argmin({flatten(0, -1, where), where}, 0); }
Tensor Tensor::cumsum(int64_t dim, Where where) const { return tandem::cumsum({*this, where}, dim); }
Tensor Tensor::cumprod(int64_t dim, Where where) const { return tandem::cumprod({*this, where}, dim); }
ValuesAndIndices Tensor::sort(int64_t dim, SortOptions o, Where where) const {
  return tandem::sort({*this, where}, dim, o);
}
Tensor Tensor::argsort(int64_t dim, SortOptions o, Where where) const {
  return tandem::argsort({*this, where}, dim, o);
}
ValuesAndIndices Tensor::topk(int64_t k, int64_t dim, TopkOptions o, Where where) const {
  return tandem::topk({*this, where}, k, dim, o);
}
#define TANDEM_UNARY(name, ...) \
  Tensor Tensor::name(Where where) const { return tandem::name({*this, where}); }
#define TANDEM_TEST TANDEM_UNARY
#define TANDEM_BINARY(...)
#define TANDEM_COMPARE(...)
#define TANDEM_TERNARY(...)
#define TANDEM_SELECT(...)
#include "core/pointwise.def"
Tensor Tensor::pow(const Arg& exponent) const { return tandem::pow({*this, exponent.where()}, exponent); }
Tensor Tensor::clamp(const Arg& min, const Arg& max) const { return tandem::clamp({*this, min.where()}, min, max); }
Tensor Tensor::clamp(Bounds bounds, Where where) const { return tandem::clamp({*this, where}, bounds); }
Tensor Tensor::masked_fill(const Arg& mask, const Arg& value) const {
  return tandem::masked_fill({*this, mask.where()}, mask, value);
}

}  // namespace tandem

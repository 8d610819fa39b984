// Making tensors: constants, ranges, casts, copies and moves.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

void infer_create(Infer& op) {
  op.output(op.attributes.integers("shape"), op.attributes.dtype("dtype")).impl()->device =
      parse_device(op.attributes.text("device"), op.where);
}

void infer_cast(Infer& op) {
  const DType type = op.attributes.dtype("dtype");
  Tensor& output = op.output(op.input(0));
  output.impl()->dtype = type;
}

void infer_contiguous(Infer& op) { op.output(op.input(0).shape(), op.input(0).dtype()); }
void infer_copy(Infer& op) { op.output(op.input(0)); }
void infer_transfer(Infer& op) {
  op.output(op.input(0).shape(), op.input(0).dtype()).impl()->device =
      parse_device(op.attributes.text("device"), op.where);
}

/// Backend::copy between devices; the input is contiguous.
void transfer_kernel(KernelContext& op) {
  const TensorImpl& from = op.in(0);
  TensorImpl& to = op.out();
  const DeviceKind kind = from.device.is_cuda() ? from.device.kind : to.device.kind;
  backend(kind).copy(to.data, to.device, from.data, from.device,
                     static_cast<size_t>(from.shape.numel() * size_of(from.dtype)));
}

/// Of memory that no op makes.
void check_memory(const char* name, const Shape& shape, Device device, Where where) {
  check_extents(shape, name, where);
  if (!device.is_cpu()) cuda(device.index, user_line(where));
}

Tensor create(const char* name, const Shape& shape, TensorOptions options, Attributes attributes, Where where) {
  attributes.set({"shape", shape});
  attributes.set({"dtype", options.dtype});
  attributes.set({"device", to_string(options.device)});
  Tensor result = dispatch(find_op(name), {}, attributes, where);
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

}  // namespace

void define_create(OpTable& table) {
  using enum AttributeType;
  table.add(
      {.name = "full",
       .kind = OpKind::create,
       .inputs = 0,
       .attributes = {{"value", number}, {"shape", ints}, {"dtype", dtype, DType::float32}, {"device", text, "cpu"}},
       .infer = infer_create,
       .fills = true});
  table.add({.name = "arange",
             .kind = OpKind::create,
             .inputs = 0,
             .attributes = {{"begin", number},
                            {"step", number},
                            {"shape", ints},
                            {"dtype", dtype, DType::float32},
                            {"device", text, "cpu"}},
             .infer = infer_create,
             .sequence = Sequence::range});
  table.add({.name = "cast",
             .kind = OpKind::pointwise,
             .attributes = {{"dtype", dtype}},
             .infer = infer_cast,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{is_floating(op.input_dtype(0)) ? to(op.grad_output(), op.input_dtype(0)) : Tensor()};
                 },
             .onnx = "Cast",
             .keeps_values = true});
  table.add({.name = "contiguous",
             .kind = OpKind::pointwise,
             .infer = infer_contiguous,
             .grad = [](const OpContext& op) { return Tensors{op.grad_output()}; },
             .keeps_values = true});
  table.add({.name = "copy",
             .kind = OpKind::pointwise,
             .infer = infer_copy,
             .grad = [](const OpContext& op) { return Tensors{op.grad_output()}; },
             .onnx = "Identity",
             .keeps_values = true});
  table.add({.name = "barrier",
             .kind = OpKind::opaque,
             .inputs = 2,
             .infer = [](Infer& op) { op.output(op.input(0)); },
             .grad =
                 [](const OpContext& op) {
                   return Tensors{op.grad_output(), Tensor()};
                 }});
  Op& transfer = table.add({.name = "transfer",
                            .kind = OpKind::opaque,
                            .attributes = {{"device", text}},
                            .infer = infer_transfer,
                            .grad = [](const OpContext& op) { return Tensors{to(op.grad_output(), op.device())}; },
                            .contiguous_inputs = true,
                            .transfers = true});
  transfer.kernels.fill(transfer_kernel);
}

Tensor empty(const Shape& shape, TensorOptions options, Where where) {
  if (interceptor()) return zeros(shape, options, where);
  check_memory("empty", shape, options.device, where);
  TensorImpl* impl = TensorImpl::create();
  impl->dtype = options.dtype;
  impl->device = options.device;
  impl->set_contiguous_layout(shape);
  Tensor result = Tensor::adopt(impl);
  try {
    impl->allocate();
  } catch (const OutOfMemoryError& error) {
    throw OutOfMemoryError(detail::str("empty of ", options.dtype, shape, ": ", error.message()), user_line(where));
  }
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

Tensor full(const Shape& shape, double value, TensorOptions options, Where where) {
  return create("full", shape, options, {{"value", value}}, where);
}
Tensor zeros(const Shape& shape, TensorOptions options, Where where) { return full(shape, 0, options, where); }
Tensor ones(const Shape& shape, TensorOptions options, Where where) { return full(shape, 1, options, where); }
namespace {

TensorOptions options_like(const Tensor& like, const LikeOptions& options, Where where) {
  return {.dtype = options.dtype.value_or(like.dtype(where)),
          .device = options.device.value_or(like.device(where)),
          .requires_grad = options.requires_grad};
}

}  // namespace

Tensor zeros_like(const Tensor& like, LikeOptions options, Where where) {
  return full(like.shape(where), 0, options_like(like, options, where), where);
}
Tensor ones_like(const Tensor& like, LikeOptions options, Where where) {
  return full(like.shape(where), 1, options_like(like, options, where), where);
}
Tensor full_like(const Tensor& like, double value, LikeOptions options, Where where) {
  return full(like.shape(where), value, options_like(like, options, where), where);
}
Tensor empty_like(const Tensor& like, LikeOptions options, Where where) {
  return empty(like.shape(where), options_like(like, options, where), where);
}
Tensor eye(int64_t rows, std::optional<int64_t> columns, TensorOptions options, Where where) {
  const WhereScope scope(where);
  check_extents({rows, columns.value_or(rows)}, "eye", where);
  const TensorOptions positions{.dtype = int64, .device = options.device};
  const Tensor diagonal =
      reshape(arange(0, rows, 1, positions), {rows, 1}) == arange(0, columns.value_or(rows), 1, positions);
  Tensor result = to(diagonal, options.dtype);
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

Tensor arange(int64_t end, Where where) { return arange(0, end, 1, {.dtype = int64}, where); }
Tensor arange(int64_t begin, int64_t end, int64_t step, TensorOptions options, Where where) {
  if (step == 0 || (begin != end && (begin < end) != (step > 0)))
    throw ValueError(detail::str("arange: from ", begin, " to ", end, " can't be walked in steps of ", step),
                     user_line(where));
  // As unsigned numbers, which hold every distance.
  const auto magnitude = [](int64_t x) { return x < 0 ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x); };
  const uint64_t distance = begin < end ? static_cast<uint64_t>(end) - static_cast<uint64_t>(begin)
                                        : static_cast<uint64_t>(begin) - static_cast<uint64_t>(end);
  const uint64_t count = distance / magnitude(step) + (distance % magnitude(step) != 0);
  if (count > static_cast<uint64_t>(kMaxNumel))
    throw ShapeError(detail::str("arange: from ", begin, " to ", end, " in steps of ", step, " are ", count,
                                 " numbers, more than a tensor may have"),
                     user_line(where));
  const Shape shape{static_cast<int64_t>(count)};
  constexpr uint64_t kExact = uint64_t{1} << 53;  // doubles hold all integers up to here
  if (options.dtype == int64 && std::max({magnitude(begin), magnitude(end), magnitude(step)}) > kExact) {
    const WhereScope scope(where);
    return create("arange", shape, options, {{"begin", 0.0}, {"step", 1.0}}, where) * step + begin;
  }
  return create("arange", shape, options, {{"begin", static_cast<double>(begin)}, {"step", static_cast<double>(step)}},
                where);
}
Tensor arange_of_doubles(double begin, double end, double step, TensorOptions options, Where where) {
  const double count = std::ceil((end - begin) / step);
  if (!(count >= 0 && count < 9e18))
    throw ValueError(detail::str("arange: from ", begin, " to ", end, " can't be walked in steps of ", step),
                     user_line(where));
  return create("arange", {static_cast<int64_t>(count)}, options, {{"begin", begin}, {"step", step}}, where);
}
Tensor linspace(double begin, double end, int64_t count, TensorOptions options, Where where) {
  if (count < 0) throw ValueError(detail::str("linspace: negative count ", count), user_line(where));
  check_extents({count}, "linspace", where);
  const double steps = static_cast<double>(std::max<int64_t>(count - 1, 1));
  const double step = std::isfinite(end - begin) ? (end - begin) / steps : end / steps - begin / steps;
  return create("arange", {count}, options, {{"begin", begin}, {"step", count > 1 ? step : 0.0}}, where);
}

Tensor from_blob(void* data, const Shape& shape, TensorOptions options, Where where) {
  check_memory("from_blob", shape, options.device, where);
  if (!data && shape.numel() > 0)
    throw ValueError(detail::str("from_blob: a null pointer for ", shape), user_line(where));
  TensorImpl* impl = TensorImpl::create();
  Tensor result = Tensor::adopt(impl);
  impl->dtype = options.dtype;
  impl->device = options.device;
  impl->set_contiguous_layout(shape);
  impl->storage = Storage::wrap(data, static_cast<size_t>(shape.numel() * size_of(options.dtype)), options.device);
  impl->data = data;
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

Tensor from_host(const void* data, DType dtype, const Shape& shape, TensorOptions options, Where where) {
  Tensor result;
  {
    const InterceptorScope eager(nullptr);  // inside a trace this is a constant
    result = empty(shape, {.dtype = dtype}, where);
  }
  if (Interceptor* tracer = interceptor()) tracer->constant(result);
  if (const size_t bytes = static_cast<size_t>(shape.numel() * size_of(dtype)))
    std::memcpy(result.impl()->data, data, bytes);
  result = result.to(options.device, where);
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

Tensor detail::from_values(const void* data, DType held, DType wanted, const Shape& shape, ValueOptions options,
                           Where where) {
  const CallScope scope("eye", where);
  Tensor result;
  if (held == wanted) {
    result = from_host(data, held, shape, {.dtype = held}, where);
  } else {  // cast on the host, so that a trace sees one constant
    Tensor cast;
    {
      const InterceptorScope eager(nullptr);
      cast = to(from_host(data, held, shape, {.dtype = held}, where), wanted);
    }
    result = from_host(cast.impl()->data, wanted, shape, {.dtype = wanted}, where);
  }
  result = result.to(options.device, where);
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

Tensor to(const Arg& x, DType dtype) {
  const Tensor& tensor = x.tensor();
  if (tensor.dtype() == dtype) return tensor;
  static const Op& op = find_op("cast");
  return dispatch(op, {tensor}, {{"dtype", dtype}}, x.where());
}

Tensor to(const Arg& x, Device device) {
  const Tensor& tensor = x.tensor();
  if (tensor.device() == device) return tensor;
  static const Op& op = find_op("transfer");
  return dispatch(op, {tensor}, {{"device", to_string(device)}}, x.where());
}

Tensor clone(const Arg& x) {
  static const Op& op = find_op("copy");
  return dispatch(op, {x.tensor()}, {}, x.where());
}

Tensor barrier(const Arg& x, const Tensor& after) {
  static const Op& op = find_op("barrier");
  return dispatch(op, {x.tensor(), after}, {}, x.where());
}

Tensor contiguous(const Arg& x) {
  const Tensor& tensor = x.tensor();
  if (tensor.is_contiguous()) return tensor;
  static const Op& op = find_op("contiguous");
  return dispatch(op, {tensor}, {}, x.where());
}

bool allclose(const Tensor& a, const Tensor& b, CloseOptions options, Where where) {
  CallScope scope("allclose", where);
  if (a.shape() != b.shape()) return false;
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i] || (options.equal_nan && std::isnan(x[i]) && std::isnan(y[i]))) continue;
    if (!(std::fabs(x[i] - y[i]) <= options.atol + options.rtol * std::fabs(y[i]))) return false;
  }
  return true;
}

}  // namespace tandem

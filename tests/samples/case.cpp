// Making a case's operands, and comparing its results.
#include "samples/case.h"

#include <stdexcept>

namespace tandem::samples {

namespace {

/// x as that dtype holds it.
double rounded(double x, DType type) {
  switch (type) {
    case DType::float64: return x;
    case DType::int64: return static_cast<double>(static_cast<int64_t>(x));
    case DType::float32: return static_cast<float>(x);
    case DType::float16: return static_cast<float>(Float16(static_cast<float>(x)));
    case DType::bfloat16: return static_cast<float>(BFloat16(static_cast<float>(x)));
    case DType::int32: return static_cast<int32_t>(static_cast<int64_t>(x));
    case DType::int16: return static_cast<int16_t>(static_cast<int64_t>(x));
    case DType::int8: return static_cast<int8_t>(static_cast<int64_t>(x));
    case DType::uint8: return static_cast<uint8_t>(static_cast<int64_t>(x));
    case DType::bool_: return x != 0;
  }
  return x;
}

template <class T> double to_double(T x) { return static_cast<double>(x); }
double to_double(Float16 x) { return static_cast<float>(x); }
double to_double(BFloat16 x) { return static_cast<float>(x); }
template <class T> T from_double(double x) {
  if constexpr (std::is_same_v<T, bool>) return x != 0;
  else if constexpr (std::is_integral_v<T>) return static_cast<T>(static_cast<int64_t>(x));
  else if constexpr (std::is_same_v<T, double>) return x;
  else return T(static_cast<float>(x));
}

bool is_half(DType type) { return type == float16 || type == bfloat16; }
double epsilon(DType type) {
  switch (type) {
    case DType::float64: return 0x1p-52;
    case DType::float32: return 0x1p-23;
    case DType::float16: return 0x1p-10;
    case DType::bfloat16: return 0x1p-7;
    default: return 0;
  }
}
double smallest(DType type) {
  return type == float16 ? 0x1p-24 : type == float64 ? 0x1p-1022 : is_floating(type) ? 0x1p-126 : 0;
}

/// How far a result may be off: some ULPs of the type computed in, and the rounding to the type stored in.
double tolerance(double scale, DType type, double ulps) {
  return scale * (is_half(type) ? epsilon(type) + ulps * epsilon(float32) : ulps * epsilon(type)) + smallest(type);
}

/// Offset in elements of row-major position i.
int64_t offset_of(int64_t i, const Shape& shape, const Shape& strides) {
  int64_t offset = 0;
  for (int d = shape.size() - 1; d >= 0; --d) {
    offset += i % shape[d] * strides[d];
    i /= shape[d];
  }
  return offset;
}

/// The elements in row-major order, read by strides rather than by the engine's copies and casts.
Numbers read(const Tensor& tensor) {
  const Tensor host = tensor.device().is_cpu() ? tensor : tensor.cpu();
  Numbers numbers(host.shape(), host.dtype());
  visit_dtype(host.dtype(), [&]<class T>() {
    const T* data = static_cast<const T*>(host.impl()->data);
    for (int64_t i = 0; i < numbers.numel(); ++i)
      numbers[i] = to_double(data[offset_of(i, host.shape(), host.strides())]);
  });
  return numbers;
}

Tensor make_base(const Shape& shape, DType dtype, const Generator& value, Device device) {
  Tensor base = empty(shape, {.dtype = dtype});
  visit_dtype(dtype, [&]<class T>() {
    T* data = static_cast<T*>(base.impl()->data);
    for (int64_t i = 0; i < shape.numel(); ++i) data[i] = from_double<T>(value(i));
  });
  return base.to(device);
}

template <class... Parts> [[noreturn]] void fail(const Parts&... parts) {
  throw std::runtime_error(detail::str(parts...));
}

bool same(double a, double b) { return a == b || (a != a && b != b); }

}  // namespace

std::vector<LayoutChoice> layout_choices(const Sample& sample) {
  std::vector<LayoutChoice> choices;
  const auto add = [&](auto&& wanted) {
    LayoutChoice choice;
    for (size_t i = 0; i < sample.operands.size(); ++i) {
      const Operand& operand = sample.operands[i];
      const Layout layout = fitting(wanted(i), operand.shape);
      const bool repeats = layout == Layout::repeats_first || layout == Layout::repeats_last;
      choice.push_back(operand.fixed_layout || (repeats && !operand.may_repeat) ? Layout::contiguous : layout);
    }
    if (std::find(choices.begin(), choices.end(), choice) == choices.end()) choices.push_back(choice);
  };
  for (Layout layout : kLayouts) add([&](size_t) { return layout; });
  if (sample.operands.size() > 1) {
    add([](size_t i) { return i % 2 ? Layout::transposed : Layout::contiguous; });
    add([](size_t i) { return i % 2 ? Layout::contiguous : i % 4 ? Layout::transposed : Layout::sliced; });
  }
  return choices;
}

Case::Case(const Sample& sample, DType dtype, LayoutChoice layouts, Device device)
    : sample_(&sample), dtype_(dtype), layouts_(std::move(layouts)) {
  for (size_t i = 0; i < sample.operands.size(); ++i) {
    const Operand& operand = sample.operands[i];
    bases_.push_back(
        make_base(base_shape(layouts_[i], operand.shape), operand.dtype.value_or(dtype), operand.value, device));
  }
}

std::string Case::name() const {
  std::string name = detail::str(sample_->op, " (", sample_->label, "), ", dtype_);
  for (size_t i = 0; i < layouts_.size(); ++i) name += (i ? "/" : ", ") + std::string(name_of(layouts_[i]));
  return name;
}

int64_t Case::numel() const {
  int64_t most = 0;
  for (const Tensor& base : bases_) most = std::max(most, base.numel());
  return most;
}

Tensors Case::call(const Tensors& bases) const {
  Tensors operands;
  for (size_t i = 0; i < bases.size(); ++i) operands.push_back(view(layouts_[i], bases[i], sample_->operands[i].shape));
  return sample_->call(operands);
}

Numbers Case::operand_numbers(size_t i) const {
  const Numbers base = read(bases_[i]);
  const Tensor shown = view(layouts_[i], bases_[i], sample_->operands[i].shape);
  Numbers numbers(shown.shape(), shown.dtype());
  for (int64_t k = 0; k < numbers.numel(); ++k)
    numbers[k] = base[shown.impl()->offset - bases_[i].impl()->offset + offset_of(k, shown.shape(), shown.strides())];
  return numbers;
}

void Case::check_forward() const {
  const Tensors results = call(bases_);
  NumberLists operands;
  for (size_t i = 0; i < bases_.size(); ++i) operands.push_back(operand_numbers(i));
  const NumberLists expected = sample_->reference(operands);
  if (expected.size() > results.size()) fail("gives ", results.size(), " results, the reference ", expected.size());
  for (size_t k = 0; k < expected.size(); ++k) {
    const Numbers& reference = expected[k];
    const Numbers actual = read(results[k]);
    if (results[k].shape() != reference.shape || results[k].dtype() != reference.dtype)
      fail("result ", k, " is ", results[k].dtype(), results[k].shape(), ", the reference's ", reference.dtype,
           reference.shape);
    for (int64_t i = 0; i < actual.numel(); ++i) {
      const double wanted = rounded(reference[i], reference.dtype);
      if (same(actual[i], wanted)) continue;
      const double scale =
          std::max(std::fabs(reference[i]), reference.scale.empty() ? 0 : reference.scale[static_cast<size_t>(i)]);
      const double allowed = tolerance(scale, reference.dtype, sample_->ulps);
      if (!(std::fabs(actual[i] - wanted) <= allowed) || std::isinf(wanted))
        fail("result ", k, ", element ", i, " of ", reference.shape, ": ", actual[i], ", the reference gives ", wanted,
             " (allowed error ", allowed, ")");
    }
  }
}

void Case::check_same(const Tensor& actual, const Tensor& eager, bool exactly) const {
  if (actual.shape() != eager.shape() || actual.dtype() != eager.dtype() || actual.device() != eager.device())
    fail("gives ", actual.dtype(), actual.shape(), " on ", actual.device(), ", eager mode ", eager.dtype(),
         eager.shape(), " on ", eager.device());
  const Numbers a = read(actual), b = read(eager);
  exactly = exactly || sample_->agreement == Agreement::exact || !is_floating(b.dtype);
  double largest = 0;
  for (const double x : b.values)
    if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
  for (int64_t i = 0; i < a.numel(); ++i) {
    if (same(a[i], b[i])) continue;
    const double allowed =
        exactly ? 0
                : std::max({1e-5 * std::fabs(b[i]), 1e-6 * largest, 2 * epsilon(b.dtype) * std::fabs(b[i]),
                            4 * epsilon(b.dtype)});  // terms of about 1 that cancel
    if (!(std::fabs(a[i] - b[i]) <= allowed))
      fail("element ", i, " of ", b.shape, ": ", a[i], ", eager mode gives ", b[i], exactly ? " (bit for bit)" : "");
  }
}

Tensors Case::differentiable_bases() const {
  Tensors result;
  for (size_t i = 0; i < bases_.size(); ++i)
    if (sample_->operands[i].differentiable && is_floating(bases_[i].dtype())) result.push_back(bases_[i]);
  return result;
}

std::function<Tensor(const Tensors&)> Case::differentiable_call() const {
  return [this](const Tensors& leaves) {
    Tensors all = bases_;
    size_t next = 0;
    for (size_t i = 0; i < bases_.size(); ++i)
      if (sample_->operands[i].differentiable && is_floating(bases_[i].dtype())) all[i] = leaves[next++];
    // Several results are weighted and summed to one number, each element by another weight.
    Tensor total;
    const Tensors results = call(all);
    const auto wanted = static_cast<size_t>(
        std::count_if(results.begin(), results.end(), [](const Tensor& t) { return is_floating(t.dtype()); }));
    for (const Tensor& result : results) {
      if (!is_floating(result.dtype())) continue;
      if (wanted == 1) return result;
      const Tensor weights = make_base(result.shape(), float64, spread(0.5, 1.5, 9), result.device());
      const Tensor part = sum(result * weights);
      total = total.defined() ? total + part : part;
    }
    return total;
  };
}

}  // namespace tandem::samples

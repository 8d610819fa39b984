// The op table: filled at first use, family by family, then given its kernels.
#include <algorithm>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "core/op.h"
#include "core/thread_state.h"

namespace tandem {

namespace {

using Names = std::unordered_map<std::string_view, Op*>;

/// The library's own ops, which are all there before anybody looks.
Names& own_ops() {
  static auto* map = new Names;
  return *map;
}
/// Users' ops, which may come at any time.
struct UserOps {
  std::mutex mutex;
  Names names;
};
UserOps& user_ops() {
  static auto* ops = new UserOps;
  return *ops;
}

}  // namespace

Op& OpTable::add(Op op) {
  TANDEM_ASSERT(!find(op.name), "op ", op.name, " is defined twice");
  const std::lock_guard lock(user_ops().mutex);
  op.id = static_cast<int>(ops_.size());
  auto* kept = new Op(op);  // ops live as long as the program
  ops_.push_back(kept);
  (op.user ? user_ops().names : own_ops())[kept->name] = kept;
  return *kept;
}

Op* OpTable::find(std::string_view name) {
  if (const auto found = own_ops().find(name); found != own_ops().end()) return found->second;
  const std::lock_guard lock(user_ops().mutex);
  const auto found = user_ops().names.find(name);
  return found == user_ops().names.end() ? nullptr : found->second;
}

Op& OpTable::at(std::string_view name) {
  Op* op = find(name);
  TANDEM_ASSERT(op, "no op is called ", name);
  return *op;
}

OpTable& op_table() {
  static OpTable* const table = [] {
    auto* filled = new OpTable;
    assemble(*filled);
    return filled;
  }();
  return *table;
}

std::string_view name_of(OpKind kind) {
  constexpr std::string_view names[] = {"pointwise", "reduce", "view",   "contract", "index", "random",
                                        "create",    "state",  "effect", "control",  "opaque"};
  return names[static_cast<int>(kind)];
}

// ---- Infer.

std::string_view Infer::name() const { return thread_state.caller ? thread_state.caller : op.name; }
std::string_view KernelContext::op_name() const { return op.name; }
void KernelContext::absent(const char* role, int i, size_t count) const {
  fail<ValueError>("the kernel asks for ", role, " ", i, " of ", count, ", which are counted from 0");
}
void KernelContext::wrong_type(const char* role, int i, DType has, DType asked) const {
  fail<DTypeError>(role, " ", i, " is ", has, ", but the kernel asks for ", asked,
                   "; check dtypes in infer, or look at dtype first");
}

Device Infer::device() const {
  for (const Tensor& input : inputs)
    if (!input.impl()->is_scalar) return input.device();
  return {};
}

void Infer::no_operand(int i) const {
  fail<ValueError>("infer asks for operand ", i, " of ", inputs.size(), ", which are counted from 0");
}

void Infer::run() {
  try {
    op.infer(*this);
  } catch (const ShapeError& error) {
    if (error.where() == where) throw;
    fail<ShapeError>(error.message());
  } catch (const DimensionError& error) {
    if (error.where() == where) throw;
    fail<DimensionError>(error.message());
  }
}

[[gnu::always_inline]] inline Tensor& Infer::next(DType dtype) {
  if (static_cast<size_t>(count_) >= outputs_.size()) [[unlikely]]
    fail<ValueError>("infer makes more than the ", outputs_.size(), " results of the op");
  TensorImpl* impl = TensorImpl::create();
  impl->dtype = dtype;
  impl->device = device();
  return outputs_[static_cast<size_t>(count_++)] = Tensor::adopt(impl);
}

Tensor& Infer::output(const Shape& shape, DType dtype) {
  Tensor& result = next(dtype);
  result.impl()->set_contiguous_layout(shape);
  return result;
}

Tensor& Infer::output(const Shape& shape, const Shape& strides, DType dtype) {
  Tensor& result = next(dtype);
  check_extents(shape);
  result.impl()->set_layout(shape, strides);
  return result;
}

Tensor& Infer::output(const Tensor& tensor) {
  if (!tensor.is_contiguous() && is_dense(tensor.shape(), tensor.strides()))
    return output(tensor.shape(), tensor.strides(), tensor.dtype());
  return output(tensor.shape(), tensor.dtype());
}

Tensor& Infer::view(const Shape& shape, const Shape& strides, int64_t offset) {
  Tensor& result = output(shape, strides, input(0).dtype());
  result.impl()->device = input(0).device();
  result.impl()->offset = offset;  // relative to the input; dispatch turns it into an alias
  return result;
}

int Infer::dim(const char* name, int rank) const {
  const int64_t dim = attributes.integer(name);
  check<DimensionError>(dim >= 0 && dim < std::max(rank, 1), name, " ", dim, " is out of range for rank ", rank);
  return static_cast<int>(dim);
}

const Shape& Infer::dims(const char* name) const {
  const Shape& dims = attributes.integers(name);
  uint32_t seen = 0;
  for (const int64_t d : dims) {
    check<DimensionError>(d >= 0 && d < input(0).rank(), "dim ", d, " is out of range for ", input(0).shape());
    check<DimensionError>(!(seen & (1u << d)), "dim ", d, " is named twice in ", dims);
    seen |= 1u << d;
  }
  return dims;
}

int64_t Infer::integer(const char* name, int64_t least, int64_t most) const {
  const int64_t value = attributes.integer(name);
  check<ValueError>(value >= least, name, " is ", value, ", need at least ", least);
  check<ValueError>(value <= most, name, " is ", value, ", need at most ", most);
  return value;
}

const Shape& Infer::integers(const char* name, int count, int64_t least, int64_t most) const {
  const Shape& values = attributes.integers(name);
  check<ValueError>(values.size() == count, name, " ", values, " must be ", count, " numbers");
  for (const int64_t value : values) {
    check<ValueError>(value >= least, name, " ", values, " must be at least ", least);
    check<ValueError>(value <= most, name, " ", values, " must be at most ", most);
  }
  return values;
}

void Infer::check_floating(int i) const {
  check<DTypeError>(is_floating(input(i).dtype()), "operand ", i, " must be floating, got ", input(i).dtype(),
                    "; cast it with to(float32)");
}

}  // namespace tandem

// The op table: filled at first use, family by family, then given its kernels.
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
void KernelContext::wrong_type(const char* role, int i, DType has, DType asked) const {
  fail<DTypeError>(role, " ", i, " is ", has, ", but the kernel asks for ", asked,
                   "; check dtypes in infer, or look at dtype first");
}

Device Infer::device() const {
  for (const Tensor& input : inputs)
    if (!input.impl()->is_scalar) return input.device();
  return {};
}

Tensor& Infer::output(const Shape& shape, DType dtype) {
  TensorImpl* impl = TensorImpl::create();
  impl->dtype = dtype;
  impl->device = device();
  impl->set_contiguous_layout(shape);
  return outputs_[static_cast<size_t>(count_++)] = Tensor::adopt(impl);
}

Tensor& Infer::output(const Shape& shape, const Shape& strides, DType dtype) {
  Tensor& result = output(shape, dtype);
  result.impl()->set_layout(shape, strides);
  return result;
}

Tensor& Infer::output(const Tensor& tensor) {
  Tensor& result = output(tensor.shape(), tensor.dtype());
  if (!tensor.is_contiguous() && is_dense(tensor.shape(), tensor.strides()))
    result.impl()->set_layout(tensor.shape(), tensor.strides());
  return result;
}

Tensor& Infer::view(const Shape& shape, const Shape& strides, int64_t offset) {
  Tensor& result = output(shape, input(0).dtype());
  result.impl()->device = input(0).device();
  result.impl()->set_layout(shape, strides);
  result.impl()->offset = offset;  // relative to the input; dispatch turns it into an alias
  return result;
}

int Infer::dim(int64_t dim, int rank) const {
  const int bound = rank == 0 ? 1 : rank;  // a 0-d tensor may be reduced over dim 0 or -1
  check<DimensionError>(dim >= -bound && dim < bound, "dim ", dim, " is out of range for rank ", rank, " (", -bound,
                        " to ", bound - 1, ")");
  return static_cast<int>(dim < 0 ? dim + bound : dim);
}

void Infer::check_floating(int i) const {
  check<DTypeError>(is_floating(input(i).dtype()), "operand ", i, " must be floating, got ", input(i).dtype(),
                    "; cast it with to(float32)");
}

}  // namespace tandem

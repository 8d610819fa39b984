// Running nodes with regions: each region is a program of its own, which the loops below call.
#include <algorithm>

#include "core/dispatch.h"
#include "graph/ir/at.h"
#include "graph/ir/region.h"
#include "graph/run/program.h"
#include "graph/run/regions.h"

namespace tandem::graph {

Program& GraphRegion::program() const {
  std::call_once(once_, [&] {
    if (!program_) program_ = Program::build(graph_, {.memory_plan = false}, Where(), nullptr);
  });
  return *program_;
}

namespace {

void copy_to(const Tensor& to, const Tensor& from, Where where) {
  static const Op& copy = find_op("copy");
  if (to.device() != from.device()) {  // a number of the host, for one on another device
    if (from.numel() != 1)
      throw GraphError(detail::str("run: a region gives ", type_of(from), ", and not on ", to.device()), where);
    const DeviceKind kind = to.device().is_cpu() ? from.device().kind : to.device().kind;
    return backend(kind).copy(to.impl()->data, to.device(), from.impl()->data, from.device(), size_of(from.dtype()));
  }
  run_kernel(copy, {&from, 1}, {}, {&to, 1}, where);
}

/// An element of one, on the host.
bool is_true(const Tensor& condition) {
  bool value = false;
  const Device device = condition.device();
  if (device.is_cpu()) return *static_cast<const bool*>(condition.impl()->data);
  backend(device.kind).copy(&value, cpu(), condition.impl()->data, device, sizeof value);
  return value;
}

/// A tensor of a layout that may have gaps.
Tensor with_room(const ValueType& type) {
  int64_t elements = type.shape.contains(0) ? 0 : 1;
  for (int d = 0; elements > 0 && d < type.shape.size(); ++d) elements += (type.shape[d] - 1) * type.strides[d];
  Tensor result = header_of(type);
  TensorImpl& impl = *result.impl();
  impl.storage = Storage::allocate(static_cast<size_t>(elements * size_of(type.dtype)), type.device);
  impl.data = impl.storage->data;
  return result;
}

/// A region on tensors that lie as its arguments do, which another pass may have laid out otherwise.
class Caller {
 public:
  Caller(const GraphRegion& region, Where where) : program_(region.program()), where_(where) {}

  Tensors operator()(Tensors arguments) {
    for (const Leaf& leaf : program_.plan().graph.leaves) {
      if (leaf.kind != LeafKind::argument || leaf.argument >= count(arguments)) continue;
      Tensor& given = at(arguments, leaf.argument);
      const ValueType& type = program_.plan().type(leaf.value);
      if (given.strides() == type.strides || given.impl()->is_scalar) continue;
      const Tensor laid_out = with_room(type);
      copy_to(laid_out, given, where_);
      given = laid_out;
    }
    return program_.run(arguments);
  }

 private:
  Program& program_;
  Where where_;
};

void cond_kernel(KernelContext& c) {
  Caller branch(region_of(c.attributes, is_true(c.inputs[0]) ? "then" : "otherwise"), c.where);
  const Tensors results = branch(Tensors(c.inputs.begin() + 1, c.inputs.end()));
  for (size_t i = 0; i < results.size(); ++i) copy_to(c.outputs[i], results[i], c.where);
}

void while_kernel(KernelContext& c) {
  Caller condition(region_of(c.attributes, "condition"), c.where), body(region_of(c.attributes, "body"), c.where);
  Tensors now(c.inputs.begin(), c.inputs.end());
  while (is_true(condition(now)[0])) {
    Tensors next = body(now);
    std::move(next.begin(), next.end(), now.begin());
  }
  for (size_t i = 0; i < c.outputs.size(); ++i) copy_to(c.outputs[i], now[i], c.where);
}

/// The element of a sequence that the turn is at: the same header, moved along.
class Element {
 public:
  explicit Element(const Tensor& sequence)
      : first_(static_cast<char*>(sequence.impl()->data)), step_(sequence.strides()[0] * size_of(sequence.dtype())),
        element_(header_of({sequence.dtype(), sequence.device(), without_first(sequence.shape()),
                            without_first(sequence.strides())})) {}
  const Tensor& at(int64_t turn) {
    element_.impl()->data = first_ + turn * step_;
    return element_;
  }

 private:
  static Shape without_first(const Shape& shape) {
    Shape rest;
    for (int d = 1; d < shape.size(); ++d) rest.push_back(shape[d]);
    return rest;
  }
  char* first_;
  int64_t step_;
  Tensor element_;
};

void scan_kernel(KernelContext& c) {
  const auto carried = static_cast<size_t>(c.attributes.integer("carried"));
  const auto sequences = static_cast<size_t>(c.attributes.integer("sequences"));
  const int64_t length = c.attributes.integer("length");
  const bool reverse = c.attributes.flag("reverse"), keeps = c.attributes.flag("keeps");
  Caller body(region_of(c.attributes, "body"), c.where);
  Tensors now(c.inputs.begin(), c.inputs.end());
  const size_t stacked = c.outputs.size() - (keeps ? 2 : 1) * carried;
  std::vector<Element> from, to, kept;
  for (size_t i = 0; i < sequences; ++i) from.emplace_back(c.inputs[carried + i]);
  for (size_t i = 0; i < stacked; ++i) to.emplace_back(c.outputs[carried + i]);
  for (size_t i = 0; keeps && i < carried; ++i) kept.emplace_back(c.outputs[carried + stacked + i]);
  for (int64_t i = 0; i < length; ++i) {
    const int64_t turn = reverse ? length - 1 - i : i;
    for (size_t k = 0; k < kept.size(); ++k) copy_to(kept[k].at(turn), now[k], c.where);
    for (size_t k = 0; k < sequences; ++k) now[carried + k] = from[k].at(turn);
    Tensors results = body(now);
    for (size_t k = 0; k < stacked; ++k) copy_to(to[k].at(turn), results[carried + k], c.where);
    for (size_t k = 0; k < carried; ++k) now[k] = std::move(results[k]);
  }
  for (size_t k = 0; k < carried; ++k) copy_to(c.outputs[k], now[k], c.where);
}

}  // namespace

void add_region_kernels(OpTable& table) {
  for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {  // the loops are the host's
    const tandem::Kernels kernels(table, device);
    kernels["cond"] = cond_kernel;
    kernels["while_loop"] = while_kernel;
    kernels["scan"] = scan_kernel;
  }
}

}  // namespace tandem::graph

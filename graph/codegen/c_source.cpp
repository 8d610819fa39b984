// C for the loops of fused kernels: a function for each segment, which the CPU runs in chunks, and one for the finish.
// Sums of floats run in double and are rounded once, as in the eager kernels: whatever the order, the result is all but
// always the same.
#include "graph/codegen/c_source.h"

#include <algorithm>

#include "graph/codegen/c_segment.h"

namespace tandem::graph {

bool KernelCall::resize(const LoopKernel& kernel) {
  numbers.clear();
  size_t number = 0;
  each_number(kernel, [&](const auto& each) {
    if (!kernel.at_run_time.empty() && kernel.at_run_time[number++]) numbers.push_back(bits_of(each));
  });
  each_site(kernel, [&](int64_t site) { numbers.push_back(site); });
  for (size_t i = 0; i < checks.size(); ++i) checks[i].check = kernel.checks[i];
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = kernel.segments[i];
    SegmentCall& call = segments[i];
    Shape domain = segment.rows;
    for (int64_t extent : segment.columns) domain.push_back(extent);
    const Shape inner = segment.by_row ? segment.columns : domain.size() <= 1 ? Shape() : Shape{domain.back()};
    const int64_t width = inner.numel();
    call.units = 1;
    call.elements_per_unit = width;
    for (int d = 0; d < domain.size() - inner.size(); ++d)
      call.units *= d == call.tile_dim ? (domain[d] + call.tile - 1) / call.tile : domain[d];
    if (call.tile_dim >= 0) call.elements_per_unit *= std::min(call.tile, domain[call.tile_dim]);
    call.scratch = call.scratch_per_column * ((width + 15) / 16 * 16);
    if (width > call.widest) return false;
    for (const Statement& s : segment.statements) {
      if (s.kind != LoopOp::check) continue;
      const Statement& operand = segment.statements[static_cast<size_t>(s.operands[0])];
      if (operand.kind != LoopOp::load) continue;
      CheckedLoad& checked = checks[static_cast<size_t>(s.check)];
      checked.buffer = operand.buffer;
      checked.position = operand.position;
      checked.extents = domain;
    }
  }
  return true;
}

KernelCall CSource::add(const LoopKernel& kernel) {
  KernelCall result;
  for (const ValueCheck& check : kernel.checks)
    result.checks.push_back({.check = check, .position = {}, .extents = {}});
  for (const Segment& segment : kernel.segments) {
    CSegment emitter(kernel, segment, helpers_);
    const std::string name = function(emitter.emit(), "s");
    result.segments.push_back(std::move(emitter.call));
    result.segments.back().name = name;
  }
  if (!kernel.finish.stores.empty()) {
    CSegment emitter(kernel, kernel.finish, helpers_);
    result.finish = function(emitter.emit_finish(), "f");
    result.finish_buffers = emitter.buffers();
  }
  result.resize(kernel);
  return result;
}

std::string CSource::text(std::vector<size_t>* cuts) const {
  if (empty()) return {};
  std::vector<size_t> starts;
  const std::string all = functions("void ", &starts);
  std::string head = prelude({"core/scalar/math.h", "core/scalar/gamma.h", "core/scalar/half.h",
                              "core/scalar/rounded.h", "core/scalar/philox.h"});
  for (const char* name : {"td_widen_f16(", "td_narrow_f16(", "td_uniforms(", "td_sum", "td_transpose"})
    if (all.find(name) != std::string::npos) {
      head += prelude({"core/scalar/strips.h"});
      break;
    }
  if (cuts)
    for (const size_t start : starts) cuts->push_back(start + head.size());
  return head + all;
}

}  // namespace tandem::graph

// The table of ops as text, made from the op table itself.
#include "lab/ops_table.h"

#include <algorithm>
#include <vector>

#include "core/op.h"

namespace tandem::lab {

namespace {

using Rows = std::vector<std::vector<std::string>>;

/// Whether the compiler can make it part of a generated kernel.
const char* fusible(const Op& op) {
  if (op.is_pointwise()) return "pointwise";
  if (op.kind == OpKind::view) return "view";
  if (op.fold) return "reduction";
  return op.decompose ? "decomposed" : "";
}

std::string count(int operands) { return operands == kVariadic ? "any" : std::to_string(operands); }

/// Ops by kind, then name: the order in which families register theirs says nothing to a reader.
std::vector<const Op*> sorted() {
  std::vector<const Op*> ops(op_table().all().begin(), op_table().all().end());
  std::erase_if(ops, [](const Op* op) { return op->user; });
  std::sort(ops.begin(), ops.end(), [](const Op* a, const Op* b) {
    return a->kind != b->kind ? a->kind < b->kind : std::string_view(a->name) < b->name;
  });
  return ops;
}

/// What a build with CUDA has, said by one that may be without.
const char* on_cuda(std::string_view name) {
  constexpr std::string_view on_host[] = {
#define TANDEM_CUDA_ON_HOST(op) #op,
#include "kernels/cuda/on_host.def"
  };
  return std::find(std::begin(on_host), std::end(on_host), name) != std::end(on_host) ? "host" : "yes";
}

Rows rows() {
  Rows result = {{"op", "kind", "operands", "results", "gradient", "CPU", "CUDA", "fusible", "ONNX"}};
  for (const Op* op : sorted()) {
    // A view has no kernel: it is another shape on the same memory, on every device.
    const bool view = op->kind == OpKind::view;
    result.push_back({op->name, std::string(name_of(op->kind)), count(op->inputs), count(op->outputs),
                      op->grad ? "yes" : "", view || kernel_for(*op, cpu()) ? "yes" : "", on_cuda(op->name),
                      fusible(*op), op->onnx ? op->onnx : ""});
  }
  return result;
}

std::vector<size_t> widths_of(const Rows& rows) {
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  return widths;
}

std::string padded(const std::string& text, size_t width) { return text + std::string(width - text.size(), ' '); }

}  // namespace

std::string ops_text() {
  const Rows table = rows();
  const std::vector<size_t> widths = widths_of(table);
  tandem::detail::TextStream out;
  for (const auto& row : table) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += padded(row[i], widths[i]) + "  ";
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << "\n";
  }
  out << table.size() - 1 << " ops\n";
  return out.str();
}

std::string ops_markdown() {
  const Rows table = rows();
  const std::vector<size_t> widths = widths_of(table);
  tandem::detail::TextStream out;
  out << "# Ops\n\n"
         "All "
      << table.size() - 1
      << " ops, made from the op table by `tandem ops --markdown`; don't edit.\n\n"
         "- **gradient**: has a gradient rule. The others are not differentiable, or are themselves the last step of "
         "one.\n"
         "- **CPU**, **CUDA**: runs there; \"host\": the host's kernel, on copies of the operands. A view has no "
         "kernel: "
         "it is another\n"
         "  shape on the same memory.\n"
         "- **fusible**: how the compiler makes it part of a generated kernel: as one scalar expression (pointwise), "
         "as an index\n"
         "  (view), as a row or column reduction, or after it is written out in simpler ops (decomposed).\n"
         "- **ONNX**: the operator that stands for it in an ONNX file.\n\n";
  const auto line = [&](const std::vector<std::string>& row) {
    out << "|";
    for (size_t i = 0; i < row.size(); ++i) out << " " << padded(row[i], widths[i]) << " |";
    out << "\n";
  };
  line(table[0]);
  out << "|";
  for (const size_t width : widths) out << std::string(width + 2, '-') << "|";
  out << "\n";
  for (size_t i = 1; i < table.size(); ++i) line(table[i]);
  out << "\n## Attributes\n\nOf an op's call, beside its operands. One that has no default and isn't optional must be "
         "given;\nan unknown one, or one of another type, is an error.\n\n";
  for (const Op* op : sorted())
    if (!op->attributes.empty()) out << "- **" << op->name << "**: " << to_string(op->attributes) << "\n";
  return out.str();
}

}  // namespace tandem::lab

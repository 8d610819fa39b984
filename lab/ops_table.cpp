// The table of ops as text, made from the op table itself.
#include "lab/ops_table.h"

#include <algorithm>
#include <sstream>
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

Rows rows(bool with_cuda) {
  Rows result = {{"op", "kind", "operands", "results", "gradient", "CPU"}};
  if (with_cuda) result[0].push_back("CUDA");
  result[0].insert(result[0].end(), {"fusible", "ONNX"});
  for (const Op* op : sorted()) {
    // A view has no kernel: it is another shape on the same memory, on every device.
    const bool view = op->kind == OpKind::view;
    std::vector<std::string> row = {op->name,
                                    std::string(name_of(op->kind)),
                                    count(op->inputs),
                                    std::to_string(op->outputs),
                                    op->grad ? "yes" : "",
                                    view || kernel_for(*op, cpu()) ? "yes" : ""};
    if (with_cuda) row.push_back(view || kernel_for(*op, {DeviceKind::cuda}) ? "yes" : "");
    row.push_back(fusible(*op));
    row.push_back(op->onnx ? op->onnx : "");
    result.push_back(std::move(row));
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
  const Rows table = rows(true);
  const std::vector<size_t> widths = widths_of(table);
  std::ostringstream out;
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
  const Rows table = rows(false);
  const std::vector<size_t> widths = widths_of(table);
  std::ostringstream out;
  out << "# Ops\n\n"
         "All "
      << table.size() - 1
      << " ops, made from the op table by `tandem ops --markdown`; don't edit. `tandem ops` also says which of them "
         "have a\n"
         "CUDA kernel in the build at hand.\n\n"
         "- **gradient**: has a gradient rule. The others are not differentiable, or are themselves the last step of "
         "one.\n"
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
  return out.str();
}

}  // namespace tandem::lab

// summary: a model's layers, the shapes of their outputs, and how many parameters they have, as a table.
#include "nn/summary.h"

#include <algorithm>
#include <iomanip>
#include <ostream>
#include <unordered_map>
#include <unordered_set>

#include "core/ops/ops.h"

namespace tandem::nn {

using tandem::detail::str;

namespace {

/// Lets ops decide the shapes of their results, and runs no kernel. Notes which layer's parameters each op reads.
class ShapesOnly final : public Interceptor {
 public:
  /// The row that a parameter belongs to.
  void own(const Tensor& parameter, size_t row) {
    owners_[parameter.impl()] = row;
    kept_.push_back(parameter);
  }
  const std::unordered_map<size_t, Shape>& outputs() const { return outputs_; }

  void run(const Op&, std::span<const Tensor> inputs, const Attributes&, std::span<Tensor> outputs, Where) override {
    const Tensor* parameter = nullptr;
    bool only_parameters = true;
    for (const Tensor& input : inputs) {
      if (owners_.count(input.impl())) parameter = parameter ? parameter : &input;
      else only_parameters = only_parameters && input.impl()->is_scalar;
    }
    for (Tensor& output : outputs) {
      output.impl()->offset = 0;
      output.impl()->trace = kTrace;
      kept_.push_back(output);  // no address is used twice
    }
    if (!parameter) return;
    if (only_parameters) {  // a transposed weight, the sum of two biases: as good as a parameter
      for (const Tensor& output : outputs) owners_[output.impl()] = owners_[parameter->impl()];
      return;
    }
    for (const Tensor& input : inputs)
      if (const auto owner = owners_.find(input.impl()); owner != owners_.end())
        outputs_[owner->second] = outputs[0].shape();
  }
  void assign(const Tensor&, const Tensor&, Where) override {}
  void value_needed(const Tensor& tensor, const char* wanted_by, Where where) override {
    throw TraceError(str(wanted_by, ": nn::summary computes shapes only, and this model asks for the value of a ",
                         tensor.shape(), ": call nn::summary(model) without inputs"),
                     where);
  }
  void gradient_read(TensorImpl&) override {}
  void gradient_written(TensorImpl&) override {}
  void flag_read(const bool&) override {}
  void constant(const Tensor&) override {}
  int64_t draw() override { return 0; }

  static constexpr uint64_t kTrace = ~uint64_t{0};  // of no trace

 private:
  std::unordered_map<const TensorImpl*, size_t> owners_;
  std::unordered_map<size_t, Shape> outputs_;  ///< by row
  Tensors kept_;
};

bool is_inside(const std::string& name, const std::string& path) {
  return path.empty() || name == path ||
         (name.size() > path.size() && name.compare(0, path.size(), path) == 0 && name[path.size()] == '.');
}

/// 203,530
std::string grouped(int64_t number) {
  std::string text = std::to_string(number);
  for (int at = static_cast<int>(text.size()) - 3; at > 0; at -= 3) text.insert(static_cast<size_t>(at), ",");
  return text;
}

}  // namespace

Tensor detail::without_values(const Shape& shape, DType dtype) {
  TensorImpl* impl = TensorImpl::create();
  Tensor result = Tensor::adopt(impl);
  impl->dtype = dtype;
  impl->set_contiguous_layout(shape);
  impl->trace = ShapesOnly::kTrace;
  return result;
}

Summary detail::summarise(const Visitor& visitor, const std::function<void()>& call) {
  if (interceptor()) throw TraceError("nn::summary: not for the inside of a compiled function", Where::current());
  const std::vector<Visitor::Layer>& layers = visitor.layers();
  Summary result;
  ShapesOnly shapes;
  std::vector<bool> has_own(layers.size()), has_parts(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    result.rows.push_back({layers[i].name, std::string(layers[i].type), {}, 0});
    for (size_t j = 0; j < layers.size(); ++j)
      has_parts[i] = has_parts[i] || (i != j && j > i && is_inside(layers[j].name, layers[i].name));
  }
  std::unordered_set<const TensorImpl*> seen;
  for (const Visitor::Leaf& leaf : visitor.tensors()) {
    const Tensor& tensor = *leaf.tensor;
    if (!seen.insert(tensor.impl()).second) continue;
    (tensor.requires_grad() ? result.parameters : result.buffers) += tensor.numel();
    result.bytes += tensor.numel() * size_of(tensor.dtype());
    for (size_t i = layers.size(); i-- > 0;) {  // the last that it is inside of is the innermost
      if (!is_inside(leaf.name, layers[i].name)) continue;
      has_own[i] = true;
      if (tensor.requires_grad()) result.rows[i].parameters += tensor.numel();
      shapes.own(tensor, i);
      break;
    }
  }
  if (call) {
    NoGrad no_grad;
    const InterceptorScope installed(&shapes);
    call();
  }
  for (const auto& [row, shape] : shapes.outputs()) result.rows[row].output = shape;
  std::vector<SummaryRow> shown;
  for (size_t i = 0; i < layers.size(); ++i)
    if (has_own[i] || !has_parts[i]) shown.push_back(std::move(result.rows[i]));
  result.rows = std::move(shown);
  return result;
}

std::ostream& operator<<(std::ostream& out, const Summary& summary) {
  std::vector<std::vector<std::string>> lines{{"layer", "type", "output", "parameters"}};
  for (const SummaryRow& row : summary.rows)
    lines.push_back({row.name.empty() ? "(model)" : row.name, row.type, row.output ? str(*row.output) : "",
                     row.parameters ? grouped(row.parameters) : ""});
  size_t width[4] = {};
  for (const auto& line : lines)
    for (size_t i = 0; i < 4; ++i) width[i] = std::max(width[i], line[i].size());
  const auto fill = [](size_t count) { return std::string(count, ' '); };
  for (const auto& line : lines) {
    for (size_t i = 0; i < 3; ++i) out << line[i] << fill(width[i] - line[i].size() + 2);
    out << fill(width[3] - line[3].size()) << line[3] << "\n";
  }
  out << grouped(summary.parameters) << " parameters";
  if (summary.buffers) out << " and " << grouped(summary.buffers) << " elements that aren't trained";
  return out << ", " << grouped(summary.bytes) << " bytes\n";
}

}  // namespace tandem::nn

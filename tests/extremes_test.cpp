// Extreme numbers: every op of the table on its samples, with extreme integers in every attribute that is an integer or a list
// of them, and extreme floats in the others, and with operands that don't fit each other; and every public function that takes
// integers. A call gives a result that could be right, or an error of ours that names this file's line. Under the sanitizers it
// also touches no memory but its own.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <set>

#include "autograd/autograd.h"
#include "autograd/checkpoint.h"
#include "core/custom_op.h"
#include "core/dispatch.h"
#include "data/byte_text.h"
#include "data/tensor_dataset.h"
#include "graph/trace/compile.h"
#include "nn/nn.h"
#include "samples/case.h"

namespace td = tandem;
using namespace tandem::samples;
using td::Tensor;
using td::Tensors;

namespace {

constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kIntegers[] = {0,
                                 1,
                                 -1,
                                 2,
                                 int64_t{1} << 31,
                                 -(int64_t{1} << 31),
                                 int64_t{1} << 32,
                                 (int64_t{1} << 32) + 1,
                                 int64_t{1} << 40,
                                 int64_t{1} << 62,
                                 -(int64_t{1} << 62),
                                 kMax - 1,
                                 kMax,
                                 kMin + 1,
                                 kMin};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNumbers[] = {0.0,
                               -0.0,
                               1.0,
                               -1.0,
                               0.5,
                               kInfinity,
                               -kInfinity,
                               1e308,
                               -1e308,
                               std::numeric_limits<double>::denorm_min(),
                               std::numeric_limits<double>::quiet_NaN()};

/// What may be reserved in a scope.
struct MemoryLimit {
  explicit MemoryLimit(int64_t bytes) {
    td::trim_memory();
    td::set_memory_limit(td::memory_stats().reserved + bytes);
  }
  ~MemoryLimit() { td::set_memory_limit(0); }
};

/// Runs ops eagerly, and keeps what they were called with.
class Calls : public td::Interceptor {
 public:
  struct Call {
    const td::Op* op;
    Tensors inputs;
    td::Attributes attributes;
  };
  std::vector<Call> made;

  void run(const td::Op& op, std::span<const Tensor> inputs, const td::Attributes& attributes,
           std::span<Tensor> outputs, td::Where where) override {
    made.push_back({&op, {inputs.begin(), inputs.end()}, attributes});
    if (op.kind == td::OpKind::view) {
      td::TensorImpl& view = *outputs[0].impl();
      return view.alias(*inputs[0].impl(), std::exchange(view.offset, 0));
    }
    for (Tensor& output : outputs) output.impl()->allocate();
    td::run_kernel(op, inputs, attributes, outputs, where);
  }
  void assign(const Tensor&, const Tensor&, td::Where) override {}
  [[noreturn]] void value_needed(const Tensor&, const char*, td::Where where) override {
    throw td::TraceError("a value is read", where);
  }
  void gradient_read(td::TensorImpl&) override {}
  void gradient_written(td::TensorImpl&) override {}
  void flag_read(const bool&) override {}
  void constant(const Tensor&) override {}
  int64_t draw() override { return 0; }
};

/// Extents that may be, within the storage; and all elements can be read, if they are few.
void check_result(const Tensor& x) {
  const td::Shape &shape = x.shape(), &strides = x.strides();
  REQUIRE_NOTHROW(td::check_extents(shape));
  if (shape.numel() == 0) return;
  int64_t last = x.impl()->offset;
  REQUIRE(last >= 0);
  for (int d = 0; d < shape.size(); ++d) {
    REQUIRE((strides[d] >= 0 || shape[d] == 1));
    if (shape[d] > 1) last += (shape[d] - 1) * strides[d];
  }
  REQUIRE((last + 1) * td::size_of(x.dtype()) <= static_cast<int64_t>(x.impl()->storage->bytes));
  if (shape.numel() <= 10000) x.to_vector<double>();
}

struct Tally {
  int64_t calls = 0, refused = 0, bad = 0;

  /// The call gives tensors, or raises an error of ours at `line` of this file.
  template <class Describe, class F> void attempt(uint32_t line, const Describe& describe, F&& call) {
    ++calls;
    try {
      for (const Tensor& result : call())
        if (result.defined()) check_result(result);
    } catch (const td::Error& error) {
      ++refused;
      const bool here = error.where().line() == line && std::strstr(error.where().file_name(), "extremes_test.cpp");
      if (!here) complain(describe(), std::string("the line is not named: ") + error.what());
    } catch (const std::exception& error) { complain(describe(), std::string("untyped: ") + error.what()); }
  }
  void complain(const std::string& call, const std::string& why) {
    constexpr int64_t kShown = 40;
    if (++bad <= kShown) FAIL_CHECK(call << ": " << why);
  }
  std::string text() const {
    return td::detail::str(calls, " calls: ", calls - refused, " gave a result, ", refused, " were refused, ", bad,
                           " were wrong");
  }
};

std::string text_of(const td::Op& op, const Tensors& inputs, const td::Attributes& attributes) {
  std::string text = op.name;
  for (const Tensor& input : inputs) text += td::detail::str(" ", input.dtype(), input.shape());
  for (const td::Attribute& each : attributes) text += td::detail::str(" ", each.name, " = ", to_string(each.value));
  return text;
}

/// The attribute with each extreme value: in its place, in each of its places, and in all of them.
std::vector<td::AttributeValue> extremes_of(const td::AttributeValue& value) {
  std::vector<td::AttributeValue> result;
  if (std::holds_alternative<int64_t>(value))
    for (const int64_t extreme : kIntegers) result.push_back(extreme);
  if (std::holds_alternative<double>(value))
    for (const double extreme : kNumbers) result.push_back(extreme);
  if (const auto* list = std::get_if<td::Shape>(&value)) {
    for (const int64_t extreme : kIntegers) {
      for (int i = 0; i < list->size(); ++i) {
        td::Shape changed = *list;
        changed[i] = extreme;
        result.push_back(changed);
      }
      result.push_back(td::Shape::filled(list->size(), extreme));
    }
    td::Shape longer = *list, shorter = *list;
    if (longer.size() < td::kMaxRank) longer.push_back(1), result.push_back(longer);
    if (!shorter.empty()) shorter.erase(0), result.push_back(shorter);
    result.push_back(td::Shape());
  }
  return result;
}

/// Calls of ops in the samples, each once.
std::vector<Calls::Call> calls_of_samples() {
  const char* const only = std::getenv("TANDEM_TEST_OP");
  std::vector<Calls::Call> calls;
  std::set<std::string> seen;  // calls that differ in values alone
  const Samples samples = all_samples();
  for (const Sample& sample : samples) {
    if (sample.large) continue;
    const td::DType dtype = sample.dtypes.empty() ? td::float32 : sample.dtypes[0];
    const Case each(sample, dtype, LayoutChoice(sample.operands.size(), Layout::contiguous), td::Device{});
    Calls recorded;
    try {
      const td::InterceptorScope scope(&recorded);
      each.call(each.bases());
    } catch (const td::TraceError&) {}
    for (const Calls::Call& call : recorded.made) {
      if (call.op->user || (only && std::string(only) != call.op->name)) continue;
      if (seen.insert(text_of(*call.op, call.inputs, call.attributes)).second) calls.push_back(call);
    }
  }
  return calls;
}

/// The op eagerly, on these operands.
void attempt(Tally& tally, const td::Op& op, const Tensors& inputs, const td::Attributes& attributes) {
  Tensors outputs(static_cast<size_t>(op.outputs));
  const td::Where here = td::Where::current();
  tally.attempt(
      here.line(), [&] { return text_of(op, inputs, attributes); },
      [&] {
        dispatch(op, inputs, attributes, outputs, here);
        return outputs;
      });
}

}  // namespace

TEST_CASE("extreme attributes: every op gives a result that could be right, or an error with the line") {
  const MemoryLimit limit(32 << 20);
  Tally tally;
  std::set<std::string> ops;
  for (const Calls::Call& call : calls_of_samples()) {
    ops.insert(call.op->name);
    for (const td::Attribute& attribute : call.attributes) {
      for (td::AttributeValue& value : extremes_of(attribute.value)) {
        td::Attributes changed = call.attributes;
        changed.set({attribute.name, std::move(value)});
        attempt(tally, *call.op, call.inputs, changed);
      }
    }
    for (const int64_t extreme : kIntegers) {  // in all of them
      td::Attributes changed = call.attributes;
      for (const td::Attribute& attribute : call.attributes) {
        if (std::holds_alternative<int64_t>(attribute.value)) changed.set({attribute.name, extreme});
        if (const auto* list = std::get_if<td::Shape>(&attribute.value))
          changed.set({attribute.name, td::Shape::filled(list->size(), extreme)});
      }
      if (!(changed == call.attributes)) attempt(tally, *call.op, call.inputs, changed);
    }
  }
  std::cout << "extreme attributes: " << ops.size() << " ops, " << tally.text() << "\n";
}

namespace {

/// The operand in shapes, and types, that may not fit the others.
std::vector<Tensor> others_of(const Tensor& operand) {
  std::vector<Tensor> result;
  const auto add = [&](const td::Shape& shape) { result.push_back(td::ones(shape, {.dtype = operand.dtype()})); };
  for (int d = 0; d < operand.rank(); ++d) {
    for (const int64_t extent : {operand.size(d) + 1, operand.size(d) - 1, int64_t{0}, int64_t{1}, int64_t{40}}) {
      if (extent < 0 || extent == operand.size(d)) continue;
      td::Shape shape = operand.shape();
      shape[d] = extent;
      add(shape);
    }
    td::Shape shorter = operand.shape();
    shorter.erase(d);
    add(shorter);
  }
  if (operand.rank() < 5) {
    td::Shape longer = operand.shape();
    longer.push_back(2);
    add(longer);
  }
  add({});
  for (const td::DType dtype : {td::float32, td::float64, td::bfloat16, td::int64, td::bool_})
    if (dtype != operand.dtype()) result.push_back(operand.to(dtype));
  return result;
}

}  // namespace

TEST_CASE("operands that don't fit: every op gives a result that could be right, or an error with the line") {
  constexpr int kCalls = 6;  // of an op
  const MemoryLimit limit(32 << 20);
  const td::PrintHandler printing = td::set_print_handler({});
  Tally tally;
  std::map<std::string, int> ops;
  for (const Calls::Call& call : calls_of_samples()) {
    if (ops[call.op->name]++ >= kCalls) continue;
    for (size_t i = 0; i < call.inputs.size(); ++i)
      for (const Tensor& other : others_of(call.inputs[i])) {
        Tensors inputs = call.inputs;
        inputs[i] = other;
        attempt(tally, *call.op, inputs, call.attributes);
      }
  }
  td::set_print_handler(printing);
  std::cout << "operands that don't fit: " << ops.size() << " ops, " << tally.text() << "\n";
}

namespace {

struct Function {
  const char* name;
  uint32_t line;
  std::function<Tensors(int64_t, int64_t)> call;
};

Tensors many(const td::ValuesAndIndices& x) { return {x.values, x.indices}; }
Tensors many(const Tensor& x) { return {x}; }
Tensors many(const Tensors& x) { return x; }
/// Of what gives no tensor.
template <class T> Tensors many(const T&) { return {}; }

#define FUNCTION(...)                                                                             \
  {                                                                                               \
#__VA_ARGS__, __LINE__, [=](int64_t i, int64_t j) { (void)i, (void)j; return many(__VA_ARGS__); } \
  }

std::vector<Function> functions() {
  const Tensor x = td::rand({4, 3}), image = td::rand({2, 4, 5, 6}), line = td::rand({2, 4, 6}),
               volume = td::rand({1, 4, 3, 4, 3}), none = td::ones({0, 3}), number = td::ones({}),
               weight = td::rand({4, 2, 3, 2}), line_weight = td::rand({4, 2, 3}),
               deep_weight = td::rand({4, 2, 2, 3, 2}),
               wide = td::ones({1, 1}).expand({int64_t{1} << 20, int64_t{1} << 30});
  const Tensor ids = td::arange(3);
  static float memory[12];
  static char* const nowhere = reinterpret_cast<char*>(memory);
  return {
      FUNCTION(td::zeros({i, j})),
      FUNCTION(td::empty({i, j, 3})),
      FUNCTION(td::full({2, i, j}, 3)),
      FUNCTION(td::ones({i}, {.dtype = td::uint8})),
      FUNCTION(td::rand({i, j})),
      FUNCTION(td::randn({i, j}, {.dtype = td::float16})),
      FUNCTION(td::randint(i, j, {3})),
      FUNCTION(td::randint(0, 2, {i, j})),
      FUNCTION(td::randint(i, j, {3}, {.dtype = td::int32})),
      FUNCTION(td::randperm(i)),
      FUNCTION(td::eye(i, j)),
      FUNCTION(td::eye(i)),
      FUNCTION(td::arange(i)),
      FUNCTION(td::arange(i, j)),
      FUNCTION(td::arange(i, j, int64_t{1} << 61)),
      FUNCTION(td::arange(i, 100, j)),
      FUNCTION(td::arange(-3, i, j, {.dtype = td::float32})),
      FUNCTION(td::arange(static_cast<double>(i), static_cast<double>(j), 0.5)),
      FUNCTION(td::linspace(-1, 1, i)),
      FUNCTION(td::linspace(static_cast<double>(i), static_cast<double>(j), 5)),
      FUNCTION((i == 1 && j == 1) || i == 0 || j == 0 ? td::from_blob(memory, {i, j}) : td::from_blob(nullptr, {i, j})),
      FUNCTION(td::bernoulli(0.5, {i, j})),
      FUNCTION(td::normal(0, 1, {i, j})),
      FUNCTION(td::multinomial(x, i, {.replacement = j != 0})),
      FUNCTION(x.reshape({i, j})),
      FUNCTION(x.reshape({i, -1, j})),
      FUNCTION(none.reshape({i, j, 0})),
      FUNCTION(x.flatten(i, j)),
      FUNCTION(x.transpose(i, j)),
      FUNCTION(x.permute({i, j})),
      FUNCTION(x.slice(0, i, j)),
      FUNCTION(x.slice(i, 0, 2, j)),
      FUNCTION(x.slice(1, 0, i, j)),
      FUNCTION(wide.slice(1, i, kMax, j)),
      FUNCTION(x[i]),
      FUNCTION(x.expand({i, j})),
      FUNCTION(x.expand({i, 4, 3})),
      FUNCTION(number.expand({i, j})),
      FUNCTION(none.expand({i, 0, j})),
      FUNCTION(x.squeeze(i)),
      FUNCTION(x.unsqueeze(i)),
      FUNCTION(x.select(i, j)),
      FUNCTION(x.narrow(0, i, j)),
      FUNCTION(x.narrow(i, j, 1)),
      FUNCTION(x.diagonal(i)),
      FUNCTION(x.diagonal(0, i, j)),
      FUNCTION(wide.diagonal(i)),
      FUNCTION(td::diagonal_grad(td::ones({3}), {i, j}, 0, 0, 1)),
      FUNCTION(x.movedim({i}, {j})),
      FUNCTION(x.split(i, j)),
      FUNCTION(x.split({i, j, 4}, 0)),
      FUNCTION(x.split({i, j, 8}, 0)),
      FUNCTION(x.chunk(i, j)),
      FUNCTION(x.unbind(i)),
      FUNCTION(x.flip({i, j})),
      FUNCTION(x.roll(i)),
      FUNCTION(x.roll({i}, {j})),
      FUNCTION(x.repeat({i, j})),
      FUNCTION(x.repeat({2, i, j})),
      FUNCTION(none.repeat({i, j})),
      FUNCTION(image.repeat({i, 2, 2, 2, 2, j, 2})),
      FUNCTION(x.repeat_interleave(i, j)),
      FUNCTION(x.tril(i)),
      FUNCTION(x.triu(i)),
      FUNCTION(x.gather(i, td::zeros({1, 1}, {.dtype = td::int64}))),
      FUNCTION(x.gather(0, td::full({1, 1}, 0, {.dtype = td::int64}) + i)),
      FUNCTION(x.scatter(i, td::zeros({1, 1}, {.dtype = td::int64}), 1)),
      FUNCTION(x.scatter(1, td::zeros({1, 1}, {.dtype = td::int64}) + i, 1)),
      FUNCTION(td::scatter_add(x, i, td::zeros({4, 3}, {.dtype = td::int64}), td::Shape{4, j})),
      FUNCTION(x.index_select(i, ids + j)),
      FUNCTION(x.index_add(i, ids + j, x.slice(0, 0, 3))),
      FUNCTION(take(x, ids + j, i)),
      FUNCTION(embedding(ids + i, x)),
      FUNCTION(one_hot(ids + j, i)),
      FUNCTION(one_hot(none.to(td::int64), i)),
      FUNCTION(x.sum({i, j})),
      FUNCTION(number.sum(i)),
      FUNCTION(x.max(i)),
      FUNCTION(x.var(i)),
      FUNCTION(x.norm(i)),
      FUNCTION(x.logsumexp(i)),
      FUNCTION(x.argmax(i)),
      FUNCTION(number.argmin(i)),
      FUNCTION(td::max_with_index(x, i)),
      FUNCTION(x.cumsum(i)),
      FUNCTION(x.cumprod(i)),
      FUNCTION(cummax(x, i)),
      FUNCTION(cummin(number, i)),
      FUNCTION(mode(x, i)),
      FUNCTION(
          scatter_reduce(x, i, td::zeros({1, 1}, {.dtype = td::int64}) + j, td::ones({1, 1}), td::ScatterReduce::prod)),
      FUNCTION(bitwise_left_shift(ids + i, j)),
      FUNCTION(bitwise_right_shift(ids + i, j)),
      FUNCTION(polygamma(i, x - j)),
      FUNCTION(x.sort(i)),
      FUNCTION(x.topk(i, j)),
      FUNCTION(number.topk(i, j)),
      FUNCTION(softmax(x, i)),
      FUNCTION(log_softmax(x, i)),
      FUNCTION(td::concat({x, x}, i)),
      FUNCTION(td::concat({wide, wide, wide, wide, wide, wide, wide, wide, wide, wide, wide, wide}, i)),
      FUNCTION(td::stack({x, x}, i)),
      FUNCTION(td::stack({wide, wide, wide, wide, wide, wide, wide, wide, wide, wide, wide, wide}, i)),
      FUNCTION(pad(x, {i, j})),
      FUNCTION(pad(x, {i, j, j, i})),
      FUNCTION(pad(x, {i, j}, {.mode = td::PadMode::reflect})),
      FUNCTION(pad(x, {i, j}, {.mode = td::PadMode::replicate})),
      FUNCTION(pad(x, {i, j}, {.mode = td::PadMode::circular})),
      FUNCTION(conv2d(image, weight, {}, {.stride = {i, j}, .groups = 2})),
      FUNCTION(conv2d(image, weight, {}, {.padding = {i, j}, .groups = 2})),
      FUNCTION(conv2d(image, weight, {}, {.stride = i, .padding = j, .groups = 2})),
      FUNCTION(conv2d(image, weight, {}, {.dilation = {i, j}, .groups = 2})),
      FUNCTION(conv2d(image, weight, {}, {.padding = i, .dilation = j, .groups = 2})),
      FUNCTION(conv2d(image, weight, {}, {.groups = i})),
      FUNCTION(conv1d(line, line_weight, {}, {.stride = i, .padding = j, .groups = 2})),
      FUNCTION(conv1d(line, line_weight, {}, {.dilation = i, .groups = j})),
      FUNCTION(conv3d(volume, deep_weight, {}, {.stride = {i, 1, j}, .groups = 2})),
      FUNCTION(conv3d(volume, deep_weight, {}, {.padding = {i, j, 0}, .groups = 2})),
      FUNCTION(conv3d(volume, deep_weight, {}, {.padding = {0, i, j}, .groups = 2})),
      FUNCTION(conv3d(volume, deep_weight, {}, {.padding = i, .dilation = j, .groups = 2})),
      FUNCTION(conv3d(volume, deep_weight, {}, {.padding = td::Padding::same, .dilation = {i, j, 1}, .groups = 2})),
      FUNCTION(conv3d(volume, deep_weight, {}, {.groups = i})),
      FUNCTION(max_pool3d(volume, {i, j, 1})),
      FUNCTION(max_pool3d(volume, 2, {.stride = {i, 1, j}})),
      FUNCTION(max_pool3d(volume, i, {.stride = 1, .padding = j})),
      FUNCTION(max_pool3d(volume, i, {.stride = 1, .dilation = j, .ceil_mode = true})),
      FUNCTION(avg_pool3d(volume, {1, i, j})),
      FUNCTION(avg_pool3d(volume, 2, {.stride = i, .ceil_mode = true, .divisor_override = j})),
      FUNCTION(avg_pool3d(volume, i, {.stride = 1, .padding = j})),
      FUNCTION(adaptive_avg_pool3d(volume, {i, j, 1})),
      FUNCTION(unfold(image, {i, j})),
      FUNCTION(unfold(image, 2, {.stride = i, .padding = j})),
      FUNCTION(unfold(image, 2, {.padding = i, .dilation = j})),
      FUNCTION(fold(td::ones({1, 4, 6}), {i, j}, 2)),
      FUNCTION(fold(td::ones({1, 4, 6}), 4, {i, j})),
      FUNCTION(fold(td::ones({1, 4, 6}), 4, 2, {.stride = i, .padding = j})),
      FUNCTION(fold(td::ones({0, 4, 6}), {i, 4}, 2, {.padding = j})),
      FUNCTION(affine_grid(td::ones({1, 2, 3}), {1, 1, i, j})),
      FUNCTION(ctc_loss(line, ids.slice(0, 0, 2).expand({4, 2}), td::full({4}, 2, {.dtype = td::int64}) * 0 + i,
                        td::zeros({4}, {.dtype = td::int64}) + j)),
      FUNCTION(ctc_loss(line, ids.slice(0, 0, 2).expand({4, 2}) + i, td::ones({4}, {.dtype = td::int64}),
                        td::ones({4}, {.dtype = td::int64}), {.blank = j})),
      FUNCTION(conv_transpose2d(image, weight, {}, {.stride = {i, j}})),
      FUNCTION(conv_transpose2d(image, weight, {}, {.stride = i, .padding = j})),
      FUNCTION(conv_transpose2d(image, weight, {}, {.stride = i, .output_padding = j})),
      FUNCTION(conv_transpose2d(image, weight, {}, {.dilation = i, .groups = j})),
      FUNCTION(conv_transpose1d(line, line_weight, {}, {.stride = i, .padding = j})),
      FUNCTION(conv_transpose1d(line, line_weight, {}, {.dilation = i, .groups = j})),
      FUNCTION(max_pool2d(image, {i, j})),
      FUNCTION(max_pool2d(image, 2, {.stride = {i, j}})),
      FUNCTION(max_pool2d(image, i, {.stride = 2, .padding = j})),
      FUNCTION(max_pool1d(line, i, {.stride = j})),
      FUNCTION(avg_pool2d(image, {i, j})),
      FUNCTION(avg_pool2d(image, 2, {.stride = {i, j}})),
      FUNCTION(avg_pool2d(image, i, {.stride = 2, .padding = j})),
      FUNCTION(avg_pool1d(line, i, {.stride = j})),
      FUNCTION(adaptive_avg_pool2d(image, {i, j})),
      FUNCTION(adaptive_max_pool2d(image, {i, j})),
      FUNCTION(interpolate(image, {.size = {i, j}})),
      FUNCTION(interpolate(image, {.size = {i, j}, .mode = td::Interpolation::bilinear, .align_corners = true})),
      FUNCTION(interpolate(image, {.size = {i, j}, .mode = td::Interpolation::bicubic})),
      FUNCTION(interpolate(image, {.scale_factor = static_cast<double>(i)})),
      FUNCTION(pixel_shuffle(image, i)),
      FUNCTION(pixel_shuffle(td::ones({1, 0, 2, 2}), i)),
      FUNCTION(max_pool2d(image, i, {.stride = j, .ceil_mode = true})),
      FUNCTION(max_pool2d(image, i, {.stride = 1, .dilation = j})),
      FUNCTION(avg_pool2d(image, i, {.stride = j, .ceil_mode = true})),
      FUNCTION(avg_pool2d(image, 2, {.stride = i, .divisor_override = j})),
      FUNCTION(adaptive_avg_pool1d(line, i)),
      FUNCTION(adaptive_max_pool1d(line, i)),
      FUNCTION(pixel_unshuffle(image, i)),
      FUNCTION(pixel_unshuffle(td::ones({1, 4, 0, 0}), i)),
      FUNCTION(channel_shuffle(image, i)),
      FUNCTION(conv2d(image, weight, {}, {.padding = td::Padding::same, .dilation = {i, j}, .groups = 2})),
      FUNCTION(local_response_norm(image, i)),
      FUNCTION(unflatten(x, i, {j, -1})),
      FUNCTION(unflatten(x, 0, {i, j, 2})),
      FUNCTION(as_strided(x, {i, j}, {1, 1})),
      FUNCTION(as_strided(x, {2, 2}, {i, j})),
      FUNCTION(as_strided(x, {2, 1}, {i, 1}, j)),
      FUNCTION(slice_scatter(x, td::ones({1, 3}), 0, i, j)),
      FUNCTION(select_scatter(x, td::ones({3}), i, j)),
      FUNCTION(diagonal_scatter(x, td::ones({3}), i)),
      FUNCTION(tensor_split(x, i, j)),
      FUNCTION(rot90(x, i, {j, 0})),
      FUNCTION(unfold(x, 0, i, j)),
      FUNCTION(unfold(x, i, j, 1)),
      FUNCTION(diff(x, i, j)),
      FUNCTION(diag_embed(x, i)),
      FUNCTION(diag_embed(x, 0, i, j)),
      FUNCTION(diag(x, i)),
      FUNCTION(kthvalue(x, i, j)),
      FUNCTION(median(x, i)),
      FUNCTION(quantile(x, 0.5, i)),
      FUNCTION(histc(x, i)),
      FUNCTION(tensordot(x, x, i)),
      FUNCTION(tensordot(x, x, {i}, {j})),
      FUNCTION(nonzero(x, {.size = i, .fill = j})),
      FUNCTION(masked_select(x, x > 0.5, i)),
      FUNCTION(bincount(ids, {.minlength = i, .size = j})),
      FUNCTION(bincount(ids + i, {.minlength = j})),
      FUNCTION(take_along_dim(x, td::zeros({1, 1}, {.dtype = td::int64}) + j, i)),
      FUNCTION(index_fill(x, i, ids + j, 1)),
      FUNCTION(glu(td::ones({2, 2}), i)),
      FUNCTION(repeat_interleave(x, td::zeros({4}, {.dtype = td::int64}) + i, 0)),
      FUNCTION(repeat_interleave(x, ids, i, j)),
      FUNCTION(group_norm(image, i)),
      FUNCTION(cosine_similarity(x, x, i)),
      FUNCTION(x + td::ones({4, 3}).expand({i, j})),
      FUNCTION(x + i),
      FUNCTION(x * i - j),
      FUNCTION(ids * i - j),
      FUNCTION(ids.clamp(i, j)),
      FUNCTION(matmul(td::ones({1, 2}).expand({i, 2}), td::ones({2, 1}).expand({2, j}))),
      FUNCTION(outer(number.expand({i}), number.expand({j}))),
      FUNCTION(td::einsum("i,j->ij", {number.expand({i}), number.expand({j})})),
      FUNCTION(number.expand({i}).unsqueeze(0) + number.expand({j}).unsqueeze(1)),
      FUNCTION(td::Shape{i, j}.numel()),
      FUNCTION(x.shape()[i]),
      FUNCTION(x.size(i)),
      FUNCTION(cross_entropy(x, td::zeros({4}, {.dtype = td::int64}) + i, {.ignore_index = j})),
      FUNCTION(td::nn::Linear(i, j).weight),
      FUNCTION(td::nn::Conv2d(i, j, 3).weight),
      FUNCTION(td::nn::Conv2d(4, 4, {i, j}).weight),
      FUNCTION(td::nn::Conv2d(4, 4, 3, {.groups = i}).weight),
      FUNCTION(td::nn::Conv1d(i, j, 3).weight),
      FUNCTION(td::nn::Conv3d(2, 2, {i, j, 1}, {.groups = 2}).weight),
      FUNCTION(td::nn::ConvTranspose2d(i, j, 3).weight),
      FUNCTION(td::nn::Embedding(i, j).weight),
      FUNCTION(td::nn::LayerNorm(i).weight),
      FUNCTION(td::nn::GroupNorm(i, j).weight),
      FUNCTION(td::nn::BatchNorm2d(i).weight),
      FUNCTION(td::nn::Lstm(i, j).weights(0).weight_ih),
      FUNCTION(td::nn::Gru(2, 2, {.layers = i, .bidirectional = true}).weights(j, true).weight_ih),
      FUNCTION(td::nn::MultiheadAttention(i, j).qkv->weight),
      FUNCTION(td::nn::TransformerBlock(i, 1, {.expansion = j}).expand.weight),
      FUNCTION(td::nn::init::orthogonal({i, j})),
      FUNCTION(td::nn::init::eye(i, j)),
      FUNCTION(Tensor(td::from_blob(nowhere, {0, i, j}))),
  };
}
#undef FUNCTION

}  // namespace

TEST_CASE("extreme arguments: every public function gives a result that could be right, or an error with the line") {
  const MemoryLimit limit(32 << 20);
  Tally tally;
  const std::vector<Function> all = functions();
  for (const Function& function : all) {
    for (const int64_t i : kIntegers) {
      for (const int64_t j : kIntegers) {
        tally.attempt(
            function.line, [&] { return td::detail::str(function.name, " with i = ", i, ", j = ", j); },
            [&] { return function.call(i, j); });
        if (std::strchr(function.name, 'j') == nullptr) break;
      }
    }
  }
  std::cout << "extreme arguments: " << all.size() << " functions, " << tally.text() << "\n";
}

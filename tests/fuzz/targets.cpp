// The targets: readers of files, graph text that is run, attributes, einsum and expressions.
#include "fuzz/targets.h"

#include <unistd.h>
#include <zlib.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "core/expression.h"
#include "graph/ir/region.h"
#include "graph/run/program.h"
#include "tandem.h"

namespace tandem::fuzz {

namespace {

/// A file with these bytes, until the next one, or the end, of the process.
std::string file_with(std::string_view bytes) {
  static const struct File {
    std::string path =
        (std::filesystem::temp_directory_path() / ("tandem-fuzz-" + std::to_string(::getpid()))).string();
    ~File() { std::remove(path.c_str()); }
  } file_of_process;
  const std::string& path = file_of_process.path;
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  if (!file) std::abort();
  std::fwrite(bytes.data(), 1, bytes.size(), file);
  std::fclose(file);
  return path;
}
std::string bytes_of_file(const std::string& path) {
  std::string bytes;
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  if (!file) std::abort();
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) bytes += static_cast<char>(c);
  std::fclose(file);
  return bytes;
}

constexpr io::Limits kLimits{.file_bytes = 1 << 20, .unpacked_bytes = 1 << 20, .tensors = 100};

/// Errors of the engine are answers; anything else ends the process.
template <class F> void allowing_errors(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    if (error.message().empty()) std::abort();
  }
}

void read_safetensors(std::string_view bytes) {
  const std::string path = file_with(bytes);
  allowing_errors([&] {
    for (const nn::NamedTensor& each : io::load_safetensors(path, kLimits).tensors) (void)each.tensor.to(float64).sum();
  });
}
std::vector<std::string> safetensors_seeds() {
  std::vector<std::string> seeds;
  const std::string path = file_with("");
  for (const DType dtype : {float32, int64, bfloat16}) {
    const std::vector<nn::NamedTensor> tensors{{"a.weight", ones({2, 3}).to(dtype)}, {"b", zeros({}).to(dtype)}};
    io::save_safetensors(path, tensors);
    seeds.push_back(bytes_of_file(path));
  }
  return seeds;
}

void read_idx(std::string_view bytes) {
  const std::string path = file_with(bytes);
  for (const int rank : {1, 3}) allowing_errors([&] { (void)io::read_idx(path, rank, kLimits); });
}
std::vector<std::string> idx_seeds() {
  using namespace std::string_literals;
  return {"\0\0\x08\x01\0\0\0\x03\x01\x02\x03"s, "\0\0\x08\x03\0\0\0\x01\0\0\0\x02\0\0\0\x02\x01\x02\x03\x04"s,
          "\x1f\x8b\x08\0\0\0\0\0\0\x03\x63\x60\xe0\x60\x64\x60\x60\x60\x66\x64\x62\x06\0\x9a\x93\xa6\x5e\x0b\0\0\0"s};
}

/// The bytes as gzip packs them, so that what they say is looked at, and not only that they are packed wrongly.
std::string packed(std::string_view bytes) {
  const std::string path = file_with("");
  const gzFile file = gzopen(path.c_str(), "wb1");
  if (!file || (!bytes.empty() && gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())) == 0)) std::abort();
  gzclose(file);
  return bytes_of_file(path);
}
void read_gzip(std::string_view bytes) {
  const std::string path = file_with(packed(bytes));
  for (const int rank : {1, 3}) allowing_errors([&] { (void)io::read_idx(path, rank, kLimits); });
}

void read_cifar10(std::string_view bytes) {
  const std::string path = file_with(bytes);
  allowing_errors([&] {
    const io::Cifar10 set(path, {.limits = kLimits});
    if (set.size() > 0) (void)set.get(set.size() - 1);
  });
}
std::vector<std::string> cifar10_seeds() {
  return {std::string(3073, '\1'), std::string(3073, '\0') + std::string(3073, '\5'), std::string(3072, '\1')};
}

void read_text(std::string_view bytes) {
  const std::string path = file_with(bytes);
  allowing_errors([&] {
    const io::ByteText text(path, {.context = 8, .limits = kLimits});
    for (int64_t i = 0; i < std::min<int64_t>(text.size(), 4); ++i) (void)text.get(i);
  });
}
std::vector<std::string> text_seeds() { return {"To be, or not to be, that is the question", "a"}; }

constexpr int64_t kMostWork = 1 << 22;

/// A bound of what a run costs. A while_loop has none.
int64_t work_of(const Graph& graph) {
  int64_t elements = 0, largest = 1, inside = 0;
  for (const Value& value : graph.values) {
    elements += value.type.shape.numel();
    largest = std::max(largest, value.type.shape.numel());
    if (largest > 4096) return kMostWork + 1;
  }
  for (const Node& node : graph.nodes)
    for (const Attribute& attribute : node.attributes)
      if (const auto* const region = std::get_if<RegionPtr>(&attribute.value)) {
        const int64_t turns = node.attributes.find("length") ? node.attributes.integer("length") : 1;
        const int64_t turn = 100 + work_of(static_cast<const graph::GraphRegion&>(**region).graph());
        if (std::string_view(node.op->name) == "while_loop" || turns > kMostWork / turn) return kMostWork + 1;
        inside += turns * turn;
      }
  return elements * largest + inside;
}

/// Parsed, verified, printed and parsed again; and run on zeros where it is small.
void run_graph_text(std::string_view bytes) {
  allowing_errors([&] {
    const Graph graph = parse_graph(std::string(bytes));
    const std::string text = graph.to_string();
    if (parse_graph(text).to_string() != text) std::abort();
    if (work_of(graph) > kMostWork) return;
    Tensors arguments;
    for (const Leaf& leaf : graph.leaves)
      if (leaf.kind == LeafKind::argument) {
        if (leaf.argument > 16) return;
        arguments.resize(std::max(arguments.size(), static_cast<size_t>(leaf.argument) + 1));
        arguments[static_cast<size_t>(leaf.argument)] =
            zeros(leaf.value >= 0 ? graph.type(leaf.value).shape : Shape(), {.dtype = graph.type(leaf.value).dtype});
      }
    for (const bool planned : {true, false}) {
      const auto program = graph::Program::build(graph, {.memory_plan = planned}, Where::current(), nullptr);
      if (program) program->run(arguments);
    }
  });
}
std::vector<std::string> graph_seeds() {
  std::vector<std::string> seeds;
  const Tensor x = zeros({2, 3}), y = zeros({3, 2});
  const auto add = [&](auto f) { seeds.push_back(trace(f, x, y).to_string()); };
  add([](const Tensor& a, const Tensor& b) { return matmul(a, b) + 1; });
  add([](const Tensor& a, const Tensor& b) { return softmax(a, 1) * b.transpose(0, 1); });
  add([](const Tensor& a, const Tensor& b) { return concat({a.slice(1, 0, 2), b.slice(0, 1, 3)}, 0).sum({0}); });
  add([](const Tensor& a, const Tensor&) { return index_select(a, 0, tensor<int64_t>({1, 0})).to(int32); });
  add([](const Tensor& a, const Tensor&) {
    return where(a > 0.5, a, a.expand({4, 2, 3})).mean({0, 2}, {.keepdim = true});
  });
  add([](const Tensor& a, const Tensor&) { return layer_norm(a, ones({3}), zeros({3})) + rand({2, 3}); });
  add([](const Tensor& a, const Tensor&) { return as_strided(a, {2, 2}, {1, 2}, 1) + pad(a, {1, 0}).slice(1, 0, 2); });
  add([](const Tensor& a, const Tensor&) { return conv2d(a.reshape({1, 1, 2, 3}), ones({1, 1, 2, 2})); });
  add([](const Tensor& a, const Tensor& b) {
    return cond(
        a.sum() > 0, [&] { return matmul(a, b); },
        [&] {
          return cond(
              b.max() > 1, [&] { return b.slice(0, 0, 2); }, [&] { return a.slice(1, 1, 3) * 2; });
        });
  });
  add([](const Tensor& a, const Tensor&) {
    return while_loop([](const Tensor& x) { return x.sum() < 9; }, [&](const Tensor& x) { return x + a + 1; }, a);
  });
  add([](const Tensor& a, const Tensor& b) {
    Tensor last = b.select(1, 0).clone();
    last.requires_grad(true);
    const auto step = [&](const Tensor& carry, const Tensor& x) { return std::pair(tanh(carry * x), carry + 1); };
    const auto [carry, all] = scan(step, last, a, {.reverse = true});
    return grad_of(carry.sum() + all.sum(), {last})[0];
  });
  return seeds;
}

/// The attributes of an op of the user's that has one of each type, in graph text; and as they print.
void read_attributes(std::string_view bytes) {
  using enum AttributeType;
  static const Op op =
      custom_op("fuzzed", {.infer = [](Infer& op) { op.output(op.input(0).shape(), op.input(0).dtype()); },
                           .cpu = [](KernelContext&) {},
                           .grad = not_differentiable,
                           .inputs = 1,
                           .attributes = {{"i", integer},
                                          {"f", flag, int64_t{0}},
                                          {"n", number, 1.0},
                                          {"s", ints, Shape{1}},
                                          {"d", dtype, float32},
                                          {"t", text, std::string()}}});
  allowing_errors([&] {
    const std::string graph = "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2] = fuzzed(%0) {" +
                              std::string(bytes) + "}\n  return %1\n}";
    const std::string text = parse_graph(graph).to_string();
    if (parse_graph(text).to_string() != text) std::abort();
  });
}
std::vector<std::string> attributes_seeds() {
  return {"i=3", "i=-1, f=1, n=nan, s=[2, -3], d=bfloat16, t=\"a\"", "n=1e-300, t=\"\\\"\\n\\\\\", i=0, s=[]"};
}

/// "equation|2,3;3,4": with operands of these shapes.
void run_einsum(std::string_view bytes) {
  const size_t bar = bytes.find('|');
  if (bar == std::string_view::npos) return;
  Tensors operands;
  Shape shape;
  int64_t extent = -1, elements = 1;
  for (const char c : bytes.substr(bar + 1)) {
    if (c >= '0' && c <= '9' && extent < 10) extent = std::max<int64_t>(extent, 0) * 10 + (c - '0');
    if (c != ',' && c != ';') continue;
    if (extent >= 0 && shape.size() < kMaxRank) shape.push_back(extent), elements *= std::max<int64_t>(extent, 1);
    extent = -1;
    if (c == ';') operands.push_back(elements <= 4096 ? ones(shape) : ones({})), shape = {}, elements = 1;
    if (operands.size() > 5) return;
  }
  if (extent >= 0 && shape.size() < kMaxRank) shape.push_back(extent), elements *= std::max<int64_t>(extent, 1);
  operands.push_back(elements <= 4096 ? ones(shape) : ones({}));
  int64_t all = 1;
  for (const Tensor& operand : operands) all *= std::max<int64_t>(operand.numel(), 1);
  if (all > 1 << 20) return;
  allowing_errors([&] { (void)einsum(bytes.substr(0, bar), operands); });
}
std::vector<std::string> einsum_seeds() {
  return {"bij,bjk->bik|2,3,4;2,4,2", "ii->i|3,3", "...i,i|2,3,4;4", "ij->|2,2", "a,b,c->cab|2;3;2"};
}

void read_expression(std::string_view bytes) {
  allowing_errors([&] {
    const Expression expression("fuzz", std::string(bytes), {"x", "y", "beta"}, Where::current());
    const double values[] = {0.5, -2.0, 3.0};
    (void)expression.evaluate(values);
    (void)expression.c_text();
  });
}
std::vector<std::string> expression_seeds() {
  return {"x * sigmoid(beta * x)", "x > 0 ? x : exp(-y) - 1e-3", "!(x < y) && maximum(x, y) != 2.5 || -x"};
}

constexpr Target kTargets[] = {
    {"safetensors", read_safetensors, safetensors_seeds},
    {"idx", read_idx, idx_seeds},
    {"gzip", read_gzip, idx_seeds},
    {"cifar10", read_cifar10, cifar10_seeds},
    {"byte_text", read_text, text_seeds},
    {"graph_text", run_graph_text, graph_seeds},
    {"attributes", read_attributes, attributes_seeds},
    {"einsum", run_einsum, einsum_seeds},
    {"expression", read_expression, expression_seeds},
};

}  // namespace

std::span<const Target> targets() { return kTargets; }

}  // namespace tandem::fuzz

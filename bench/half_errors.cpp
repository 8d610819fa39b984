// Runs ops on the 16-bit operands of a safetensors file and writes what they give to another, for
// bench/peers/half_errors.py, which compares the errors with PyTorch's.
//
//   half_errors IN.safetensors OUT.safetensors
//
// Operands are called OP/DTYPE/0, OP/DTYPE/1, …; results OP/DTYPE.
#include <cstdio>
#include <functional>
#include <map>

#include "tandem.h"

namespace td = tandem;

namespace {

using Function = std::function<td::Tensor(const td::Tensors&)>;

const std::map<std::string, Function>& functions() {
  static const std::map<std::string, Function> all = {
      {"exp", [](const td::Tensors& x) { return exp(x[0]); }},
      {"log", [](const td::Tensors& x) { return log(x[0]); }},
      {"tanh", [](const td::Tensors& x) { return tanh(x[0]); }},
      {"sigmoid", [](const td::Tensors& x) { return sigmoid(x[0]); }},
      {"gelu", [](const td::Tensors& x) { return gelu(x[0]); }},
      {"silu", [](const td::Tensors& x) { return silu(x[0]); }},
      {"add", [](const td::Tensors& x) { return x[0] + x[1]; }},
      {"mul", [](const td::Tensors& x) { return x[0] * x[1]; }},
      {"div", [](const td::Tensors& x) { return x[0] / x[1]; }},
      {"sum", [](const td::Tensors& x) { return sum(x[0], -1); }},
      {"sum_columns", [](const td::Tensors& x) { return sum(x[0], 0); }},
      {"mean", [](const td::Tensors& x) { return mean(x[0], -1); }},
      {"var", [](const td::Tensors& x) { return var(x[0], -1); }},
      {"logsumexp", [](const td::Tensors& x) { return logsumexp(x[0], -1); }},
      {"cumsum", [](const td::Tensors& x) { return cumsum(x[0], -1); }},
      {"softmax", [](const td::Tensors& x) { return softmax(x[0]); }},
      {"log_softmax", [](const td::Tensors& x) { return log_softmax(x[0]); }},
      {"layer_norm", [](const td::Tensors& x) { return layer_norm(x[0], x[1], x[2]); }},
      {"rms_norm", [](const td::Tensors& x) { return rms_norm(x[0], x[1]); }},
      {"group_norm", [](const td::Tensors& x) { return group_norm(x[0], 4, x[1], x[2]); }},
      {"matmul", [](const td::Tensors& x) { return matmul(x[0], x[1]); }},
      {"linear", [](const td::Tensors& x) { return linear(x[0], x[1], x[2]); }},
      {"conv2d", [](const td::Tensors& x) { return conv2d(x[0], x[1], x[2], {.padding = 1}); }},
      {"avg_pool2d", [](const td::Tensors& x) { return avg_pool2d(x[0], 2); }},
      {"attention",
       [](const td::Tensors& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.causal = true}); }},
      {"mse_loss", [](const td::Tensors& x) { return mse_loss(x[0], x[1]); }},
      {"bce_with_logits", [](const td::Tensors& x) { return bce_with_logits(x[0], x[1]); }},
  };
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "half_errors IN.safetensors OUT.safetensors\n");
    return 2;
  }
  try {
    const td::NoGrad guard;
    const td::io::Safetensors file = td::io::load_safetensors(argv[1]);
    std::map<std::string, td::Tensors> operands;
    for (const auto& [name, tensor] : file.tensors) {
      td::Tensors& list = operands[name.substr(0, name.rfind('/'))];
      const size_t index = std::stoul(name.substr(name.rfind('/') + 1));
      if (list.size() <= index) list.resize(index + 1);
      list[index] = tensor;
    }
    std::vector<td::nn::NamedTensor> results;
    for (const auto& [name, list] : operands)
      results.push_back({name, functions().at(name.substr(0, name.find('/')))(list)});
    td::io::save_safetensors(argv[2], results);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

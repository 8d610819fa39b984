// Runs the ops of linear algebra on the operands of a safetensors file and writes what they give to another, for
// bench/peers/linalg_errors.py, which compares the errors with PyTorch's.
//
//   linalg_errors IN.safetensors OUT.safetensors
//
// Operands are called CASE/DTYPE/0, CASE/DTYPE/1, …; results CASE/DTYPE/out/0, …, and, for a case called OP_grad, the
// gradient of the sum of the first result's squares by operand 0. What is unique but for signs is made whole again:
// U diag(s) Vh, V diag(w) V', Q R.
#include <cstdio>
#include <functional>
#include <map>

#include "tandem.h"

namespace td = tandem;
namespace la = tandem::linalg;

namespace {

using Function = std::function<td::Tensors(const td::Tensors&)>;

td::Tensor transposed(const td::Tensor& x) { return x.transpose(-2, -1); }

const std::map<std::string, Function>& functions() {
  static const std::map<std::string, Function> all = {
      {"solve", [](const td::Tensors& x) { return td::Tensors{la::solve(x[0], x[1])}; }},
      {"solve_triangular", [](const td::Tensors& x) { return td::Tensors{la::solve_triangular(x[0], x[1])}; }},
      {"lstsq", [](const td::Tensors& x) { return td::Tensors{la::lstsq(x[0], x[1])}; }},
      {"inverse", [](const td::Tensors& x) { return td::Tensors{la::inverse(x[0])}; }},
      {"det", [](const td::Tensors& x) { return td::Tensors{la::det(x[0])}; }},
      {"slogdet", [](const td::Tensors& x) { return td::Tensors{la::slogdet(x[0]).logabsdet}; }},
      {"pinv", [](const td::Tensors& x) { return td::Tensors{la::pinv(x[0])}; }},
      {"cholesky", [](const td::Tensors& x) { return td::Tensors{la::cholesky(x[0])}; }},
      {"qr",
       [](const td::Tensors& x) {
         const auto [q, r] = la::qr(x[0]);
         return td::Tensors{matmul(q, r), matmul(transposed(q), q)};
       }},
      {"svd",
       [](const td::Tensors& x) {
         const auto [u, s, vh] = la::svd(x[0]);
         return td::Tensors{matmul(u * s.unsqueeze(-2), vh), matmul(transposed(u), u), s};
       }},
      {"svdvals", [](const td::Tensors& x) { return td::Tensors{la::svdvals(x[0])}; }},
      {"eigh",
       [](const td::Tensors& x) {
         const auto [w, v] = la::eigh(x[0]);
         return td::Tensors{matmul(v * w.unsqueeze(-2), transposed(v)), matmul(transposed(v), v), w};
       }},
      {"eigvalsh", [](const td::Tensors& x) { return td::Tensors{la::eigvalsh(x[0])}; }},
      {"matrix_norm", [](const td::Tensors& x) { return td::Tensors{la::matrix_norm(x[0], 2)}; }},
  };
  return all;
}

td::Tensors run(const std::string& name, td::Tensors operands) {
  constexpr std::string_view kGradient = "_grad";
  if (!name.ends_with(kGradient)) return functions().at(name)(operands);
  operands[0].requires_grad(true);
  const td::Tensor result = functions().at(name.substr(0, name.size() - kGradient.size()))(operands)[0];
  (result * result).sum().backward();
  return {operands[0].grad()};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "linalg_errors IN.safetensors OUT.safetensors\n");
    return 2;
  }
  try {
    const td::io::Safetensors file = td::io::load_safetensors(argv[1]);
    std::map<std::string, td::Tensors> operands;
    for (const auto& [name, tensor] : file.tensors) {
      td::Tensors& list = operands[name.substr(0, name.rfind('/'))];
      const size_t index = std::stoul(name.substr(name.rfind('/') + 1));
      if (list.size() <= index) list.resize(index + 1);
      list[index] = tensor;
    }
    std::vector<td::nn::NamedTensor> results;
    for (const auto& [name, list] : operands) {
      const td::Tensors outputs = run(name.substr(0, name.find('/')), list);
      for (size_t i = 0; i < outputs.size(); ++i)
        results.push_back({name + "/out/" + std::to_string(i), outputs[i].detach().contiguous()});
    }
    td::io::save_safetensors(argv[2], results);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

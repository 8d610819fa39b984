// A first look: tensors, gradients, one function in three modes, and what an error says.
#include <tandem/tandem.h>

#include <CLI/CLI.hpp>
#include <iostream>

namespace td = tandem;

int main(int argc, char** argv) {
  std::string mode = "compiled", device_name = "cpu";
  uint64_t seed = 7;
  CLI::App app{"Shows tensors, gradients, the three modes and an error."};
  app.add_option("--mode", mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--seed", seed, "of the random numbers")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  try {
    const td::Device device = td::parse_device(device_name);
    td::manual_seed(seed);

    // Values, then shape, dtype and device.
    const td::Tensor a = td::tensor({{1.f, 2.f, 3.f}, {4.f, 5.f, 6.f}}, {.device = device});
    std::cout << "a = " << a << "\n";
    std::cout << "a times its transpose = " << matmul(a, a.transpose(0, 1)) << "\n";
    std::cout << "a[1] = " << a[1] << ", mean " << a.mean().item<float>() << "\n\n";

    // Define by run: whatever ran is what backward() walks.
    td::Tensor w = td::randn({3}, {.device = device, .requires_grad = true});
    const td::Tensor target = td::tensor({1.f, 0.f}, {.device = device});
    const auto loss_of = [&](const td::Tensor& inputs) { return square(matmul(inputs, w) - target).mean(); };
    loss_of(a).backward();
    std::cout << "gradient of the loss at w = " << w.grad() << "\n\n";

    // The same lines as a graph: traced at the first call, then run from the graph. w is state: it is read
    // and written at each call.
    auto step = td::compile(
        [&](const td::Tensor& inputs) {
          w.set_grad({});
          td::Tensor loss = loss_of(inputs);
          loss.backward();
          td::NoGrad guard;
          w.assign(w - 0.01 * w.grad());
          return loss;
        },
        {.mode = td::parse_mode(mode)});
    std::cout << "loss, " << mode << ":";
    for (int i = 0; i < 5; ++i) std::cout << " " << step(a).item<float>();
    std::cout << "\n\n";

    // A misuse says which op, which shapes, why, and on which line of this file.
    try {
      matmul(a, a);
    } catch (const td::ShapeError& error) { std::cout << error.what() << "\n"; }
  } catch (const td::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}

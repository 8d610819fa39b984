// A program that uses an installed Tandem beside a header called like one of Tandem's.
#include <tandem/tandem.h>

#include "core/tensor.h"

#include <iostream>

int main() {
  namespace td = tandem;
  td::Tensor w = td::ones({3}, {.requires_grad = true});
  td::Tensor loss = square(w * 2).sum();
  loss.backward();
  const float value = loss.item<float>();
  std::cout << value << " " << w.grad() << " " << consumer::Tensor{}.answer << "\n";
  return value == 12.f ? 0 : 1;
}

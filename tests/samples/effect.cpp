// Samples of print and assert_that, which give nothing: that they run. What they do is in tests/effects_test.cpp.
#include "samples/samples.h"

namespace tandem::samples {

void add_effect_samples(Samples& samples) {
  const auto nothing_of = [](const NumberLists&) {
    Numbers out({}, bool_);
    out[0] = 1;
    return NumberLists{out};
  };
  for (const Shape& shape : {Shape{}, {3}, {2, 5}, {0, 3}})
    samples.push_back({.op = "print",
                       .label = to_string(shape),
                       .operands = {{shape, spread(-2, 2)}},
                       .dtypes = {float32},
                       .call =
                           [](const Tensors& in) {
                             const PrintHandler before = set_print_handler({});
                             Tensors result = call_op("print", {{"label", std::string("x")}})(in);
                             set_print_handler(before);
                             return result;
                           },
                       .reference = nothing_of,
                       .ulps = 0});
  samples.push_back({.op = "assert_that",
                     .label = "true",
                     .operands = {{{}, repeat({1}), bool_}},
                     .dtypes = {bool_},
                     .call = call_op("assert_that", {{"message", std::string("never")}}),
                     .reference = nothing_of,
                     .ulps = 0});
}

}  // namespace tandem::samples

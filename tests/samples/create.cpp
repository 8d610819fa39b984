// Samples of full, arange, cast, copies and transfer.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

NumberLists same_numbers(const NumberLists& in) { return {in[0]}; }

struct Range {
  int64_t begin, step, count;
};

void add_makers(Samples& samples) {
  for (const DType type : kAll) {
    for (const Shape& shape : {Shape{}, {5}, {33, 17}, {0}, {2, 0, 3}}) {
      samples.push_back(
          {.op = "full",
           .label = detail::str(type, shape),
           .dtypes = {type},
           .call = [=](const Tensors&) { return Tensors{full(shape, 3, {.dtype = type, .device = test_device()})}; },
           .reference =
               [=](const NumberLists&) {
                 Numbers out(shape, type);
                 std::fill(out.values.begin(), out.values.end(), 3.0);
                 return NumberLists{out};
               }});
    }
    if (type == bool_) continue;
    for (const Range& range : {Range{0, 1, 17}, {3, 2, 33}, {100, -3, 7}, {5, 1, 0}}) {
      const int64_t begin = range.begin, step = range.step, count = range.count;
      samples.push_back({.op = "arange",
                         .label = detail::str(type, ": ", count, " from ", begin, " by ", step),
                         .dtypes = {type},
                         .call =
                             [=](const Tensors&) {
                               return Tensors{
                                   arange(begin, begin + step * count, step, {.dtype = type, .device = test_device()})};
                             },
                         .reference =
                             [=](const NumberLists&) {
                               Numbers out({count}, type);
                               for (int64_t i = 0; i < count; ++i) out[i] = static_cast<double>(begin + step * i);
                               return NumberLists{out};
                             }});
    }
  }
  samples.push_back({.op = "arange",
                     .label = "linspace",
                     .dtypes = {float32},
                     .call = [](const Tensors&) { return Tensors{linspace(-1, 1, 33, {.device = test_device()})}; },
                     .reference =
                         [](const NumberLists&) {
                           Numbers out({33}, float32);
                           for (int64_t i = 0; i < 33; ++i) out[i] = -1 + static_cast<double>(i) / 16;
                           return NumberLists{out};
                         }});
}

void add_casts(Samples& samples) {
  for (const DType to : kAll) {
    const Call call = call_op("cast", {{"dtype", to}});
    const Reference reference = [to](const NumberLists& in) {
      Numbers out(in[0].shape, to);
      out.values = in[0].values;
      return NumberLists{out};
    };
    for (const Shape& shape : {Shape{}, {17}, {33, 5}, {2, 3, 4}, {0, 3}, {1031}})
      samples.push_back({.op = "cast",
                         .label = detail::str(shape, " to ", to),
                         .operands = {{shape, spread(0, 120)}},
                         .dtypes = kAll,
                         .call = call,
                         .reference = reference,
                         .ulps = 0,
                         .gradients = to == float64 ? Gradients::second : Gradients::none,
                         .large = shape.numel() > 1000});
    samples.push_back({.op = "cast",
                       .label = detail::str("negative numbers to ", to),
                       .operands = {{{33}, spread(-100, 100)}},
                       .dtypes = to == uint8 ? std::vector<DType>{int32, int64}
                                             : std::vector<DType>{float32, float64, float16, bfloat16, int32, int64},
                       .call = call,
                       .reference = reference,
                       .ulps = 0});
    if (is_floating(to))
      samples.push_back(
          {.op = "cast",
           .label = detail::str("special values to ", to),
           .operands = {{{10}, repeat({0.0, -0.0, INFINITY, -INFINITY, NAN, 1e38, 65504, 65536, 6e-8, 1e-40})}},
           .dtypes = {float32, float64},
           .call = call,
           .reference = reference,
           .ulps = 0});
  }
}

}  // namespace

void add_create_samples(Samples& samples) {
  add_makers(samples);
  add_casts(samples);
  for (const Shape& shape : {Shape{}, {17}, {33, 5}, {2, 3, 4, 5}, {2, 1, 3}, {3, 0}, {1031}}) {
    for (const char* op : {"contiguous", "copy"})
      samples.push_back({.op = op,
                         .label = to_string(shape),
                         .operands = {{shape, spread(-9, 9)}},
                         .dtypes = kAll,
                         .call = call_op(op),
                         .reference = same_numbers,
                         .ulps = 0,
                         .gradients = Gradients::second,
                         .large = shape.numel() > 1000});
    samples.push_back({.op = "barrier",
                       .label = to_string(shape),
                       .operands = {{shape, spread(-9, 9)}, {{3}, spread(-9, 9)}},
                       .dtypes = kFloats,
                       .call = [](const Tensors& x) { return Tensors{barrier(x[0], x[1].detach())}; },
                       .reference = same_numbers,
                       .ulps = 0,
                       .gradients = Gradients::second,
                       .large = shape.numel() > 1000});
    samples.push_back({.op = "transfer",
                       .label = to_string(shape) + " to the host",
                       .operands = {{shape, spread(-9, 9)}},
                       .dtypes = kAll,
                       .call = call_op("transfer", {{"device", std::string("cpu")}}),
                       .reference = same_numbers,
                       .ulps = 0,
                       .gradients = Gradients::second,
                       .large = shape.numel() > 1000});
  }
}

}  // namespace tandem::samples

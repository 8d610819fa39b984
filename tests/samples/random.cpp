// Samples of the random draws, against a generator written again from the paper: Philox 4x32-10 (J. Salmon,
// M. Moraes, R. Dror, D. Shaw, SC 2011), its block for element i counted by (i / elements of a block, draw).
#include <array>
#include <numbers>

#include "samples/samples.h"

namespace tandem::samples {

namespace {

constexpr int64_t kSeed = 0x123456789abcdef, kDraw = 41, kSite = 3;

std::array<uint32_t, 4> philox(uint64_t key, uint64_t low, uint64_t high) {
  std::array<uint32_t, 4> x = {static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32),
                               static_cast<uint32_t>(high), static_cast<uint32_t>(high >> 32)};
  uint32_t k[2] = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = 0xD2511F53ull * x[0], b = 0xCD9E8D57ull * x[2];
    x = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ k[0], static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ x[3] ^ k[1], static_cast<uint32_t>(a)};
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return x;
}

uint64_t draw_number(const Numbers& key) { return static_cast<uint64_t>(key[1]) + kSite; }
uint32_t word(const Numbers& key, int64_t i) {
  return philox(kSeed, static_cast<uint64_t>(i / 4), draw_number(key))[static_cast<size_t>(i % 4)];
}
double uniform(const Numbers& key, int64_t i) { return static_cast<double>(word(key, i) >> 8) * 0x1p-24; }
/// Two words of a block, as 53 bits of a fraction.
double long_uniform(const std::array<uint32_t, 4>& block, size_t at) {
  return static_cast<double>(((static_cast<uint64_t>(block[at]) << 32) | block[at + 1]) >> 11) * 0x1p-53;
}

/// The key {seed, draw}. The seed is more than a double can hold exactly, so the reference has it of its own.
Tensor key_tensor(const Tensor& like) { return tensor({kSeed, kDraw}, {.device = like.device()}); }

Attributes draw_attributes(const Shape& shape, DType type) {
  return {{"shape", shape}, {"dtype", type}, {"device", to_string(test_device())}, {"site", kSite}};
}

void add_draws(Samples& samples) {
  const Operand key{{2}, repeat({0, static_cast<double>(kDraw)}), int64, false, true};
  const auto add = [&](const char* op, DType type, const Shape& shape, Attributes attributes,
                       std::function<double(const Numbers&, int64_t)> number, double ulps, double scale) {
    samples.push_back({.op = op,
                       .label = detail::str(type, shape),
                       .operands = {key},
                       .dtypes = {type},
                       .call =
                           [=](const Tensors& in) {
                             return Tensors{dispatch(find_op(op), {key_tensor(in[0])}, attributes, Where::current())};
                           },
                       .reference =
                           [=](const NumberLists& in) {
                             Numbers out(shape, type);
                             for (int64_t i = 0; i < out.numel(); ++i) out[i] = number(in[0], i);
                             if (scale > 0) out.scale.assign(out.values.size(), scale);
                             return NumberLists{out};
                           },
                       .ulps = ulps,
                       .large = shape.numel() > 1000});
  };
  for (const Shape& shape : {Shape{}, {1}, {17}, {33, 5}, {0}, {2, 0}, {20011}}) {
    for (const DType type : kFloats) {
      const bool wide = type == float64;
      add(
          "random_uniform", type, shape, draw_attributes(shape, type),
          [wide](const Numbers& key, int64_t i) {
            if (!wide) return uniform(key, i);
            return long_uniform(philox(kSeed, static_cast<uint64_t>(i / 2), draw_number(key)), i % 2 ? 2 : 0);
          },
          0, 0);
      if (wide) continue;  // its own formula, tested by the moments in core_test.cpp
      add(
          "random_normal", type, shape, draw_attributes(shape, type),
          [](const Numbers& key, int64_t i) {
            const std::array<uint32_t, 4> block = philox(kSeed, static_cast<uint64_t>(i / 4), draw_number(key));
            const size_t pair = i % 4 < 2 ? 0 : 2;
            const double u = (static_cast<double>(block[pair] >> 1) + 0.5) * 0x1p-31,
                         angle = 2 * std::numbers::pi * static_cast<double>(block[pair + 1] >> 8) * 0x1p-24;
            return std::sqrt(-2 * std::log(u)) * (i % 2 ? std::sin(angle) : std::cos(angle));
          },
          16, 3);
    }
    for (const DType type : {int32, int64, int16, int8, uint8}) {
      Attributes attributes = {{"low", 3}, {"high", 200}};
      for (const Attribute& each : draw_attributes(shape, type)) attributes.set(each);
      add(
          "random_int", type, shape, attributes,
          [](const Numbers& key, int64_t i) { return 3 + static_cast<double>((word(key, i) * uint64_t{197}) >> 32); },
          0, 0);
    }
  }
}

void add_dropouts(Samples& samples) {
  for (const double p : {0.0, 0.3, 0.5, 1.0}) {
    for (const Shape& shape : {Shape{}, {17}, {33, 5}, {2, 3, 4}, {0, 3}, {20011}}) {
      samples.push_back(
          {.op = "dropout",
           .label = detail::str(shape, " p ", p),
           .operands = {{shape, spread(-2, 2)}, {{2}, repeat({0, static_cast<double>(kDraw)}), int64, false, true}},
           .dtypes = kFloats,
           .call =
               [p](const Tensors& in) {
                 return Tensors{dispatch(find_op("dropout"), {in[0], key_tensor(in[1])}, {{"p", p}, {"site", kSite}},
                                         Where::current())};
               },
           .reference =
               [p](const NumberLists& in) {
                 Numbers out(in[0].shape, in[0].dtype);
                 for (int64_t i = 0; i < out.numel(); ++i) out[i] = uniform(in[1], i) >= p ? in[0][i] / (1 - p) : 0;
                 // 1 / (1 - p) is rounded to the dtype, and the product again.
                 for (const double x : out.values) out.scale.push_back(2 * std::fabs(x));
                 return NumberLists{out};
               },
           .gradients = Gradients::second,
           .large = shape.numel() > 1000});
    }
  }
}

void add_turn_keys(Samples& samples) {
  for (const int64_t turn : {int64_t{0}, int64_t{1}, int64_t{77}, int64_t{1} << 40})
    samples.push_back({.op = "turn_key",
                       .label = detail::str("turn ", turn),
                       .operands = {{{2}, repeat({0, static_cast<double>(kDraw)}), int64, false, true}},
                       .dtypes = {int64},
                       .call =
                           [turn](const Tensors& in) {
                             // As bytes: the words don't fit into a reference's doubles.
                             const Tensor key =
                                 dispatch(find_op("turn_key"), {key_tensor(in[0]), Arg(turn).scalar(int64)},
                                          {{"site", kSite}}, Where::current());
                             Tensors bytes;
                             for (int i = 0; i < 8; ++i) bytes.push_back(floor_divide(key, int64_t{1} << 8 * i) & 255);
                             return Tensors{stack(bytes, 1)};
                           },
                       .reference =
                           [turn](const NumberLists& in) {
                             const auto words = philox(kSeed, static_cast<uint64_t>(turn), draw_number(in[0]));
                             Numbers out({2, 8}, int64);
                             for (int64_t i = 0; i < 16; ++i)
                               out[i] = words[static_cast<size_t>(i / 4)] >> i % 4 * 8 & 255;
                             return NumberLists{out};
                           },
                       .ulps = 0});
}

/// What is checked, and passed on.
void add_bounded(Samples& samples) {
  for (const Shape& shape : {Shape{}, {17}, {33, 5}, {2, 3, 4}, {0, 3}, {100, 1031}})
    samples.push_back({.op = "bounded",
                       .label = to_string(shape),
                       .operands = {{shape, spread(-2, 2)}},
                       .dtypes = kFloats,
                       .call = call_op("bounded", {{"low", -2.0},
                                                   {"high", 2.0},
                                                   {"op", std::string("a function")},
                                                   {"message", std::string("a number is not between -2 and 2")}}),
                       .reference = [](const NumberLists& in) { return NumberLists{in[0]}; },
                       .ulps = 0,
                       .gradients = Gradients::second,
                       .large = shape.numel() > 1000});
}

}  // namespace

void add_random_samples(Samples& samples) {
  add_bounded(samples);
  add_draws(samples);
  add_turn_keys(samples);
  add_dropouts(samples);
}

}  // namespace tandem::samples

// Attention beyond its samples: the public functions, layouts, masks' gradients, dropout in every mode, errors, and the
// layers made of it against compositions of simpler ops in float64.
#include <doctest/doctest.h>

#include <cmath>

#include "core/threads.h"
#include "pytorch.h"
#include "tandem.h"

using namespace tandem;

namespace {

constexpr TensorOptions kDouble{.dtype = DType::float64};

Tensor last_two(const Tensor& x) { return transpose(x, -2, -1); }

/// softmax(q kᵀ scale) v with whole matrices.
Tensor composed(const Tensor& q, const Tensor& k, const Tensor& v, bool causal) {
  Tensor scores = matmul(q, last_two(k)) / std::sqrt(static_cast<double>(q.shape().back()));
  const int64_t time = q.shape()[q.rank() - 2], source = k.shape()[k.rank() - 2];
  if (causal) scores = where(arange(source) <= unsqueeze(arange(time), 1), scores, -INFINITY);
  return matmul(softmax(scores), v);
}

Tensor doubles(const Tensor& x) { return to(x.detach(), float64); }

template <class E, class F> std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) { return error.what(); } catch (const std::exception& error) {
    FAIL_CHECK("another error: " << std::string(error.what()));
  }
  return "";
}
#define SAYS(E, statement, text) \
  CHECK_MESSAGE(message_of<E>([&] { statement; }).find(text) != std::string::npos, message_of<E>([&] { statement; }))

}  // namespace

TEST_CASE("attention: transposed views, broadcast heads and memory order") {
  manual_seed(1);
  const Tensor q = transpose(randn({2, 70, 4, 16}), 1, 2), k = transpose(randn({2, 90, 1, 16}), 1, 2),
               v = transpose(randn({2, 90, 1, 24}), 1, 2);
  const Tensor y = scaled_dot_product_attention(q, k, v);
  CHECK(y.shape() == Shape{2, 4, 70, 24});
  CHECK(transpose(y, 1, 2).is_contiguous());  // q's order of dims
  CHECK(allclose(doubles(y), composed(doubles(q), doubles(k), doubles(v), false), {.rtol = 1e-4, .atol = 1e-6}));
  const Tensor causal = scaled_dot_product_attention(q, k, v, {.causal = true});
  CHECK(allclose(doubles(causal), composed(doubles(q), doubles(k), doubles(v), true), {.rtol = 1e-4, .atol = 1e-6}));
}

TEST_CASE("attention: gradients, also of broadcast operands and of an additive mask") {
  manual_seed(2);
  const Tensor q = randn({2, 2, 3, 2}, kDouble), k = randn({2, 1, 4, 2}, kDouble), v = randn({1, 4, 3}, kDouble),
               mask = randn({3, 4}, kDouble);
  const auto f = [](const Tensors& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.mask = x[3]}); };
  gradcheck(f, {q, k, v, mask});
  const auto of_mask = [&](const Tensors& x) {
    return scaled_dot_product_attention(q, k, v, {.mask = x[0], .causal = true});
  };
  gradcheck(of_mask, {mask});
  const Tensor qkv = randn({3, 2, 3, 2}, kDouble);
  const auto packed = [&](const Tensors& x) {
    return scaled_dot_product_attention(x[0], {.causal = true, .scale = 0.7});
  };
  gradcheck(packed, {qkv});
  gradgradcheck(packed, {qkv});
  CHECK(allclose(packed({qkv}), scaled_dot_product_attention(select(qkv, 0, 0), select(qkv, 0, 1), select(qkv, 0, 2),
                                                             {.causal = true, .scale = 0.7})));
}

TEST_CASE("attention: a row that may look nowhere gives zeros, and no NaN flows back") {
  const Tensor q = randn({1, 2, 4}, {.requires_grad = true}), k = randn({1, 3, 4}, {.requires_grad = true}),
               v = randn({1, 3, 4}, {.requires_grad = true});
  const Tensor mask = tensor({{0.f, 0.f, 0.f}, {1.f, 0.f, 1.f}}) > 0;
  const Tensor y = scaled_dot_product_attention(q, k, v, {.mask = mask});
  CHECK(allclose(select(y, 1, 0), zeros({1, 4})));
  y.sum().backward();
  CHECK(allclose(select(q.grad(), 1, 0), zeros({1, 4})));
  CHECK(std::isfinite(k.grad().sum().item<double>()));
}

TEST_CASE("attention: dropout draws the same eagerly, replayed and compiled") {
  const Tensor q = randn({2, 50, 8}), k = randn({2, 60, 8}), v = randn({2, 60, 8});
  const auto step = [](const Tensor& q, const Tensor& k, const Tensor& v) {
    const Tensor a = q.detach().requires_grad(true);
    const Tensor y = scaled_dot_product_attention(a, k, v, {.dropout = 0.25});
    (y * y).sum().backward();
    return y + a.grad();
  };
  manual_seed(5);
  std::vector<Tensor> expected;
  for (int i = 0; i < 3; ++i) expected.push_back(step(q, k, v));
  CHECK(!allclose(expected[0], expected[1]));
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    manual_seed(5);
    auto compiled = compile(step, {.mode = mode});
    for (int i = 0; i < 3; ++i)
      CHECK(allclose(compiled(q, k, v), expected[static_cast<size_t>(i)], {.rtol = 1e-6, .atol = 1e-7}));
  }
}

TEST_CASE("attention: one thread or several give the same") {
  manual_seed(6);
  const Tensor q = randn({3, 200, 32}), k = randn({3, 200, 32}), v = randn({3, 200, 32});
  const int threads = num_threads();
  set_num_threads(1);
  const Tensor one = scaled_dot_product_attention(q, k, v, {.causal = true});
  set_num_threads(3);
  const Tensor three = scaled_dot_product_attention(q, k, v, {.causal = true});
  set_num_threads(threads);
  CHECK(allclose(one, three, {.rtol = 0, .atol = 0}));
}

TEST_CASE("attention: errors say what doesn't fit") {
  const Tensor q = ones({2, 3, 4}), k = ones({2, 5, 4}), v = ones({2, 5, 4});
  SAYS(ShapeError, scaled_dot_product_attention(ones({3}), k, v), "attention: needs q [batch.., heads, time, d]");
  SAYS(ShapeError, scaled_dot_product_attention(q, ones({2, 5, 3}), v),
       "q and k have vectors of different lengths: [2, 3, 4] and [2, 5, 3] (4 and 3)");
  SAYS(ShapeError, scaled_dot_product_attention(q, k, ones({2, 6, 4})), "k and v have different numbers of sources");
  SAYS(ShapeError, scaled_dot_product_attention(q, ones({3, 5, 4}), ones({3, 5, 4})),
       "batch dims and heads don't broadcast");
  SAYS(ShapeError, scaled_dot_product_attention(q, k, v, {.mask = ones({4, 5})}),
       "the mask [4, 5] doesn't broadcast to the scores [2, 3, 5]");
  SAYS(ShapeError, scaled_dot_product_attention(ones({2, 3, 4})),
       "needs q, k and v in one tensor [3, batch.., heads, time, d], got [2, 3, 4]");
  SAYS(DTypeError, scaled_dot_product_attention(q, k, to(v, float64)), "q, k and v of different dtypes");
  SAYS(DTypeError, scaled_dot_product_attention(q, k, v, {.mask = ones({5}, {.dtype = int64})}),
       "the mask is int64; it must be bool");
  SAYS(DTypeError, scaled_dot_product_attention(ones({3, 2, 2, 2}, {.dtype = int64})), "attention_qkv");
  SAYS(ValueError, scaled_dot_product_attention(q, k, v, {.dropout = 1.5}), "dropout 1.5 must be between 0 and 1");
  SAYS(ValueError, nn::MultiheadAttention(10, 3), "a width of 10 can't be shared by 3 heads");
  SAYS(ShapeError, nn::MultiheadAttention(8, 2)(ones({3, 4})), "needs [batch.., time, 8], got [3, 4]");
}

TEST_CASE("nn::MultiheadAttention and nn::TransformerBlock against float64 compositions") {
  manual_seed(3);
  const int64_t width = 32, heads = 4, time = 50;
  nn::TransformerBlock block(width, heads, {.causal = true});
  const auto named = nn::named_parameters(block);
  std::vector<std::string> names;
  for (const auto& each : named) names.push_back(each.name);
  CHECK(names == std::vector<std::string>{"attention_norm.weight", "attention_norm.bias", "attention.qkv.weight",
                                          "attention.qkv.bias", "attention.output.weight", "attention.output.bias",
                                          "mlp_norm.weight", "mlp_norm.bias", "expand.weight", "expand.bias",
                                          "shrink.weight", "shrink.bias"});
  const Tensor x = randn({3, time, width});
  // By hand, in float64, with parameters to differentiate by.
  std::vector<Tensor> p;
  for (const auto& each : named) p.push_back(doubles(each.tensor).requires_grad(true));
  const auto norm = [](const Tensor& x, const Tensor& weight, const Tensor& bias) {
    const Tensor centred = x - mean(x, -1, {.keepdim = true});
    return centred / sqrt(mean(centred * centred, -1, {.keepdim = true}) + 1e-5) * weight + bias;
  };
  const auto affine = [](const Tensor& x, const Tensor& weight, const Tensor& bias) {
    return matmul(x, transpose(weight, 0, 1)) + bias;
  };
  const Tensor wide = doubles(x);
  const Tensor qkv = affine(norm(wide, p[0], p[1]), p[2], p[3]);
  const auto head = [&](int64_t part) {
    return transpose(reshape(slice(qkv, -1, part * width, (part + 1) * width), {3, time, heads, width / heads}), 1, 2);
  };
  const Tensor attended = reshape(transpose(composed(head(0), head(1), head(2), true), 1, 2), {3, time, width});
  const Tensor middle = wide + affine(attended, p[4], p[5]);
  const Tensor hidden = affine(norm(middle, p[6], p[7]), p[8], p[9]);
  const Tensor expected = middle + affine(hidden * 0.5 * (erf(hidden / std::sqrt(2.0)) + 1), p[10], p[11]);
  const Tensor weights = randn(x.shape());
  (expected * to(weights, float64)).sum().backward();

  const Tensor y = block(x);
  CHECK(allclose(doubles(y), expected, {.rtol = 1e-4, .atol = 1e-5}));
  (y * weights).sum().backward();
  for (size_t i = 0; i < p.size(); ++i) {
    CAPTURE(names[i]);
    CHECK(allclose(doubles(named[i].tensor.grad()), p[i].grad(), {.rtol = 1e-3, .atol = 1e-3}));
  }

  nn::MultiheadAttention attention(8, 2, {.dropout = 0.5, .bias = false});
  CHECK(nn::parameters(attention).size() == 2);
  const Tensor sequence = randn({5, 8});
  CHECK(attention(sequence).shape() == Shape{5, 8});
  CHECK(!allclose(attention(sequence), attention(sequence)));
  nn::eval(attention);
  CHECK(allclose(attention(sequence), attention(sequence)));
}

// ---- What PyTorch 2.15 gives.

namespace {

Tensor filled(const Shape& shape, double salt) {
  std::vector<double> values;
  for (int64_t i = 0; i < shape.numel(); ++i) values.push_back(0.6 * std::sin(1.7 * static_cast<double>(i) + salt));
  return tensor(values).reshape(shape);
}

/// The layer with these weights and biases, in order, from x[first] on.
nn::MultiheadAttention with_parameters(nn::MultiheadAttention layer, const Tensors& x, size_t first) {
  for (std::optional<nn::Linear>* map : {&layer.qkv, &layer.query, &layer.key, &layer.value})
    if (*map) (*map)->weight = x[first], (*map)->bias = x[first + 1], first += 2;
  layer.output.weight = x[first], layer.output.bias = x[first + 1];
  return layer;
}

}  // namespace

TEST_CASE("grouped-query attention gives what PyTorch's does") {
  const Tensor q = filled({1, 4, 2, 2}, 0), k = filled({1, 2, 3, 2}, 1), v = filled({1, 2, 3, 2}, 2);
  pytorch::check(
      CALL(scaled_dot_product_attention(x[0], x[1], x[2], {.enable_gqa = true})), {q, k, v}, {1, 4, 2, 2},
      {0.166962360984, -0.148939116089, 0.0982323156449, -0.0992564611596, 0.206341186857, -0.18872143978,
       0.0595730811974, -0.0590879706761, -0.00782796497188, 0.112090498442, -0.0344328531413, 0.281584220704,
       -0.00378527773152, 0.0532198182768, -0.0347623742157, 0.312883736826},
      {{-0.141407865863, -0.00453691778858, -0.154133578123, 0.0212566829921, -0.113706260704, 0.0698279228687,
        -0.133489880172, 0.0736199920597, -1.86969075034, 1.2772552508, -1.73698997038, 1.21974456099, -2.69504202461,
        1.81977478345, -2.13401714737, 1.53544105118},
       {-0.0521544798871, -0.0266275937426, -0.0350937130777, 0.00512293518845, 0.0872481929648, 0.0215046585541,
        0.315885746848, 0.13614388106, -0.294691135574, -0.562264100816, -0.0211946112742, 0.426120219756},
       {5.11083067998, 6.43027382794, 5.76907407654, 7.15562034965, 5.12009524348, 6.41410582241, 16.2148035746,
        17.550138485, 15.5499985938, 16.8722346235, 16.2351978316, 17.5776268915}});
  pytorch::check(
      CALL(scaled_dot_product_attention(
          x[0], x[1], x[2],
          {.mask = pytorch::mask({1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1}, {4, 2, 3}),
           .enable_gqa = true})),
      {q, k, v}, {1, 4, 2, 2},
      {0.454428618757, -0.416211149897, -0.0243461346802, 0.108612952956, 0.206341186857, -0.18872143978,
       -0.129729898246, 0.0417220402551, -0.0529360051713, -0.102296476965, -0.214937569342, 0.583204500837,
       0.0744624571163, -0.143179191168, -0.0347623742157, 0.312883736826},
      {{-0.010195847841, 0.0326201860086, 0.00123026717056, 0.000418220541033, -0.113706260704, 0.0698279228687,
        -0.404130670802, -0.0221760807658, -1.8046507707, 0.852771067516, 0, 0, -2.7859437005, 2.21691048429,
        -2.13401714737, 1.53544105118},
       {0.0733567097763, 0.18256328525, -0.121972941527, -0.0904757991465, 0.0486162317502, -0.0920874861036,
        0.56633405691, 0.478516444568, -1.29591392751, -0.650370983227, 0.729579870597, 0.17185453866},
       {3.74158099981, 5.0893513595, 7.16716250768, 8.59044842426, 5.09125649251, 6.32020021623, 20.6386208675,
        22.4494252099, 16.5645344529, 17.9821865491, 10.7968446796, 11.568388241}});
  pytorch::check(CALL(scaled_dot_product_attention(x[0], x[1], x[2], {.causal = true, .enable_gqa = true})),
                 {filled({1, 4, 2, 2}, 0), filled({1, 2, 2, 2}, 1), filled({1, 2, 2, 2}, 2)}, {1, 4, 2, 2},
                 {0.545578456095, -0.317901684545, -0.0243461346802, 0.108612952956, 0.545578456095, -0.317901684545,
                  -0.0623593258945, 0.137060896304, 0.350950315735, -0.527817455983, 0.00288086801867, 0.155556069249,
                  0.350950315735, -0.527817455983, -0.00474470365382, 0.170527546435},
                 {{0, 0, 0.00123026717056, 0.000418220541033, 0, 0, 0.186291989448, 0.0633286317654, 0, 0,
                   -1.41194478271, 0.287444506499, 0, 0, -1.81953329835, 0.370421603882},
                  {-0.0728890722612, -0.0648568061609, 0.0728890722612, 0.0648568061609, 1.58043509994, -0.223964966431,
                   -1.58043509994, 0.223964966431},
                  {10.0892601364, 12.9221782722, 5.91073986363, 7.07782172775, 31.805645151, 34.5619986873,
                   16.194354849, 17.4380013127}});
}

TEST_CASE("grouped-query attention: broadcast batches, memory order, dropout, errors") {
  manual_seed(11);
  const Tensor q = transpose(randn({2, 50, 6, 8}), 1, 2), k = randn({3, 40, 8}), v = randn({2, 3, 40, 8});
  const auto repeated = [](const Tensor& x) { return repeat_interleave(x, 2, -3); };
  for (const double dropout : {0.0, 0.3}) {
    CAPTURE(dropout);
    manual_seed(3);
    const Tensor y = scaled_dot_product_attention(q, k, v, {.dropout = dropout, .enable_gqa = true});
    manual_seed(3);
    CHECK(same(y, scaled_dot_product_attention(q, repeated(k), repeated(v), {.dropout = dropout})));
    CHECK(transpose(y, 1, 2).is_contiguous());
  }
  SAYS(ShapeError, scaled_dot_product_attention(q, expand(k, {2, 3, 40, 8}), v),
       "where heads of q share those of k and v, say {.enable_gqa = true}");
  SAYS(ShapeError, scaled_dot_product_attention(q, randn({4, 40, 8}), v, {.enable_gqa = true}),
       "the heads of q must be a multiple of those of k and v");
  SAYS(ShapeError, scaled_dot_product_attention(randn({5, 8}), k, v, {.enable_gqa = true}), "enable_gqa needs heads");
  SAYS(ValueError, nn::MultiheadAttention(8, 4, {.kv_heads = 3}), "4 heads can't share 3 heads of keys and values");
}

TEST_CASE("nn::MultiheadAttention from one sequence to another, as PyTorch's") {
  const nn::MultiheadAttention packed(4, 2, {.dtype = float64});
  const Tensors operands{filled({1, 2, 4}, 0), filled({1, 3, 4}, 1), filled({1, 3, 4}, 2), filled({12, 4}, 3),
                         filled({12}, 4),      filled({4, 4}, 5),    filled({4}, 6)};
  pytorch::check(
      "cross", [&](const Tensors& x) { return with_parameters(packed, x, 3)(x[0], x[1], x[2]); }, operands, {1, 2, 4},
      {0.790598962298, 1.26707286872, 0.228863759274, -0.898803956681, 0.78211963967, 1.2649989333, 0.233736933396,
       -0.888256570552},
      {{0.0303342880546, -0.111447287133, -0.00161554935205, 0.111863596412, 0.0291299214002, -0.219717329448,
        0.0274888150012, 0.212633764513},
       {0.574175255026, -0.471754912141, -0.452609208853, 0.588387321397, 0.305794989948, -0.234727357821,
        -0.245308334517, 0.297940614435, -0.879970244974, 0.706482269962, 0.69791754337, -0.886327935833},
       {-0.420852426581, 2.5254861638, -0.22993754867, -2.46623378945, 0.516946076445, 2.38909245651, -1.13258889521,
        -2.09723676961, 1.12935715068, 2.32760545858, -1.72915544714, -1.88202114029},
       {0.0463802291753,    0.124509662336,     -0.0784649981324, -0.104290096327,  0.0851141832624,
        0.227998212837,     -0.143866812129,    -0.190925319528,  -0.022215581012,  -0.0688508239923,
        0.0399576802102,    0.0585541697925,    -0.02203768367,   -0.0666084471958, 0.0392019470595,
        0.0565065371072,    -0.000332387126816, -0.463181933531,  0.119689271112,   0.432339326313,
        -0.000385314870639, -0.429638754242,    0.111098490911,   0.401009896485,   -0.000150356344131,
        -0.00550004122409,  0.00156765640438,   0.00509607343079, 0.00159866461068, 0.00509152542186,
        -0.00291069464702,  -0.00434147146217,  -1.72716094812,   3.2557830997,     0.888181494088,
        -3.4846576906,      4.85921522439,      -9.17103424007,   -2.49594068673,   9.81421067122,
        0.541952522604,     -0.850918180638,    -0.322680277262,  0.934069334924,   -5.83655068651,
        8.87469188408,      3.54964031084,      -9.78939510564},
       {0.23973556841, 0.439117302855, -0.130313166563, -0.126427567303, 5.55111512313e-16, 5.55111512313e-16,
        -1.56125112838e-17, -3.46944695195e-18, -6.36145241217, 17.9137396785, 1.74527895253, -18.3634788466},
       {-3.89796687774, 3.25452007764, 6.65761381753, 1.9729212479, -5.19954078709, 4.33723603525, 8.88909426936,
        2.63435108527, -6.50111469644, 5.41995199287, 11.1205747212, 3.29578092263, -7.80268860578, 6.50266795049,
        13.352055173, 3.95721076},
       {6, 8, 10, 12}});
  pytorch::check(
      "masked",
      [&](const Tensors& x) {
        return with_parameters(packed, x, 3)(x[0], x[1], x[2], pytorch::numbers({0, -1.5, 0.5, 0.25, 0, -1}, {2, 3}));
      },
      operands, {1, 2, 4},
      {0.797676431893, 1.25897592125, 0.207707358067, -0.927493653443, 0.773560388327, 1.28029390563, 0.268891005867,
       -0.842425818125},
      {{0.0509797607206, -0.123832176319, -0.0190695724501, 0.128746195156, -0.0185665782827, -0.209404936167,
        0.0725279244896, 0.190715288661},
       {0.645756153275, -0.551258108106, -0.503703008945, 0.681056827031, 0.0462822999247, -0.0176205523205,
        -0.0417416776188, 0.0283769230082, -0.6920384532, 0.568878660426, 0.545444686564, -0.709433750039},
       {-0.405979826638, 3.33285847426, -0.452861102712, -3.21616115473, 0.635870661182, 1.98203323316, -1.14661880039,
        -1.68656219419, 0.995559965999, 1.92729237147, -1.49220198792, -1.54276835043},
       {0.0427898403625,    0.128168042763,   -0.0758173336718,  -0.108630750731,  0.0729859481033,  0.221256255291,
        -0.130001248749,    -0.187756364985,  -0.00569973732071, -0.0575550312575, 0.0205310351138,  0.0522644095843,
        -0.00719304445874,  -0.054645311007,  0.0212745393834,   0.0491630964706,  0.0196817042637,  -0.431928343851,
        0.0916214738072,    0.408318498933,   0.0184046197909,   -0.394967243174,  0.0833740896291,  0.373482658342,
        0.000727490106433,  -0.0112798837403, 0.00217921172602,  0.0107183248747,  0.00244090599949, -0.00773160984016,
        -0.000448555279594, 0.00784719759649, -2.10907442002,    3.04483954096,    1.32445279828,    -3.38613644299,
        5.62962883212,      -8.69432719322,   -3.38919645122,    9.56768579887,    0.71307389053,    -0.762662181615,
        -0.516544244314,    0.895769945494,   -6.66939972719,    8.32443673153,    4.52428404525,    -9.49029491125},
       {0.243524967522, 0.419817113273, -0.100476474903, -0.0965673928221, -2.22044604925e-16, -2.22044604925e-16,
        3.46944695195e-17, 1.76182853029e-17, -6.36145241217, 17.9137396785, 1.74527895253, -18.3634788466},
       {-3.39923526035, 3.74327153612, 6.99091177515, 2.075297703, -4.67072888577, 4.84567220327, 9.23556088595,
        2.72528594806, -5.9422225112, 5.94807287042, 11.4802099967, 3.37527419312, -7.21371613662, 7.05047353757,
        13.7248591075, 4.02526243818},
       {6, 8, 10, 12}});
  const nn::MultiheadAttention apart(4, 2, {.kdim = 2, .vdim = 3, .dtype = float64});
  pytorch::check(
      "kdim and vdim", [&](const Tensors& x) { return with_parameters(apart, x, 3)(x[0], x[1], x[2]); },
      {filled({1, 2, 4}, 0), filled({1, 3, 2}, 1), filled({1, 3, 3}, 2), filled({4, 4}, 3), filled({4}, 4),
       filled({4, 2}, 5), filled({4}, 6), filled({4, 3}, 7), filled({4}, 8), filled({4, 4}, 9), filled({4}, 10)},
      {1, 2, 4},
      {0.104817596934, -0.574405077867, -0.190817457123, -0.644276516132, 0.108624957128, -0.573525668675,
       -0.193095705028, -0.649117331347},
      {{-0.00652767451582, 0.0735585778161, -0.0124275610038, -0.0703561321904, 0.00851075747178, 0.16731909748,
        -0.0516270464734, -0.15401537609},
       {0.144050923105, 0.145588747071, -0.00967371742192, -0.127503068243, -0.134377205683, -0.0180856788278},
       {-3.06948374954, -6.09147886206, 4.63919077653, -3.11400807103, -5.7159905445, 4.58695589324, -3.02657287146,
        -5.98948745654, 4.56999783631},
       {-0.0264790671166, -0.080026763329, 0.0471010828191, 0.0678893329358, 0.00750066264097, 0.0335861747192,
        -0.016155450035, -0.0294230931395, -0.125700991829, -0.312465810402, 0.206219990481, 0.259325189628,
        0.0883041980372, 0.222191186057, -0.145560420046, -0.184681868636},
       {-0.151897718665, 0.0613759480975, -0.607748451729, 0.431453651295},
       {-0.47290609225, -0.471547325343, -0.438290312269, -0.444393014024, 0.0281404660689, -0.0036347874114,
        -0.129860245004, -0.00307557613043},
       {0, 1.11022302463e-16, 3.46944695195e-17, -5.55111512313e-17},
       {-2.24257425754, -1.76236147937, 2.69671540469, -3.74437956812, -2.93663799092, 4.50111884186, 3.28920672704,
        2.59306274394, -3.95741044287, 2.98778620188, 2.35074900539, -3.59354833551},
       {-8.88747344399, -14.802582848, 12.7019360466, 11.529433795},
       {5.54351183307, -0.941103228277, -5.30773979901, 0.280364384524, 7.38666694808, -1.253268245, -7.0752952636,
        0.373267511162, 9.22982206309, -1.56543326172, -8.84285072819, 0.466170637799, 11.0729771781, -1.87759827845,
        -10.6104061928, 0.559073764436},
       {6, 8, 10, 12}});
  SAYS(ShapeError, apart(ones({2, 4}), ones({3, 4}), ones({3, 3})), "key needs [batch.., source, 2], got [3, 4]");
  CHECK(nn::named_parameters(apart)[2].name == "key.weight");
}

TEST_CASE("nn::MultiheadAttention: operands that are one tensor are multiplied at once, to the same result") {
  manual_seed(4);
  for (const int64_t kv_heads : {4, 2, 1}) {
    CAPTURE(kv_heads);
    const nn::MultiheadAttention layer(16, 4, {.causal = true, .kv_heads = kv_heads});
    const Tensor x = randn({2, 7, 16}), copy = x.clone();
    CHECK(layer.qkv->weight.shape() == Shape{16 + 8 * kv_heads, 16});
    CHECK(allclose(layer(x), layer(x, copy, copy), {.rtol = 1e-5, .atol = 1e-6}));
    CHECK(allclose(layer(x), layer(x, copy, x.clone()), {.rtol = 1e-5, .atol = 1e-6}));
  }
}

TEST_CASE("nn::KeyValueCache: decoding gives what attention to all at once does, in every mode") {
  manual_seed(8);
  for (const int64_t kv_heads : {4, 2}) {
    CAPTURE(kv_heads);
    const nn::MultiheadAttention layer(32, 4, {.causal = true, .kv_heads = kv_heads});
    const Tensor x = randn({2, 150, 32});
    const NoGrad guard;
    const Tensor whole = layer(x);
    for (const Mode mode : kModes) {
      CAPTURE(name_of(mode));
      nn::KeyValueCache cache = layer.make_cache({2}, 150);
      auto step = compile([&](const Tensor& next) { return layer(next, cache); }, {.mode = mode});
      for (int round = 0; round < 2; ++round) {
        int64_t at = 0;
        for (const int64_t count :
             {120, 1, 1, 1, 5, 1, 1, 20}) {  // a prompt, then single positions and several at once
          const Tensor y = step(slice(x, 1, at, at + count));
          CHECK(allclose(y, slice(whole, 1, at, at + count), {.rtol = 1e-4, .atol = 1e-6}));
          at += count;
        }
        CHECK(cache.length.item<int64_t>() == at);
        CHECK_THROWS_AS(step(slice(x, 1, 0, 1)), Error);
        cache.clear();
      }
      if (mode != Mode::eager) CHECK(step.stats().traces == 4);  // one for each number of positions: the place is data
    }
  }
}

TEST_CASE("nn::KeyValueCache: attention of one query to the cache has the bits of the last row of all") {
  manual_seed(9);
  const Tensor q = randn({3, 2, 200, 24}), k = randn({3, 2, 200, 24}), v = randn({3, 2, 200, 16});
  const Tensor whole = scaled_dot_product_attention(q, k, v, {.causal = true});
  const auto part = [](const Tensor& x, int64_t begin, int64_t end) { return slice(x, -2, begin, end); };
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    nn::KeyValueCache cache{zeros({3, 2, 256, 24}), zeros({3, 2, 256, 16}), zeros({}, {.dtype = int64})};
    auto step = compile(
        [&](const Tensor& q, const Tensor& k, const Tensor& v) { return cache.attend(q, k, v, {.causal = true}); },
        {.mode = mode});
    CHECK(same(step(part(q, 0, 190), part(k, 0, 190), part(v, 0, 190)), part(whole, 0, 190)));
    for (int64_t i = 190; i < 200; ++i)
      CHECK(same(step(part(q, i, i + 1), part(k, i, i + 1), part(v, i, i + 1)), part(whole, i, i + 1)));
  }
}

TEST_CASE("nn::KeyValueCache: what it refuses") {
  nn::MultiheadAttention layer(8, 2, {.causal = true});
  nn::KeyValueCache cache = layer.make_cache({1}, 3);
  CHECK(cache.capacity() == 3);
  SAYS(AutogradError, layer(ones({1, 1, 8}), cache), "no gradient flows through a cache");
  const NoGrad guard;
  layer(ones({1, 2, 8}), cache);
  SAYS(ShapeError, layer(ones({1, 2, 8}), cache), "2 of 3 positions are filled, which leaves no room for 2 more");
  SAYS(ShapeError, layer(ones({2, 1, 8}), cache), "don't fit a cache of [1, 2, 3, 4]");
  layer.dropout = 0.5;
  SAYS(ValueError, layer(ones({1, 1, 8}), cache), "nn::eval(model)");
}

TEST_CASE("nn::KeyValueCache: twice in one function, after what it forgot, and after errors") {
  manual_seed(12);
  nn::MultiheadAttention layer(8, 4, {.causal = true, .kv_heads = 2});
  const Tensor x = randn({2, 6, 8});
  const NoGrad guard;
  const Tensor whole = layer(x);
  const auto close = [&](const Tensor& y, int64_t begin) {
    return allclose(y, slice(whole, 1, begin, begin + y.shape()[1]), {.rtol = 1e-4, .atol = 1e-6});
  };
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    nn::KeyValueCache cache = layer.make_cache({2}, 6);
    auto both = compile(
        [&](const Tensor& a, const Tensor& b) {
          const Tensor first = layer(a, cache);
          return std::pair(first, layer(b, cache));
        },
        {.mode = mode});
    both(full({2, 4, 8}, NAN), full({2, 2, 8}, NAN));
    cache.clear();
    for (int64_t at = 0; at < 6; at += 3) {
      const auto [first, second] = both(slice(x, 1, at, at + 2), slice(x, 1, at + 2, at + 3));
      CHECK(close(first, at));
      CHECK(close(second, at + 2));
    }
    CHECK(cache.length.item<int64_t>() == 6);
    cache.clear();
    auto attend = compile(
        [&](const Tensor& q, const Tensor& k) { return cache.attend(q, k, k, {.causal = true, .enable_gqa = true}); },
        {.mode = mode});
    CHECK_THROWS_AS(attend(ones({2, 4, 1, 3}), ones({2, 2, 1, 2})), ShapeError);  // q's width, not k's
    CHECK_THROWS_AS(attend(ones({3, 4, 1, 2}), ones({2, 2, 1, 2})), ShapeError);
    CHECK_THROWS_AS(attend(ones({2, 4, 2, 2}), ones({2, 2, 1, 2})), ShapeError);  // q's positions, not k's
    CHECK(cache.length.item<int64_t>() == 0);
  }
}

TEST_CASE("nn::TransformerBlock decodes with a cache") {
  manual_seed(10);
  nn::TransformerBlock block(16, 4, {.causal = true, .kv_heads = 2});
  const Tensor x = randn({1, 9, 16});
  const NoGrad guard;
  const Tensor whole = block(x);
  nn::KeyValueCache cache = block.make_cache({1}, 9);
  for (int64_t i = 0; i < 9; ++i)
    CHECK(allclose(block(slice(x, 1, i, i + 1), cache), slice(whole, 1, i, i + 1), {.rtol = 1e-4, .atol = 1e-6}));
}

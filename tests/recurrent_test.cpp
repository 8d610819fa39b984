// Rnn, Lstm, Gru and their cells against numbers of torch 2.15 (float64), three modes, states, errors.
#include <doctest/doctest.h>

#include <cmath>

#include "core/threads.h"
#include "support.h"
#include "tandem.h"

using namespace tandem;
using Numbers = std::vector<double>;

namespace {

Tensor filled(const Shape& shape, double salt) {
  Numbers values;
  for (int64_t i = 0; i < shape.numel(); ++i) values.push_back(0.6 * std::sin(1.7 * static_cast<double>(i) + salt));
  return tensor(values).reshape(shape);
}

void check_close(const Tensor& got, const Numbers& expected) {
  const Numbers values = got.contiguous().to_vector<double>();
  REQUIRE(values.size() == expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    CAPTURE(i);
    CHECK(std::fabs(values[i] - expected[i]) < 2e-9);
  }
}

/// Fills the weights in the order of PyTorch's named_parameters(): parameter k by filled(shape, k + 1).
template <class Layer> void fill_weights(Layer& layer) {
  double salt = 1;
  for (const Tensor& parameter : nn::parameters(layer)) nn::init::set(parameter, filled(parameter.shape(), salt++));
}

struct Expected {
  Numbers output;
  std::vector<Numbers> states;
  Numbers dx;
  Numbers sums;  ///< of each weight's gradient times filled(shape, 40)
  std::vector<Numbers> d_states = {};
};

/// Runs the layer on x and states of known values, and backward of a weighted sum of all it returns.
template <class Layer, class Run>
void check_layer(Layer& layer, const Shape& x_shape, size_t state_count, bool given, const Expected& expected,
                 const Run& run) {
  fill_weights(layer);
  Tensor x = filled(x_shape, 0.5).requires_grad(true);
  const int64_t directions = layer.options().layers * (layer.options().bidirectional ? 2 : 1);
  const Shape state_shape{directions, x_shape[layer.options().batch_first ? 0 : 1], layer.hidden()};
  Tensors states;
  for (size_t i = 0; i < state_count; ++i)
    states.push_back(given ? filled(state_shape, 20.0 + static_cast<double>(i)).requires_grad(true) : Tensor());
  const Tensors results = run(layer, x, states);
  check_close(results[0], expected.output);
  Tensor loss = (results[0] * filled(results[0].shape(), 30)).sum();
  for (size_t i = 0; i < state_count; ++i) {
    check_close(results[i + 1], expected.states[i]);
    loss = loss + (results[i + 1] * filled(state_shape, 31.0 + static_cast<double>(i))).sum();
  }
  loss.backward();
  check_close(x.grad(), expected.dx);
  Numbers sums;
  for (const Tensor& parameter : nn::parameters(layer))
    sums.push_back((parameter.grad() * filled(parameter.shape(), 40)).sum().item<double>());
  check_close(tensor(sums), expected.sums);
  for (size_t i = 0; i < expected.d_states.size(); ++i) check_close(states[i].grad(), expected.d_states[i]);
}

const auto run_lstm = [](const nn::Lstm& layer, const Tensor& x, const Tensors& s) {
  const nn::LstmResult result = layer(x, {s[0], s[1]});
  return Tensors{result.output, result.state.hidden, result.state.cell};
};
const auto run_other = [](const auto& layer, const Tensor& x, const Tensors& s) {
  const nn::RnnResult result = layer(x, s[0]);
  return Tensors{result.output, result.hidden};
};

}  // namespace

TEST_CASE("Lstm computes what torch.nn.LSTM does, forwards and backwards") {
  nn::Lstm layer(2, 2, {.layers = 2, .dtype = float64});
  check_layer(layer, {3, 2, 2}, 2, true,
              {{0.1746127055, -0.2816645182, 0.1147013482, 0.1626256824, 0.1518194638, -0.2515819652, 0.1906366689,
                -0.05211664546, 0.1551466531, -0.2136096101, 0.1908040828, -0.136352111},
               {{-0.2635652695, -0.175613258, -0.3175482616, -0.06281815091, 0.1551466531, -0.2136096101, 0.1908040828,
                 -0.136352111},
                {-0.3471603056, -0.3618877179, -0.5118026325, -0.1037084829, 0.6834569102, -0.3424516473, 0.8299141951,
                 -0.2176537793}},
               {0.00135890961, 0.006112903547, 0.04033247345, -0.04331872588, 0.01826702243, 0.01791923439,
                0.07876504012, -0.07649952216, 0.08134729965, -0.0214720768, 0.1166774355, -0.0744922284},
               {0.07329073651, 0.05205075219, 0.2033846604, 0.2033846604, -0.0229233733, -0.02101461992, -0.3885159311,
                -0.3885159311},
               {{0.006069857991, 0.0014813967, -0.010556549, -0.05289303147, -0.1555439027, -0.04723033016,
                 0.2053875961, 0.1144718964},
                {0.02280978391, 0.03558157174, -0.0485456619, -0.2414000986, -0.04168530246, 0.2358651703,
                 0.02714929828, -0.2607115533}}},
              run_lstm);
}

TEST_CASE("Lstm: bidirectional, batch first, without a state") {
  nn::Lstm layer(2, 2, {.layers = 2, .batch_first = true, .bidirectional = true, .dtype = float64});
  check_layer(layer, {1, 2, 2}, 2, false,
              {{-0.03895350881, 0.130873978, -0.207373833, -0.1996060402, -0.07240302534, 0.1426121755, -0.1278539453,
                -0.113634774},
               {{-0.2917483429, -0.1370031482, 0.2305225664, -0.1737273807, -0.07240302534, 0.1426121755, -0.207373833,
                 -0.1996060402},
                {-0.4098934247, -0.271166209, 0.7670470662, -0.3325974695, -0.1213595759, 0.7288979955, -0.3191647914,
                 -0.2838737209}},
               {0.08942266793, 0.05876932757, 0.009008686314, 0.1811810218},
               {0.003056016174, -0.009987742255, -0.1727414501, -0.1727414501, 0.06129273161, -0.01337459304,
                0.2570006905, 0.2570006905, 0.05308274102, 0.01114068534, -0.006249651653, -0.006249651653,
                -0.08711004645, -0.01610942988, 0.03246481473, 0.03246481473}},
              run_lstm);
}

TEST_CASE("Gru computes what torch.nn.GRU does, forwards and backwards") {
  nn::Gru layer(2, 2, {.layers = 2, .dtype = float64});
  check_layer(layer, {3, 2, 2}, 1, true,
              {{0.7097317403, -0.208916322, 0.3059876685, 0.196116494, 0.7008454457, -0.2018092783, 0.6333530503,
                0.05644838469, 0.6482720004, -0.147908842, 0.7502929516, -0.04585491424},
               {{0.0370464055, -0.4323014054, -0.5883387861, -0.2084254971, 0.6482720004, -0.147908842, 0.7502929516,
                 -0.04585491424}},
               {0.07608699782, -0.06459988888, -0.04409892074, 0.03212627236, 0.007419223056, -0.0126857558,
                -0.002655438644, 0.005389168215, -0.08301862346, 0.0587553675, 0.04815129958, -0.04250815569},
               {-0.0711850988, -0.01477100255, 0.05339518292, 0.008478894757, 0.3059711047, -0.01274633852,
                0.05865449927, -0.09367972933},
               {{-0.06447107739, -0.3568197707, 0.04523129946, 0.3535462403, -0.3994307046, 0.1734267534, 0.4333643924,
                 -0.3237673842}}},
              run_other);
  nn::Gru both(2, 2, {.bidirectional = true, .dtype = float64});
  check_layer(both, {2, 1, 2}, 1, true,
              {{0.2297523053, -0.01695221824, 0.6700133931, -0.206206849, -0.04304637295, -0.1516694118, 0.2517909519,
                0.1066936111},
               {{-0.04304637295, -0.1516694118, 0.6700133931, -0.206206849}},
               {-0.4668120825, 0.5936654122, -0.312149272, 0.5351549036},
               {0.09918697562, 0.05088104594, -0.1279704954, 0.1521337161, -0.008672077946, 0.026805454, 0.5620497233,
                0.3358530112},
               {{-0.8540008871, 1.023902977, 0.3512256786, -0.4270487792}}},
              run_other);
}

TEST_CASE("Rnn computes what torch.nn.RNN does, with tanh and relu") {
  nn::Rnn layer(2, 2, {.layers = 2, .bidirectional = true, .dtype = float64});
  check_layer(layer, {3, 1, 2}, 1, true,
              {{-0.414789273, 0.9222750072, -0.7592518881, -0.8612545472, -0.7363364604, 0.8823789996, -0.7703694839,
                -0.9180522306, -0.3784873955, 0.8992679077, -0.7538971228, -0.8735139665},
               {{0.03686078002, -0.8966804776, 0.6444213134, 0.2406638014, -0.3784873955, 0.8992679077, -0.7592518881,
                 -0.8612545472}},
               {-0.6961047029, 0.2347858458, 0.06235140861, -0.2381659737, -0.3740797369, 0.0006585345871},
               {-0.00102665595, -0.3266994274, -0.528968477, -0.528968477, -0.1604126953, 0.2316131682, 0.3387666501,
                0.3387666501, 0.03973820985, 0.2888388917, -0.4874967981, -0.4874967981, -0.1991953738, 0.004086393875,
                0.4233273356, 0.4233273356},
               {{-0.2205535208, 0.1422192839, -0.01266164507, 0.1660391099, 0.1504575405, 0.1990664844, 0.1542219829,
                 -0.02101467292}}},
              run_other);
  nn::Rnn relu(2, 3, {.bidirectional = true, .nonlinearity = RnnNonlinearity::relu, .dtype = float64});
  check_layer(relu, {2, 1, 2}, 1, false,
              {{0, 0, 0.7596227778, 0.8480893489, 0, 0, 0, 0, 0.4281090441, 1.133227977, 0.165181096, 0},
               {{0, 0, 0.4281090441, 0.8480893489, 0, 0}},
               {0.8474815515, -0.2453292358, -0.7381472691, 0.3584262495},
               {-0.1434940534, 0.01133483535, -0.1357446017, -0.1357446017, 0.1061641649, -0.3925171367, 0.1326078675,
                0.1326078675}},
              run_other);
}

TEST_CASE("recurrent cells compute what torch.nn's do") {
  const Tensor x = filled({2, 2}, 0.5), h = filled({2, 3}, 20), c = filled({2, 3}, 21);
  nn::LstmCell lstm(2, 3, {.dtype = float64});
  fill_weights(lstm);
  const LstmState next = lstm(x, {h, c});
  check_close(next.hidden, {0.2755181694, 0.1005823653, -0.4595585455, 0.1929060851, 0.189731444, -0.1976360902});
  check_close(next.cell, {0.7996129342, 0.1461602368, -0.822150805, 0.6083580722, 0.264890644, -0.5829877012});
  nn::GruCell gru(2, 3, {.dtype = float64});
  fill_weights(gru);
  check_close(gru(x, h), {0.644704034, 0.5044398298, -0.7591216832, 0.1484555193, 0.4268506677, -0.3916223744});
  nn::RnnCell rnn(2, 3, {.dtype = float64});
  fill_weights(rnn);
  check_close(rnn(x, h), {0.3959761328, -0.4892323528, 0.6069318814, -0.6713524061, -0.3640035454, 0.6186626516});
  CHECK(lstm(x).hidden.shape() == Shape{2, 3});
  CHECK(allclose(gru(x), gru(x, zeros({2, 3}, {.dtype = float64}))));
}

TEST_CASE("recurrent layers: weights are named as PyTorch's, and start within 1 / sqrt(hidden)") {
  nn::Lstm layer(3, 4, {.layers = 2, .bidirectional = true});
  std::vector<std::string> names;
  for (const nn::NamedTensor& each : nn::named_parameters(layer)) {
    names.push_back(each.name);
    CHECK(abs(each.tensor).max().item<double>() <= 0.5);
  }
  CHECK(names.size() == 16);
  CHECK(names[0] == "weight_ih_l0");
  CHECK(names[7] == "bias_hh_l0_reverse");
  CHECK(names[8] == "weight_ih_l1");
  CHECK(layer.weights(0).weight_ih.shape() == Shape{16, 3});
  CHECK(layer.weights(1, true).weight_ih.shape() == Shape{16, 8});
  CHECK(nn::parameters(nn::Gru(3, 4, {.bias = false})).size() == 2);
}

TEST_CASE("recurrent layers: a sequence in two pieces is the sequence whole") {
  manual_seed(1);
  const Tensor x = randn({6, 3, 4});
  nn::Lstm lstm(4, 5, {.layers = 2});
  const auto [whole, end] = lstm(x);
  const auto [first, middle] = lstm(x.slice(0, 0, 2));
  const auto [second, last] = lstm(x.slice(0, 2, 6), middle);
  CHECK(allclose(concat({first, second}), whole, {.rtol = 1e-5, .atol = 1e-6}));
  CHECK(allclose(last.cell, end.cell, {.rtol = 1e-5, .atol = 1e-6}));
  nn::Gru gru(4, 5);
  const auto [all, final] = gru(x);
  CHECK(allclose(gru(x.slice(0, 2, 6), gru(x.slice(0, 0, 2)).hidden).hidden, final, {.rtol = 1e-5, .atol = 1e-6}));
}

TEST_CASE("recurrent layers: three modes train alike") {
  const auto train = [](Mode mode) {
    manual_seed(4);
    struct Model {
      nn::Embedding embedding{11, 6};
      nn::Lstm lstm{6, 7, {.layers = 2, .dropout = 0.2}};
      nn::Gru gru{7, 5, {.bidirectional = true}};
      nn::Linear head{10, 11};
      Tensor operator()(const Tensor& ids) const { return head(gru(lstm(embedding(ids)).output).output); }
    } model;
    nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 1e-2});
    const Tensor ids = randint(0, 11, {9, 4});
    auto step = compile(
        [&](const Tensor& batch) {
          optimizer.zero_grad();
          Tensor loss =
              cross_entropy(model(batch.slice(0, 0, 8)).reshape({-1, 11}), batch.slice(0, 1, 9).reshape({-1}));
          loss.backward();
          optimizer.step();
          return loss;
        },
        {.mode = mode});
    Numbers losses;
    for (int i = 0; i < 8; ++i) losses.push_back(step(ids).item<double>());
    return losses;
  };
  const Numbers eager = train(Mode::eager), replay = train(Mode::replay), compiled = train(Mode::compiled);
  CHECK(eager.back() < eager.front());
  for (size_t i = 0; i < eager.size(); ++i) {
    CHECK(replay[i] == doctest::Approx(eager[i]).epsilon(1e-5));
    CHECK(compiled[i] == doctest::Approx(eager[i]).epsilon(1e-4));
  }
}

TEST_CASE("recurrent layers: under Autocast the products are of 16 bits, the states float32; 16-bit weights work too") {
  manual_seed(7);
  const Tensor x = randn({5, 3, 6});
  nn::Lstm lstm(6, 8, {.layers = 2});
  nn::GruCell cell(6, 8);
  const Tensor expected = lstm(x).output, step = cell(x[0]);
  {
    const Autocast guard(bfloat16);
    const Tensor got = lstm(x).output;
    CHECK(got.dtype() == float32);
    CHECK(allclose(got, expected, {.rtol = 0.05, .atol = 0.02}));
    CHECK(allclose(cell(x[0]), step, {.rtol = 0.05, .atol = 0.02}));
    got.sum().backward();
  }
  CHECK(lstm.weights(0).weight_hh.grad().dtype() == float32);
  nn::to(lstm, bfloat16);
  const Tensor low = lstm(x.to(bfloat16)).output;
  CHECK(low.dtype() == bfloat16);
  CHECK(allclose(low.to(float32), expected, {.rtol = 0.05, .atol = 0.02}));
}

TEST_CASE("recurrent layers: the same on any number of threads, forwards and backwards") {
  manual_seed(6);
  const int before = num_threads();
  const Tensor gates = randn({9, 23, 4 * 40}), weight = randn({4 * 40, 40}) * 0.1, state = randn({23, 40});
  const auto run = [&](int threads) {
    set_num_threads(threads);
    Tensor x = gates.detach().clone().requires_grad(true);
    const LstmState all = lstm(x, weight, {state, state});
    (all.hidden * all.cell).sum().backward();
    Numbers numbers = all.hidden.to_vector<double>();
    const Numbers gradient = x.grad().to_vector<double>();
    numbers.insert(numbers.end(), gradient.begin(), gradient.end());
    return numbers;
  };
  const Numbers alone = run(1);
  CHECK(run(2) == alone);
  CHECK(run(5) == alone);
  set_num_threads(before);
}

TEST_CASE("recurrent layers: dropout only while training") {
  manual_seed(5);
  nn::Gru gru(3, 4, {.layers = 2, .dropout = 0.5});
  const Tensor x = randn({3, 2, 3});
  CHECK(!allclose(gru(x).output, gru(x).output));
  nn::eval(gru);
  CHECK(allclose(gru(x).output, gru(x).output));
}

TEST_CASE("recurrent layers: errors") {
  CHECK(contains(thrown<ValueError>([] { nn::Lstm(0, 3); }),
                 "nn::Lstm: need at least 1 input and 1 hidden unit, got 0 and 3"));
  CHECK(contains(thrown<ValueError>([] { nn::Gru(2, 3, {.layers = 0}); }), "layers is 0"));
  CHECK(contains(thrown<ValueError>([] { nn::Rnn(2, 3, {.dropout = 1}); }), "dropout is 1"));
  const nn::Lstm lstm(2, 3);
  CHECK(contains(thrown<ShapeError>([&] { lstm(ones({4, 2})); }), "x is [4, 2], need [time, batch, 2]; unsqueeze"));
  CHECK(contains(thrown<ShapeError>([&] { lstm(ones({4, 1, 3})); }), "need [time, batch, 2]"));
  CHECK(contains(thrown<ShapeError>([&] { lstm(ones({0, 1, 2})); }), "has no time steps"));
  CHECK(contains(thrown<ShapeError>([&] {
                   lstm(ones({4, 5, 2}), {ones({1, 4, 3}), ones({1, 5, 3})});
                 }),
                 "a state of [1, 4, 3]"));
  CHECK(contains(thrown<ShapeError>([] {
                   tandem::lstm(ones({2, 3, 7}), ones({4, 1}), {ones({3, 1}), ones({3, 1})});
                 }),
                 "lstm: x gates [2, 3, 7] don't split into 4"));
  CHECK(contains(thrown<ShapeError>([] {
                   tandem::gru(ones({2, 3, 6}), ones({5, 2}), ones({6}), ones({3, 2}));
                 }),
                 "gru: weight is [5, 2], need [6, 2]"));
  CHECK(contains(thrown<DTypeError>([] {
                   lstm_cell(ones({2, 8}), ones({2, 2}, {.dtype = float64}));
                 }),
                 "lstm_cell: cell is float64, the gates are float32"));
}

namespace {

auto run_lstm_padded(const std::vector<int64_t>& lengths) {
  return [=](const nn::Lstm& layer, const Tensor& x, const Tensors& s) {
    const nn::LstmResult result = layer(x, {s[0], s[1]}, nn::Lengths(lengths));
    return Tensors{result.output, result.state.hidden, result.state.cell};
  };
}
auto run_other_padded(const std::vector<int64_t>& lengths) {
  return [=](const auto& layer, const Tensor& x, const Tensors& s) {
    const nn::RnnResult result = layer(x, s[0], nn::Lengths(lengths));
    return Tensors{result.output, result.hidden};
  };
}

}  // namespace

TEST_CASE("lengths: sequences of a padded batch end as those of torch's pack_padded_sequence") {
  {
    nn::Lstm layer(2, 2, {.layers = 2, .dtype = float64});
    check_layer(
        layer, {3, 3, 2}, 2, true,
        {{0.08868240126, 0.2450813419, 0.1679537068, -0.2876817565, 0.121018913, 0.1663217411, 0.1652989908,
          0.01725959646, 0, 0, 0.1668018049, -0.01130648818, 0.1750740141, -0.08785651006, 0, 0, 0, 0},
         {{-0.256807318, -0.1793367964, -0.3007115831, 0.0703353037, -0.2115289059, -0.2455297259, 0.1750740141,
           -0.08785651006, 0.1679537068, -0.2876817565, 0.1668018049, -0.01130648818},
          {-0.3270408265, -0.4080599784, -0.4164800101, 0.1453346395, -0.3179346342, -0.4293813013, 0.7807600659,
           -0.1361770642, 0.5720107467, -0.5522696937, 0.7590874526, -0.01710994744}},
         {0.01492866466, 0.0007165559687, 0.0872443635, -0.05899492062, 0.1013589275, -0.05386880113, -0.01144216412,
          0.02376011133, 0, 0, -0.02576361935, -0.02683193273, 0.1057117791, -0.04069221793, 0, 0, 0, 0},
         {0.05869372635, 0.03822581454, -0.2710775913, -0.2710775913, -0.04542201786, 0.09947357432, 0.1702532114,
          0.1702532114},
         {{0.0103061748, -0.01235880957, 0.006617002088, -0.09945582574, 0.02013601824, -0.1092234364, -0.01247779848,
           -0.005849776394, 0.1278537425, 0.1593900391, -0.07448963798, -0.06572482454},
          {0.09574184091, 0.1789154825, -0.2392438438, -0.3884251934, 0.2818360754, 0.1619681428, -0.02764050962,
           -0.0535253174, 0.2109536674, -0.02420452683, -0.06976660007, 0.01243184341}}},
        run_lstm_padded({3, 1, 2}));
  }
  {
    nn::Lstm layer(2, 2, {.layers = 2, .batch_first = true, .bidirectional = true, .dtype = float64});
    check_layer(layer, {2, 3, 2}, 2, false,
                {{-0.03895350881,
                  0.130873978,
                  -0.207373833,
                  -0.1996060402,
                  -0.07240302534,
                  0.1426121755,
                  -0.1278539453,
                  -0.113634774,
                  0,
                  0,
                  0,
                  0,
                  -0.04623494575,
                  0.1305481489,
                  -0.2343838224,
                  -0.2591451417,
                  -0.06699394501,
                  0.1519531463,
                  -0.2091563506,
                  -0.1982290526,
                  -0.08081475958,
                  0.1527864722,
                  -0.1424396123,
                  -0.1138201423},
                 {{-0.2917483429, -0.1370031482, -0.303453004, -0.1684374251, 0.2305225664, -0.1737273807, 0.1701669791,
                   -0.1894508179, -0.07240302534, 0.1426121755, -0.08081475958, 0.1527864722, -0.207373833,
                   -0.1996060402, -0.2343838224, -0.2591451417},
                  {-0.4098934247, -0.271166209, -0.475797775, -0.289284871, 0.7670470662, -0.3325974695, 0.7702357498,
                   -0.2953332248, -0.1213595759, 0.7288979955, -0.1319683407, 0.8064703167, -0.3191647914,
                   -0.2838737209, -0.363121856, -0.388362837}},
                 {-0.1272430551, 0.05269643123, -0.04092975701, -0.04950764234, 0, 0, 0.1411111916, -0.08027583838,
                  -0.00285757598, 0.0859876728, 0.1019652352, 0.03007773492},
                 {-0.03950826859, 0.0002442561229, 0.03551561006, 0.03551561006, -0.05371592514, -0.02847373513,
                  0.1321630022, 0.1321630022, 0.04560345747, 0.02126995829, 0.01351886176, 0.01351886176,
                  -0.05805027964, -0.03173079792, 0.02677220841, 0.02677220841},
                 {}},
                run_lstm_padded({2, 3}));
  }
  {
    nn::Gru layer(2, 2, {.bidirectional = true, .dtype = float64});
    check_layer(layer, {3, 2, 2}, 1, true,
                {{0.2297523053,
                  -0.01695221824,
                  0.7803074409,
                  -0.3465575335,
                  -0.5261774287,
                  -0.1440803289,
                  0.7089010453,
                  -0.04195726361,
                  0,
                  0,
                  0,
                  0,
                  -0.5461354012,
                  -0.1977108707,
                  0.6448094505,
                  -0.02494598381,
                  0,
                  0,
                  0,
                  0,
                  -0.5883387861,
                  -0.2084254971,
                  0.3181894425,
                  0.07687071096},
                 {{0.2297523053, -0.01695221824, -0.5883387861, -0.2084254971, 0.7803074409, -0.3465575335,
                   0.7089010453, -0.04195726361}},
                 {-0.3637625712, 0.174805635, -0.07459437786, 0.4085279866, 0, 0, 0.07629825438, 0.2875806594, 0, 0,
                  0.09567049632, 0.04344879511},
                 {0.1350509244, 0.05049849558, -0.01302458639, 0.08956156189, 0.2824314024, -0.1278468882, 0.5724414405,
                  0.2080464052},
                 {{-0.6606258681, 0.7229437076, -0.1318066962, 0.482207004, 0.1582804727, 0.1260998664, -0.1159648054,
                   -0.1109608631}}},
                run_other_padded({1, 3}));
  }
  {
    nn::Rnn layer(2, 2, {.bidirectional = true, .dtype = float64});
    check_layer(layer, {4, 2, 2}, 1, true,
                {{0.1433190033,
                  -0.8683350851,
                  0.8088570341,
                  -0.06419495744,
                  -0.7580857508,
                  -0.3691084992,
                  0.8045484545,
                  0.07278017229,
                  0.2966634288,
                  -0.9347780535,
                  0.5187069077,
                  0.4562938412,
                  -0.7534711834,
                  -0.3814303352,
                  0.7426181934,
                  0.173128466,
                  0,
                  0,
                  0,
                  0,
                  -0.7172481801,
                  -0.4104311919,
                  0.9267028379,
                  -0.3074048072,
                  0,
                  0,
                  0,
                  0,
                  0,
                  0,
                  0,
                  0},
                 {{0.2966634288, -0.9347780535, -0.7172481801, -0.4104311919, 0.8088570341, -0.06419495744,
                   0.8045484545, 0.07278017229}},
                 {-0.4740994243, -0.2852992015, -0.9168730285, 0.3047255538, -0.5750730922, 0.07209396328, 0.0686132929,
                  -0.06042410387, 0, 0, 0.3406848876, 0.1533037117, 0, 0, 0, 0},
                 {-0.2088605809, -0.3751538546, -0.7137104716, -0.7137104716, 0.146218448, 0.2021809569, 0.6298274888,
                  0.6298274888},
                 {{-0.518788252, 0.3173941068, -0.3127541309, 0.2534037281, -0.01276125973, 0.320042277, 0.01146981191,
                   0.0359237798}}},
                run_other_padded({2, 3}));
  }
}

TEST_CASE("lengths: padding is not read, whatever stands there, in every mode and with lengths as an argument") {
  manual_seed(2);
  nn::Gru layer(3, 4, {.layers = 2, .batch_first = true, .bidirectional = true});
  const Tensor clean = randn({2, 5, 3});
  Tensor dirty = clean.clone();
  dirty.slice(1, 3, 5).select(0, 1).assign(full({2, 3}, NAN));
  const Tensor lengths = tensor({5, 3});
  const auto losses = [&](const Tensor& x, const Tensor& steps) {
    for (Tensor& parameter : nn::parameters(layer)) parameter.set_grad({});
    const nn::RnnResult result = layer(x, nn::Lengths(steps));
    const Tensor loss = (result.output * result.output).sum() + result.hidden.sum();
    loss.backward();
    return std::tuple(result.output.detach(), result.hidden.detach());
  };
  const auto [output, hidden] = losses(clean, lengths);
  std::vector<Tensor> gradients;
  for (const Tensor& parameter : nn::parameters(layer)) gradients.push_back(parameter.grad().clone());
  CHECK(output.select(0, 1).slice(0, 3, 5).abs().sum().item<float>() == 0);
  const auto [alone, last] = losses(clean.slice(0, 1, 2).slice(1, 0, 3), tensor({3}));
  CHECK(allclose(output.slice(0, 1, 2).slice(1, 0, 3), alone, {.rtol = 1e-5, .atol = 1e-6}));
  CHECK(allclose(hidden.slice(1, 1, 2), last, {.rtol = 1e-5, .atol = 1e-6}));
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto step = compile(losses, {.mode = mode});
    for (int call = 0; call < 2; ++call) {
      const auto [y, h] = step(dirty, lengths);
      CHECK(allclose(y, output, {.rtol = 1e-5, .atol = 1e-6}));
      CHECK(allclose(h, hidden, {.rtol = 1e-5, .atol = 1e-6}));
    }
    const Tensors parameters = nn::parameters(layer);
    for (size_t i = 0; i < parameters.size(); ++i)
      CHECK(allclose(parameters[i].grad(), gradients[i], {.rtol = 1e-4, .atol = 1e-5}));
    if (mode != Mode::eager) {
      step(dirty, tensor({2, 5}));
      CHECK(step.stats().traces == 1);
    }
  }
}

TEST_CASE("lengths: what doesn't fit") {
  const nn::Lstm layer(2, 3);
  const Tensor x = ones({4, 2, 2});
  CHECK(contains(thrown<ShapeError>([&] { layer(x, nn::Lengths({4})); }), "the lengths are int64[1], need int64[2]"));
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    // Whether the final state, which is read by the lengths, is asked for or not.
    auto whole =
        compile([&](const Tensor& x, const Tensor& lengths) { return layer(x, nn::Lengths(lengths)).state.cell; },
                {.mode = mode});
    auto outputs = compile(
        [&](const Tensor& x, const Tensor& lengths) { return layer(x, nn::Lengths(lengths)).output; }, {.mode = mode});
    for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{5, 1}, {4, 0}, {-1, 2}}) {
      const std::string message = "nn::Lstm: a length is not 1 to 4, the steps of x";
      CHECK(contains(thrown<ValueError>([&] { whole(x, tensor(lengths)); }), message));
      CHECK(contains(thrown<ValueError>([&] { outputs(x, tensor(lengths)); }), message));
    }
    CHECK(outputs(x, tensor({4, 1})).shape() == Shape{4, 2, 3});
    CHECK(outputs(ones({4, 0, 2}), zeros({0}, {.dtype = int64})).shape() == Shape{4, 0, 3});
  }
}

TEST_CASE("recurrent: what ops say of their memory is true") {
  // Of each op that says something, calls: a new one is to be added here.
  for (const Op* op : op_table().all()) {
    const bool speaks = op->again || std::any_of(op->over.begin(), op->over.end(), [](int8_t i) { return i >= 0; });
    CHECK(speaks == (std::string_view(op->name) == "lstm" || std::string_view(op->name) == "lstm_grad"));
  }
  const auto check = [](const char* name, const Tensors& inputs, const Attributes& attributes) {
    const Op& op = find_op(name);
    const Tensors expected = dispatch_all(op, inputs, attributes, Where::current());
    for (size_t i = 0; i < expected.size(); ++i) {
      if (op.over[i] < 0) continue;
      Tensors operands = inputs, results;
      for (const Tensor& each : expected) results.push_back(empty(each.shape(), {.dtype = each.dtype()}));
      results[i] = operands[static_cast<size_t>(op.over[i])] = inputs[static_cast<size_t>(op.over[i])].clone();
      KernelContext context(op, operands, attributes, results, Where::current());
      kernel_for(op, cpu())(context);
      for (size_t j = 0; j < expected.size(); ++j) CHECK(same(results[j], expected[j]));
    }
    if (!op.again || (expected[0].dtype() != float32 && expected[0].dtype() != float64)) return expected;
    Tensors others = expected;
    others[0] = Tensor();
    CHECK(same(op.again(others, attributes), expected[0]));
    auto compiled = compile([&](const Tensor& second, const Tensor& third) {
      return op.again(Tensors{Tensor(), second, third}, attributes);
    });
    CHECK(same(compiled(expected[1], expected[2]), expected[0]));
    return expected;
  };
  for (const DType dtype : {float32, float64, bfloat16, float16})
    for (const int64_t width : {1, 7, 48, 65})
      for (const bool reverse : {false, true}) {
        CAPTURE(name_of(dtype));
        CAPTURE(width);
        CAPTURE(reverse);
        const auto made = [&](const Shape& shape, double salt) { return filled(shape, salt).to(dtype); };
        const Attributes attributes{{"reverse", reverse}};
        const Tensor weight = made({4 * width, width}, 2), h = made({9, width}, 3), c = made({9, width}, 4);
        const Tensors all = check("lstm", {made({5, 9, 4 * width}, 1), weight, h, c}, attributes);
        check("lstm", {made({5, 9, 4 * width}, 1), weight, h, c, made({4 * width}, 5)}, attributes);
        check("lstm_grad", {made({5, 9, width}, 6), all[1], all[2], weight, c}, attributes);
      }
}

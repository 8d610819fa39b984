// What a user sees who uses Tandem wrongly: the class of the error, its code, the reason with the values that
// caused it, the remedy, and the user's own line, which here is a line of this file.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>

#include "autograd/anomaly.h"
#include "autograd/autograd.h"
#include "core/ops/ops.h"
#include "formats/idx.h"
#include "graph/trace/compile.h"
#include "nn/nn.h"
#include "raises.h"

namespace td = tandem;
using td::Tensor;

namespace {

Tensor floats(const td::Shape& shape) { return td::ones(shape); }
Tensor integers(const td::Shape& shape) { return td::ones(shape, {.dtype = td::int64}); }
Tensor leaf(const td::Shape& shape) { return td::ones(shape, {.requires_grad = true}); }

std::string file_text(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The examples of docs/errors.md, whose text must stand there word for word (but for lines of code).
struct Example {
  const char* code;
  void (*run)();
};

const Example kExamples[] = {
    {"E001",
     [] {
       td::Tensor x = td::ones({4});
       dropout(x, 1.5);
     }},
    {"E002",
     [] {
       td::Tensor x = td::ones({64, 784}), weight = td::ones({512, 10});
       matmul(x, weight);
     }},
    {"E003",
     [] {
       td::Tensor logits = td::randn({2, 10}), labels = td::tensor({3.f, 7.f});
       cross_entropy(logits, labels);
     }},
    {"E004", [] { td::cuda(0); }},
    {"E005",
     [] {
       td::Tensor x = td::ones({3, 4});
       x.sum(2);
     }},
    {"E006",
     [] {
       td::Tensor weight = td::ones({3}, {.requires_grad = true});
       weight.grad() * 2;
     }},
    {"E007",
     [] {
       td::set_memory_limit(td::memory_stats().reserved + 1024);
       td::zeros({1024, 1024});
     }},
    {"E010",
     [] {
       td::Tensor x = td::ones({3}, {.requires_grad = true});
       td::Tensor loss = exp(x).sum();
       loss.backward();
       loss.backward();
     }},
    {"E011",
     [] {
       td::Tensor x = td::ones({2}, {.requires_grad = true}), scale = td::ones({2});
       td::Tensor loss = (x * scale).sum();
       scale.assign(scale * 2);
       loss.backward();
     }},
    {"E012",
     [] {
       td::Tensor x = td::tensor({1.0, 2.0});
       td::gradcheck([](const td::Tensor& x) { return x * x.detach(); }, {x});
     }},
    {"E013",
     [] {
       td::AnomalyMode guard;
       td::Tensor x = td::zeros({2}, {.requires_grad = true});
       td::Tensor root = sqrt(x);
       (root * root).sum().backward();
     }},
    {"E020",
     [] {
       auto step = td::compile([](const td::Tensor& x) { return x.sum().item<float>() > 0 ? x : -x; });
       step(td::ones({2}));
     }},
    {"E021",
     [] {
       auto twice =
           td::compile([](const td::Tensor& x) { return x * 2; },
                       {.mode = td::Mode::replay, .max_specialisations = 2, .dynamic = td::DynamicSizes::never});
       for (int64_t n : {1, 2, 3}) twice(td::ones({n}));
     }},
    {"E022", [] { td::parse_graph("nonsense"); }},
    {"E030",
     [] {
       td::Op op{.name = "unfinished", .infer = [](td::Infer& infer) { infer.output(infer.input(0)); }};
       td::dispatch(op, {td::ones({2})}, {}, td::Where::current());
     }},
    {"E040", [] { td::io::read_idx("digits/train-images-idx3-ubyte", 3); }},
};

}  // namespace

// clang-format off: a statement and what is expected of it stay on one line, whose number is checked.

TEST_CASE("E002 ShapeError: the whole text of one") {
  const Tensor x = floats({64, 784}), w = floats({512, 10});
  const std::string expected =
      "tandem::ShapeError: matmul: inner dimensions differ: [64, 784] x [512, 10] (784 and 512)\n  at "
      "errors_test.cpp:" +
      std::to_string(__LINE__ + 2);
  try {
    matmul(x, w);
    FAIL("no error");
  } catch (const td::ShapeError& error) { CHECK(std::string(error.what()) == expected); }
}

TEST_CASE("E002 ShapeError: shapes that don't fit, also in operators and methods") {
  const Tensor x = floats({3, 4}), image = floats({1, 2, 5, 5});
  RAISES(ShapeError, x + floats({3}), "add: shapes don't broadcast: [3, 4] and [3] (4 and 3 at dim -1)", "equal or 1");
  RAISES(ShapeError, x * floats({2, 4}), "mul: shapes don't broadcast", "(3 and 2 at dim -2)");
  RAISES(ShapeError, floats({2}) - x, "sub: shapes don't broadcast");
  RAISES(ShapeError, (void)(x > floats({5})), "greater: shapes don't broadcast");
  RAISES(ShapeError, where(x > 0, x, floats({7})), "where: shapes don't broadcast");
  RAISES(ShapeError, matmul(x, floats({5})), "matmul: inner dimensions differ: [3, 4] x [5]");
  RAISES(ShapeError, matmul(x, td::tensor(2.f)), "matmul: needs vectors or matrices", "use * to scale");
  RAISES(ShapeError, matmul(floats({2, 3, 4}), floats({3, 4, 5})), "batch dims don't broadcast");
  RAISES(ShapeError, linear(x, floats({7, 5})), "linear: inner dimensions differ", "[7, 5]");
  RAISES(ShapeError, linear(x, floats({7, 4}), floats({6})), "bias [6] for 7 outputs");
  RAISES(ShapeError, x.reshape({5, -1}), "reshape: [3, 4] has 12 elements, [5, -1] doesn't");
  RAISES(ShapeError, x.reshape({-1, -1}), "only one extent may be -1");
  RAISES(ShapeError, x.expand({3, 8}), "can't expand [3, 4] to [3, 8]", "only extents of 1 repeat");
  RAISES(ShapeError, x.expand({4}), "fewer dims");
  RAISES(ShapeError, td::concat({x, floats({3, 5})}), "concat: tensor 1 [3, 5] doesn't fit tensor 0 [3, 4]");
  RAISES(ShapeError, td::zeros({2, -3}), "negative extent in shape [2, -3]");
  RAISES(ShapeError, td::empty({-1}), "negative extent");
  RAISES(ShapeError, td::tensor({{1, 2}, {3}}), "rows of different lengths: 2 and 1");
  RAISES(ShapeError, x.item<float>(), "item: needs a tensor of one element, got [3, 4]", "index or reduce it first");
  RAISES(ShapeError, x.transpose(0, 1).data<float>(), "not contiguous; call contiguous() first");
  RAISES(ShapeError, floats({0, 3}).max(0), "max: dim 0 of [0, 3] is empty");
  RAISES(ShapeError, floats({3, 0}).argmax(1), "argmax: dim 1 of [3, 0] is empty");
  RAISES(ShapeError, conv2d(image, floats({4, 3, 3, 3})), "conv2d: x [1, 2, 5, 5] has 2 channels", "wants 3");
  RAISES(ShapeError, conv2d(image, floats({4, 2, 7, 3})), "larger than the padded input");
  RAISES(ShapeError, conv2d(image, floats({4, 2, 3, 3}), floats({5})), "bias [5] for 4 output channels");
  RAISES(ShapeError, conv2d(x, floats({4, 2, 3, 3})), "needs x [batch, channels, height, width]");
  RAISES(ShapeError, max_pool2d(x, 2), "max_pool2d: needs [batch, channels, height, width], got [3, 4]");
  RAISES(ShapeError, max_pool2d(image, 6), "larger than the padded input");
  RAISES(ShapeError, layer_norm(x, floats({5})), "weight [5] for rows of 4");
  RAISES(ShapeError, cross_entropy(x, integers({4})),
         "needs logits [batch, classes] and labels [batch], got [3, 4] and [4]");
  RAISES(ShapeError, cross_entropy(floats({2, 3, 4}), integers({2, 3})),
         "cross_entropy: needs logits [batch, classes, d1..] and labels [batch, d1..], got [2, 3, 4] and [2, 3]");
  RAISES(ShapeError, cross_entropy(x, integers({3}), {.weight = floats({3})}),
         "cross_entropy: weight [3] for 4 classes");
  RAISES(ShapeError, nll_loss(x, integers({4})), "nll_loss: needs log-probabilities [batch, classes, d1..]");
  RAISES(ShapeError, mse_loss(floats({3}), floats({3, 1})), "mse_loss: x [3] and target [3, 1] must have one shape",
         "where they are meant to broadcast");
  RAISES(ShapeError, bmm(floats({2, 3, 4}), floats({4, 5})),
         "bmm: needs [batch, m, k] and [batch, k, n], got [2, 3, 4] and [4, 5]; matmul broadcasts batches");
  RAISES(ShapeError, dot(floats({3}), floats({4})), "dot: needs two vectors of one length, got [3] and [4]");
  RAISES(ShapeError, outer(x, floats({4})), "outer: needs two vectors, got [3, 4] and [4]");
  RAISES(ShapeError, td::einsum("ij,jk->ik", {x, floats({5, 2})}),
         "einsum: label 'j' of \"ij,jk->ik\" is 4 in operand 0 [3, 4] and 5 in operand 1 [5, 2]");
  RAISES(ShapeError, td::einsum("ii->i", {x}),
         "einsum: label 'i' of \"ii->i\" is 3 in operand 0 [3, 4] and 4 in operand 0 [3, 4]");
  RAISES(ShapeError, embedding(integers({3}), floats({3})), "weight must be [count, width]");
  RAISES(ShapeError, gather(x, 1, integers({5, 2})), "index [5, 2] must have the rank of x [3, 4]");
  RAISES(ShapeError, scatter_add(floats({3, 2}), 0, integers({3, 2}), {5, 1}),
         "scatter_add: x [3, 2] must have the rank of the result [5, 1]");
  RAISES(ShapeError, td::scatter(x, 0, integers({2, 5}), 1), "scatter: index [2, 5] must have the rank of x [3, 4]");
  RAISES(ShapeError, td::scatter(x, 0, integers({2, 4}), floats({2, 3})),
         "scatter: src [2, 3] and index [2, 4] must have one shape");
  RAISES(ShapeError, td::index_select(x, 0, integers({1, 2})),
         "index_select: index must be [count], got [1, 2]; take() has one of any shape");
  RAISES(ShapeError, x.index_add(1, integers({2}), floats({3, 3})),
         "index_add: src is [3, 3], but x [3, 4] and index [2] along dim 1 need [3, 2]");
  RAISES(ShapeError, td::stack({x, floats({3, 5})}),
         "stack: tensor 1 is [3, 5], tensor 0 [3, 4]; all must have one shape");
  RAISES(ShapeError, td::split(x, {1, 2}, 1), "split: the sizes add up to 3, but dim 1 of [3, 4] has 4");
  RAISES(ShapeError, td::tril(floats({3})), "tril: needs [.., rows, columns], got [3]");
  RAISES(ShapeError, x.repeat({2}), "repeat: needs a number for each dim of [3, 4], got [2]");
  RAISES(ShapeError, td::zeros({1, 1, 1, 1, 1, 1, 1, 1, 1}), "a tensor has at most 8 dimensions; got 9");
  RAISES(ShapeError, floats({1, 1, 1, 1, 1, 1, 1, 1}).unsqueeze(0), "unsqueeze", "8 dims already");
  Tensor target = floats({3, 4});
  RAISES(ShapeError, target.assign(floats({5})), "can't expand [5] to [3, 4]");
  RAISES(ShapeError, target += floats({5}), "add: shapes don't broadcast");
  RAISES(ShapeError, target.set_grad(floats({3})), "set_grad: gradient [3] for a tensor [3, 4]");
  RAISES(ShapeError, leaf({2}).backward(), "backward: needs a tensor of one element, got [2]",
         "reduce it with sum() or mean(), or pass a gradient");
  RAISES(ShapeError, (leaf({2}) * 2).backward(floats({3})), "gradient [3] for a tensor [2]");
}

TEST_CASE("E001 ValueError: arguments outside their range") {
  const Tensor image = floats({1, 2, 5, 5}), w = floats({4, 2, 3, 3});
  RAISES(ValueError, floats({4}).slice(0, 0, 4, 0), "slice: step 0 must be at least 1");
  RAISES(ValueError, conv2d(image, w, {}, {.stride = 0}), "stride [0, 0]", "must be at least 1");
  RAISES(ValueError, conv2d(image, w, {}, {.padding = -1}), "padding [-1, -1] not negative");
  RAISES(ValueError, conv2d(image, w, {}, {.groups = 3}), "groups 3 don't divide 4 output channels");
  RAISES(ValueError, max_pool2d(image, 2, {.padding = 2}), "padding at most half the kernel");
  RAISES(ValueError, dropout(image, 1.5), "dropout: probability 1.5 must be between 0 and 1");
  RAISES(ValueError, dropout(image, NAN), "probability nan");
  RAISES(ValueError, td::randint(3, 3, {2}), "randint: the range [3, 3) is empty");
  RAISES(ValueError, td::arange(0, 5, -1), "can't be walked in steps of -1");
  RAISES(ValueError, td::arange(0, 5, 0), "steps of 0");
  RAISES(ValueError, td::linspace(0, 1, -1), "negative count -1");
  RAISES(ValueError, td::randperm(-1), "negative length -1");
  RAISES(ValueError, td::concat({}), "needs at least one tensor");
  RAISES(ValueError, td::stack({}), "stack: needs at least one tensor");
  RAISES(ValueError, td::einsum("ij,j1->i", {w, w}), "einsum: unexpected '1'", "\n    ij,j1->i\n        ^");
  RAISES(ValueError, td::einsum("ij->ik", {floats({2, 2})}),
         "the result's label 'k' is in no operand\n    ij->ik\n         ^");
  RAISES(ValueError, td::einsum("ij->ii", {floats({2, 2})}),
         "the result has the label 'i' twice\n    ij->ii\n         ^");
  RAISES(ValueError, td::einsum("ij,jk", {floats({2, 2})}), "einsum: \"ij,jk\" is of 2 operands, got 1");
  RAISES(ValueError, td::einsum("ij,jkl", {floats({2, 2}), floats({2, 2})}),
         "operand 1 [2, 2] has 2 dims, its labels are 3\n    ij,jkl\n       ^");
  RAISES(ValueError, td::einsum("...i,...i->", {floats({2, 2}), floats({2, 2})}),
         "operands have \"...\", the result must have it too");
  RAISES(ValueError, mse_loss(floats({2}), 0, {.reduction = td::Reduction::batchmean}),
         "mse_loss: Reduction::batchmean is for kl_div");
  RAISES(ValueError, huber_loss(floats({2}), 0, {.delta = 0}), "huber_loss: delta 0 must be positive");
  RAISES(ValueError, cross_entropy(floats({2, 3}), integers({2}), {.label_smoothing = 2}),
         "label_smoothing 2 must be between 0 and 1");
  RAISES(ValueError, cross_entropy(floats({2, 3}), floats({2, 3}), {.ignore_index = 1}),
         "ignore_index is for labels that are class ids");
  RAISES(ValueError, td::split(image, 0), "split: pieces of 0 elements");
  RAISES(ValueError, td::chunk(image, 0), "chunk: 0 pieces; at least 1 is needed");
  RAISES(ValueError, td::one_hot(integers({2}), 0), "one_hot: needs at least 1 class, got 0");
  RAISES(ValueError, td::pad(image, {1}), "pad: needs two numbers for each of the last dims of [1, 2, 5, 5], got 1");
  RAISES(ValueError, td::pad(image, {5, 0}, {.mode = td::PadMode::reflect}),
         "pad: reflect padding of 5 and 0 is more than dim 3 of [1, 2, 5, 5] can give: at most 4");
  RAISES(ValueError, td::pad(image, {-3, -3}), "pad: -3 and -3 cut off more than dim 3 of [1, 2, 5, 5] has");
  RAISES(ValueError, td::parse_device("gpu"), "no device is called \"gpu\"; write cpu, cuda or cuda:1");
  RAISES(ValueError, td::parse_dtype("float"), "no dtype is called \"float\"", "float32");
  RAISES(ValueError, td::compile([](const Tensor& x) { return x; }, {.without = {"fussion"}}),
         "no pass is called \"fussion\"; there are", "fusion");
  RAISES(ValueError, td::compile([](const Tensor& x) { return x; }, {.max_specialisations = 0}),
         "max_specialisations is 0");
}

TEST_CASE("E003 DTypeError: dtypes that an op doesn't take") {
  const Tensor x = floats({3, 4}), i = integers({3, 4}), flags = x > 0;
  RAISES(DTypeError, -flags, "neg: not defined for bool", "cast with to(int64)");
  RAISES(DTypeError, flags - flags, "sub: not defined for bool");
  RAISES(DTypeError, where(x, x, x), "where: the condition must be bool, got float32; compare it with 0");
  RAISES(DTypeError, matmul(x, td::ones({4, 2}, {.dtype = td::float64})),
         "operands of different dtypes: float32 and float64; cast one with to()");
  RAISES(DTypeError, linear(i, integers({2, 4})),
         "linear: operand 0 must be floating, got int64; cast it with to(float32)");
  RAISES(DTypeError, softmax(i), "softmax: operand 0 must be floating, got int64");
  RAISES(DTypeError, mean(i), "mean: operand 0 must be floating, got int64");
  RAISES(DTypeError, layer_norm(i), "layer_norm: operand 0 must be floating");
  RAISES(DTypeError, dropout(i, 0.5), "dropout: operand 0 must be floating");
  RAISES(DTypeError, cross_entropy(x, floats({3})), "labels must be int64, got float32; cast them with to(int64)");
  RAISES(DTypeError, embedding(floats({3}), x), "ids must be int64, got float32");
  RAISES(DTypeError, nll_loss(x, floats({3})), "nll_loss: labels must be int64, got float32; cast them with to(int64)");
  RAISES(DTypeError, l1_loss(i, i), "l1_loss: needs floating operands, got int64; cast them with to(float32)");
  RAISES(DTypeError, gather(x, 0, floats({3, 4})), "index must be int64, got float32");
  RAISES(DTypeError, td::scatter(x, 0, i - 1, i), "scatter: src is int64, x is float32; cast one with to()");
  RAISES(DTypeError, td::one_hot(x, 3), "one_hot: labels must be int64, got float32");
  RAISES(DTypeError, conv2d(floats({1, 1, 3, 3}), td::ones({1, 1, 2, 2}, {.dtype = td::float16})),
         "operands of different dtypes: float32 and float16");
  RAISES(DTypeError, conv2d(floats({1, 1, 3, 3}), floats({1, 1, 2, 2}), td::ones({1}, {.dtype = td::float64})),
         "bias is float64, x is float32");
  RAISES(DTypeError, td::rand({2}, {.dtype = td::int64}), "rand: draws floating numbers, not int64; see randint");
  RAISES(DTypeError, td::randint(0, 2, {2}, {.dtype = td::float32}), "randint: draws integers, not float32");
  RAISES(DTypeError, x.data<double>(), "data<float64>(): the tensor is float32");
  Tensor integer = integers({2});
  RAISES(DTypeError, integer.requires_grad(true), "only floating tensors have gradients; this one is int64");
}

TEST_CASE("E004 DeviceError: devices that are not there") {
  if (td::cuda_is_available()) {
    RAISES(DeviceError, td::cuda(99), "cuda(99)");
    RAISES(DeviceError, floats({2}) + floats({2}).to(td::cuda()), "operands on different devices", "cpu", "cuda:0",
           "move one with to(device)");
  } else {
    RAISES(DeviceError, td::cuda(), "cuda(0): no CUDA device", "use cpu(), or ask cuda_is_available() first");
    RAISES(DeviceError, td::parse_device("cuda:1"), "cuda(1)");
  }
}

TEST_CASE("E005 DimensionError: dims and positions out of range") {
  const Tensor x = floats({3, 4});
  RAISES(DimensionError, x.sum(2), "sum: dim 2 is out of range for [3, 4] (-2 to 1)");
  RAISES(DimensionError, x.sum({0, -2}), "dim 0 is named twice");
  RAISES(DimensionError, x.mean(-3), "mean: dim -3 is out of range");
  RAISES(DimensionError, x.argmax(5), "argmax: dim 5");
  RAISES(DimensionError, softmax(x, 2), "softmax: dim 2 is out of range for [3, 4]");
  RAISES(DimensionError, x.transpose(0, 2), "transpose: dim 2 is out of range for rank 2 (-2 to 1)");
  RAISES(DimensionError, x.permute({0, 0}), "dim 0 is named twice in [0, 0]");
  RAISES(DimensionError, x.permute({0}), "needs one dim for each of the 2 of [3, 4], got [0]");
  RAISES(DimensionError, x.size(2), "size: dim 2 of a tensor of rank 2 [3, 4]; dims go from -2 to 1");
  RAISES(DimensionError, x.flatten(1, 0), "start dim 1 is after end dim 0");
  RAISES(DimensionError, x.squeeze(2), "squeeze: dim 2");
  RAISES(DimensionError, x.unsqueeze(4), "unsqueeze: dim 4");
  RAISES(DimensionError, x.slice(2, 0, 1), "slice: dim 2");
  RAISES(DimensionError, x.narrow(1, 2, 3), "narrow: 3 elements from 2 don't lie within dim 1 of [3, 4]");
  RAISES(DimensionError, x.diagonal(0, 1, 1), "diagonal: needs two dims, got 1 and 1");
  RAISES(DimensionError, x.flip({0, 0}), "flip: dim 0 is named twice in [0, 0]");
  RAISES(DimensionError, x.unbind(2), "unbind: dim 2 is out of range for rank 2 (-2 to 1)");
  RAISES(DimensionError, x.movedim({0, 1}, 0), "movedim: [0, 1] and [0] must be equally long");
  RAISES(DimensionError, x[3], "select: index 3 is out of range for dim 0 of [3, 4]");
  RAISES(DimensionError, x[0][-5], "select: index -5 is out of range for dim 0 of [4]");
  RAISES(DimensionError, td::concat({x, x}, 2), "concat: dim 2");
  RAISES(DimensionError, cross_entropy(x, td::tensor(std::vector<int64_t>{0, 4, 1})), "cross_entropy", "4", "1");
  RAISES(DimensionError, cross_entropy(x, td::tensor(std::vector<int64_t>{0, 1, -1})), "cross_entropy", "-1", "2");
  RAISES(DimensionError, cross_entropy(x, td::tensor(std::vector<int64_t>{0, -100, 1})),
         "label -100 at row 1 is out of range for 4 classes (0 to 3); .ignore_index leaves out rows");
  RAISES(DimensionError, cross_entropy(x, td::tensor(std::vector<int64_t>{0, -100, 7}), {.ignore_index = -100}),
         "label 7 at row 2 is out of range");
  RAISES(DimensionError, nll_loss(x, td::tensor(std::vector<int64_t>{0, 1, 7})), "7 at [2, 0] is out of range for 4");
  RAISES(DimensionError, embedding(td::tensor(std::vector<int64_t>{1, 3}), x), "embedding", "3");
  RAISES(DimensionError, gather(x, 0, td::tensor(std::vector<int64_t>{0, 7}).reshape({1, 2})), "gather", "7");
  const Tensor ids = td::tensor(std::vector<int64_t>{0, 1, 2, 5, 1, 0}).reshape({2, 3});
  RAISES(DimensionError, td::scatter(x, 1, ids, 1), "scatter: index 5 at [1, 0] is out of range for 4 (0 to 3)");
  RAISES(DimensionError, td::scatter_add(x, 1, ids.transpose(0, 1), x),
         "scatter: index 5 at [0, 1] is out of range for 4 (0 to 3)");
  RAISES(DimensionError, td::one_hot(ids, 3), "one_hot: label 5 at [1, 0] is out of range for 3 (0 to 2)");
  RAISES(DimensionError, td::index_select(x, 0, ids[0] - 1), "index_select: index -1 at [0] is out of range for 3");
  RAISES(DimensionError, td::index_add(x, 1, ids[1], floats({3, 3})),
         "index_add: index 5 at [0] is out of range for 4");
}

TEST_CASE("E006 UndefinedError: empty handles") {
  const Tensor x = floats({2}), nothing;
  Tensor target = floats({2}), none;
  RAISES(UndefinedError, x + nothing, "undefined Tensor", "was backward() called");
  RAISES(UndefinedError, nothing * 2, "undefined Tensor");
  RAISES(UndefinedError, relu(nothing), "undefined Tensor");
  RAISES(UndefinedError, nothing.sum(), "undefined Tensor");
  RAISES(UndefinedError, nothing.shape(), "this Tensor is undefined");
  RAISES(UndefinedError, nothing.dtype(), "this Tensor is undefined");
  RAISES(UndefinedError, nothing.size(0), "this Tensor is undefined");
  RAISES(UndefinedError, nothing.item<float>(), "item(): the tensor is undefined");
  RAISES(UndefinedError, nothing.to_vector<float>(), "to_vector(): the tensor is undefined");
  RAISES(UndefinedError, nothing.backward(), "backward: the tensor is undefined");
  RAISES(UndefinedError, leaf({2}).grad().sum(), "undefined Tensor");
  RAISES(UndefinedError, linear(x, nothing), "linear: operand 1 is an undefined Tensor");
  RAISES(UndefinedError, td::concat({x, nothing}), "concat: a tensor is undefined");
  RAISES(UndefinedError, target.assign(nothing), "assign: the value is an undefined Tensor");
  RAISES(UndefinedError, none.assign(x), "assign: the target is an undefined Tensor");
  RAISES(UndefinedError, none += x, "undefined Tensor");
  RAISES(UndefinedError, td::grad_of(leaf({1}), {nothing}), "grad: input 0 is undefined");
}

TEST_CASE("E007 OutOfMemoryError: the op, what it wanted, and what there is") {
  td::trim_memory();
  td::set_memory_limit(td::memory_stats().reserved + (1 << 20));
  const Tensor x = floats({1000});
  RAISES(OutOfMemoryError, x.expand({1000, 1000}).contiguous(), "contiguous of float32[1000, 1000]", "no room for",
         "in use", "limit", "run under NoGrad");
  RAISES(OutOfMemoryError, td::empty({1 << 20}), "empty of float32[1048576]", "smaller batch");
  td::set_memory_limit(0);
}

TEST_CASE("E008 LinAlgError: a matrix without an inverse") {
  RAISES(LinAlgError, td::linalg::inverse(td::ones({2, 2})), "inverse: the matrix float32[2, 2] is singular");
}

TEST_CASE("E010 AutogradError: nothing to differentiate, or no longer") {
  Tensor x = leaf({2});
  RAISES(AutogradError, floats({1}).backward(),
         "backward: this tensor was not computed from one that requires a gradient", "NoGrad");
  RAISES(AutogradError, (x * 2).detach().sum().backward(), "not computed from one that requires a gradient");
  const Tensor loss = exp(x).sum();
  loss.backward();
  RAISES(AutogradError, loss.backward(), "a second time", "saved tensors were freed", ".retain_graph = true",
         "recorded at errors_test.cpp:");
  Tensor computed = x * 2;
  RAISES(AutogradError, computed.requires_grad(false),
         "computed by an op; only a leaf can be changed (detach() makes one)");
  RAISES(AutogradError, td::grad_of((x * 2).sum(), {floats({2})}), "grad: input 0 [2] doesn't require a gradient");
  RAISES(AutogradError, td::grad_of((x * 2).sum(), {leaf({3})}), "grad: the output doesn't depend on input 0 [3]",
         ".allow_unused = true");
}

TEST_CASE("E011 InPlaceError: a tensor saved for backward was overwritten; both lines are named") {
  Tensor x = leaf({2}), w = floats({2});
  const int saved = __LINE__ + 1;
  const Tensor loss = (x * w).sum();
  const int written = __LINE__ + 1;
  w.assign(w + 1);
  const std::string saved_at = "saved for backward at errors_test.cpp:" + std::to_string(saved),
                    overwritten_at = "overwritten at errors_test.cpp:" + std::to_string(written);
  RAISES(InPlaceError, loss.backward(), "mul: its operand 1 [2]", saved_at.c_str(), overwritten_at.c_str(),
         "use a clone()");
  Tensor y = floats({2});
  RAISES(InPlaceError, x.assign(y), "assign: not differentiable, and the target requires a gradient", "NoGrad");
  RAISES(InPlaceError, y.assign(x), "the value requires a gradient", "value.detach()");
  Tensor leaf = x;
  RAISES(InPlaceError, leaf += y, "assign: not differentiable, and the target requires a gradient");
  Tensor part = y.slice(0, 0, 1);
  RAISES(InPlaceError, part += x.slice(0, 0, 1), "+=: the target is a view, or others are views of it",
         "write x = x + y");
}

TEST_CASE("E012 GradCheckError: the element, and both numbers") {
  const Tensor x = td::tensor({1.0, 2.0});
  RAISES(GradCheckError, td::gradcheck([](const Tensor& t) { return t * t.detach(); }, {x}),
         "input 0 [2], element 0: the gradient rule gives", "central differences");
  RAISES(GradCheckError, td::gradcheck([](const Tensor& t) { return t.detach(); }, {x}), "the result has no tape");
}

TEST_CASE("E020 TraceError: values that a graph can't know") {
  const Tensor x = floats({2});
  for (const td::Mode mode : {td::Mode::replay, td::Mode::compiled}) {
    auto reads = td::compile([](const Tensor& t) { return t.sum().item<float>() > 0 ? t : -t; }, {.mode = mode});
    try {
      reads(x);
      FAIL("no error");
    } catch (const td::TraceError& error) {
      check_error(error, "TraceError", "E020", __FILE__, static_cast<int>(error.where().line()),
                  {"item(): the value of float32[]", "compiled at errors_test.cpp:",
                   "the result of sum at errors_test.cpp:", "where()", ".mode = Mode::eager"});
    }
    auto prints = td::compile(
        [](const Tensor& t) {
          std::ostringstream out;
          out << t;
          return t;
        },
        {.mode = mode});
    CHECK_THROWS_AS(prints(x), td::TraceError);
    auto copies = td::compile([](const Tensor& t) { return td::tensor(t.to_vector<float>()); }, {.mode = mode});
    CHECK_THROWS_AS(copies(x), td::TraceError);
    CHECK_THROWS_AS(reads(x), td::TraceError);  // and again: nothing of the first attempt is left
  }
}

TEST_CASE("E020 TraceError: a traced value that outlives its trace") {
  Tensor kept;
  auto step = td::compile(
      [&](const Tensor& t) {
        kept = t * 2;
        return kept + 1;
      },
      {.mode = td::Mode::replay});
  step(floats({2}));
  RAISES(TraceError, kept + 1, "belongs to a trace that has ended", "return it from the traced function");
  RAISES(TraceError, kept.to_vector<float>(), "to_vector(): this value belongs to a trace that has ended");
}

TEST_CASE("E020 TraceError: a host condition that has changed under the graph names both lines") {
  bool flag = true;
  const int line = __LINE__ + 1;
  auto step = td::compile([&](const Tensor& t) { return flag ? exp(t) : tanh(t); },
                          {.mode = td::Mode::replay, .verify = td::Verify::every});
  step(floats({2}));
  flag = false;
  try {
    step(floats({2}));
    FAIL("no error");
  } catch (const td::TraceError& error) {
    check_error(
        error, "TraceError", "E020", __FILE__, line,
        {"then: exp at errors_test.cpp:", "now: tanh at errors_test.cpp:", "pass what it depends on as an argument"});
  }
}

TEST_CASE("a trace that throws leaves parameters, gradients and the generator as they were") {
  Tensor w = leaf({2});
  auto step = td::compile(
      [&](const Tensor& t) {
        (w * t).sum().backward();
        {
          td::NoGrad guard;
          w.assign(w - w.grad());
        }
        return t.sum().item<float>() > 0 ? t : t * 2;
      },
      {.mode = td::Mode::replay});
  CHECK_THROWS_AS(step(floats({2})), td::TraceError);
  CHECK(w.to_vector<float>() == std::vector<float>{1, 1});
  CHECK_FALSE(w.grad().defined());
  CHECK_FALSE(w.is_symbolic());
  CHECK_NOTHROW((w * 2).sum().backward());
}

TEST_CASE("E021 RetraceError: more specialisations than allowed, and which argument differs") {
  const int line = __LINE__ + 1;
  auto step = td::compile([](const Tensor& t) { return t * 2; },
                          {.mode = td::Mode::replay, .max_specialisations = 2, .dynamic = td::DynamicSizes::never});
  step(floats({1}));
  step(floats({2}));
  try {
    step(floats({3}));
    FAIL("no error");
  } catch (const td::RetraceError& error) {
    check_error(
        error, "RetraceError", "E021", __FILE__, line,
        {"specialisation 3, the limit is 2", "argument 0: shape [2] -> [3]", "max_specialisations", "OnLimit::evict"});
  }
  CHECK_NOTHROW(step(floats({2})));
}

TEST_CASE("E022 GraphError: text that is no graph") {
  RAISES(GraphError, td::parse_graph("graph {"), "parse_graph: line 1: ");
  RAISES(GraphError, td::parse_graph("nonsense"), "parse_graph: line 1: expected \"graph\", in: nonsense");
}

TEST_CASE("E023: without a compiler a compiled function still runs, and says why it is slower") {
  const char* const before = std::getenv("CC");
  const std::string saved = before ? before : "";
  setenv("CC", "/nonexistent/compiler", 1);
  auto step = td::compile([](const Tensor& t) { return exp(t) * 3 + tanh(t) * 0.1875; });
  const Tensor x = td::linspace(-1, 1, 19);
  const Tensor result = step(x);
  if (before) setenv("CC", saved.c_str(), 1);
  else unsetenv("CC");
  CHECK(td::allclose(result, exp(x) * 3 + tanh(x) * 0.1875));
  CHECK(step.stats().fused_kernels == 0);
  CHECK(step.stats().note.find("/nonexistent/compiler") != std::string::npos);
}

TEST_CASE("E030 KernelError: an op without a kernel for the device") {
  const td::Op op{.name = "unfinished", .infer = [](td::Infer& infer) { infer.output(infer.input(0)); }};
  const Tensor x = floats({2});
  RAISES(KernelError, td::dispatch(op, {x}, {}, td::Where::current()),
         "unfinished: no kernel for cpu yet; no device has one");
}

TEST_CASE("errors of library code are put down to the line that called it") {
  td::nn::Linear layer(4, 2);
  RAISES(ShapeError,
         td::gradcheck([](const Tensor& t) { return matmul(t, t); }, {td::ones({2, 3}, {.dtype = td::float64})}),
         "matmul: inner dimensions differ");
}

// clang-format on

TEST_CASE("docs/errors.md has a section for every code, with an example, its text and a remedy") {
  const std::string page = file_text(TANDEM_SOURCE_DIR "/docs/errors.md"),
                    header = file_text(TANDEM_SOURCE_DIR "/core/error.h");
  int codes = 0;
  for (size_t at = header.find("TANDEM_ERROR_CLASS("); at != std::string::npos;
       at = header.find("TANDEM_ERROR_CLASS(", at + 1)) {
    const size_t name = at + 19, comma = header.find(", \"", name);
    if (comma == std::string::npos || comma - name > 30) continue;  // the macro's definition
    const std::string error = header.substr(name, comma - name), code = header.substr(comma + 3, 4);
    CAPTURE(code);
    ++codes;
    const std::string title = "## " + code + " " + error;
    const size_t section = page.find(title + "\n");
    REQUIRE_MESSAGE(section != std::string::npos, "docs/errors.md has no section \"" << title << "\"");
    const std::string text = page.substr(section, page.find("\n## ", section + 1) - section);
    CHECK(text.find("```cpp\n") != std::string::npos);
    CHECK(text.find("```text\n") != std::string::npos);
    CHECK(text.find("**Remedy.**") != std::string::npos);
  }
  CHECK(codes >= 16);
}

TEST_CASE("docs/errors.md prints what its examples print") {
  const std::string page = file_text(TANDEM_SOURCE_DIR "/docs/errors.md");
  for (const Example& example : kExamples) {
    if (example.code == std::string("E004") && td::cuda_is_available()) continue;
    try {
      example.run();
      FAIL_CHECK("no error from the example of " << std::string(example.code));
    } catch (const td::Error& error) {
      CHECK(std::string(error.code()) == example.code);
      // Numbers of lines and bytes vary; everything else must be the same.
      const auto plain = [](std::string text) {
        text = std::regex_replace(text, std::regex("[A-Za-z_]+\\.cpp:[0-9]+"), "FILE");
        return std::regex_replace(text, std::regex("[0-9]+ in use, [0-9]+ reserved, limit [0-9]+"), "NUMBERS");
      };
      const size_t section = page.find("## " + std::string(example.code) + " ");
      REQUIRE(section != std::string::npos);
      const std::string text = plain(page.substr(section, page.find("\n## ", section + 1) - section)),
                        what = plain(error.what());
      CHECK_MESSAGE(text.find("```text\n" + what + "\n```") != std::string::npos, std::string(example.code)
                                                                                      << " prints:\n"
                                                                                      << std::string(error.what()));
    }
    td::set_memory_limit(0);
  }
}

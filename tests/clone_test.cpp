// nn::clone and nn::copy_into.
#include <doctest/doctest.h>

#include <memory>

#include "support.h"
#include "tandem.h"

using namespace tandem;

namespace {

struct QNet {
  nn::Conv2d conv{1, 2, 3, {.padding = Padding::same}};
  nn::BatchNorm2d norm{2};
  nn::Sequential head{nn::Linear{32, 8}, relu, nn::Linear{8, 3}};
  std::shared_ptr<nn::Linear> extra = std::make_shared<nn::Linear>(3, 3), tied = extra;
  Tensor table = zeros({3});
  nn::Dropout dropout{0.5};
  Tensor operator()(const Tensor& x) const { return (*extra)(head(dropout(relu(norm(conv(x)))).flatten(1))) + table; }
};
struct Smaller {
  nn::Linear head{2, 2};
};
struct Renamed {
  nn::Linear tail{2, 2};
};
struct Wider {
  nn::Linear head{2, 4};
};
struct Polymorphic {
  virtual ~Polymorphic() = default;
  template <class V> void visit(V&& v) { v("weight", weight); }
  Tensor weight = ones({1});
};
struct Holder {
  std::shared_ptr<Polymorphic> part = std::make_shared<Polymorphic>();
};

}  // namespace

TEST_CASE("nn::clone: a model with weights, buffers and flags of its own") {
  QNet q;
  nn::eval(q);
  QNet target = nn::clone(q);
  const auto a = nn::named_parameters(q), b = nn::named_parameters(target);
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].name == b[i].name);
    CHECK(a[i].tensor.to_vector<float>() == b[i].tensor.to_vector<float>());
    CHECK_FALSE(a[i].tensor.shares_storage(b[i].tensor));
    CHECK(b[i].tensor.is_leaf());
  }
  CHECK(nn::named_buffers(target).size() == nn::named_buffers(q).size());
  CHECK(target.extra == target.tied);  // shared layers are shared in the copy
  CHECK(target.extra != q.extra);
  const Tensor x = ones({1, 1, 4, 4});
  CHECK(allclose(target(x), q(x)));
  nn::train(q);  // its flags are the copy's own
  CHECK(allclose(target(x), target(x)));
  q.table.assign(ones({3}));
  CHECK(target.table.to_vector<float>() == std::vector<float>{0, 0, 0});
  CHECK(contains(thrown<ValueError>([] { nn::clone(Holder{}); }), "nn::clone: what part points at can't be copied"));
  auto traced = compile([&](const Tensor& x) { return nn::clone(q)(x); });
  CHECK_THROWS_AS(traced(x), TraceError);
}

TEST_CASE("nn::copy_into: a target network takes over weights and buffers") {
  for (const Mode mode : kModes) {
    QNet q, target = nn::clone(q);
    nn::eval(target);
    nn::optim::Sgd optimizer(nn::parameters(q), {.lr = 0.1});
    auto step = compile(
        [&](const Tensor& x) {
          optimizer.zero_grad();
          const Tensor loss = mse_loss(q(x), target(x).detach() + 1);
          loss.backward();
          optimizer.step();
          return loss.detach();
        },
        {.mode = mode});
    auto follow = compile(
        [&] {
          nn::copy_into(target, q);
          return zeros({});
        },
        {.mode = mode});
    const Tensor x = arange(32.f).reshape({2, 1, 4, 4});
    step(x);
    CHECK_FALSE(allclose(nn::parameters(q)[0], nn::parameters(target)[0]));
    CHECK_FALSE(allclose(q.norm.running_mean, target.norm.running_mean));
    follow();
    nn::for_each(target, [&, i = size_t{0}](const std::string&, const Tensor& tensor) mutable {
      size_t at = 0;
      nn::for_each(q, [&](const std::string&, const Tensor& other) {
        if (at++ == i) CHECK(tensor.to_vector<float>() == other.to_vector<float>());
      });
      ++i;
    });
    step(x);
  }
  Smaller small, other;
  Renamed renamed;
  Wider wider;
  CHECK(contains(thrown<ValueError>([&] { nn::copy_into(renamed, small); }),
                 "the models differ: tensor 0 of the target is tail.weight, of the source head.weight"));
  CHECK(contains(thrown<ShapeError>([&] { nn::copy_into(wider, small); }),
                 "head.weight is [4, 2] in the target, [2, 2] in the source"));
  Smaller handles = small;
  CHECK(contains(thrown<ValueError>([&] { nn::copy_into(handles, small); }),
                 "nn::clone(model) makes one with weights of its own"));
  nn::copy_into(other, small);
  CHECK(allclose(other.head.weight, small.head.weight));
}

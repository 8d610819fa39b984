// Sequential: layers applied one after the other.
#pragma once

#include <concepts>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../core/tensor.h"
#include "../reflect.h"

namespace tandem::nn {

/// Anything that maps a tensor to a tensor: a layer, a model, a function such as tandem::relu, a lambda.
template <class L>
concept Layer = std::is_invocable_r_v < Tensor,
        const std::decay_t<L>
&, const Tensor& > ;

/// Applies layers in turn:
///
///   nn::Sequential body{nn::Linear{784, 256}, tandem::relu, nn::Linear{256, 10}};
///
/// Its parameters are called 0.weight, 0.bias, 2.weight, … Copies share their layers; nn::clone's don't.
class Sequential {
 public:
  Sequential() = default;
  template <Layer... L>
  requires(sizeof...(L) > 0 && (!std::same_as<std::decay_t<L>, Sequential> || ...)) Sequential(L&&... layers) {
    (push_back(std::forward<L>(layers)), ...);
  }

  template <Layer L> Sequential& push_back(L&& layer) {
    layers_.push_back(std::make_shared<Held<std::decay_t<L>>>(std::forward<L>(layer)));
    return *this;
  }
  size_t size() const { return layers_.size(); }
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  void visit(Visitor& visitor);

 private:
  struct Base {
    virtual ~Base() = default;
    virtual Tensor call(const Tensor& x, Where where) const = 0;
    virtual void walk(Visitor& visitor) = 0;
    virtual std::shared_ptr<Base> copy() const = 0;  ///< null where the layer has no copy
  };
  template <class L> struct Held final : Base {
    template <class From> explicit Held(From&& from) : layer(std::forward<From>(from)) {}
    Tensor call(const Tensor& x, Where where) const override {
      if constexpr (std::is_invocable_r_v<Tensor, const L&, const Tensor&, Where>) return layer(x, where);
      else return layer(x);
    }
    void walk(Visitor& visitor) override { visitor.walk(layer); }
    std::shared_ptr<Base> copy() const override {
      if constexpr (std::copy_constructible<L>) return std::make_shared<Held>(layer);
      else return nullptr;
    }
    L layer;
  };
  std::vector<std::shared_ptr<Base>> layers_;
};

}  // namespace tandem::nn

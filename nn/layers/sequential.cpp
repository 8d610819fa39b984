// Sequential: layers applied one after the other.
#include "nn/layers/sequential.h"

#include "core/dispatch.h"

namespace tandem::nn {

Tensor Sequential::operator()(const Tensor& x, Where where) const {
  WhereScope scope(where);  // for layers that take no line of their own
  Tensor result = x;
  for (const auto& layer : layers_) result = layer->call(result, where);
  return result;
}

void Sequential::visit(Visitor& visitor) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    visitor.own(layers_[i], [&] { return layers_[i]->copy(); });
    Base& layer = *layers_[i];
    visitor.place(i, [&] { layer.walk(visitor); });
  }
}

}  // namespace tandem::nn

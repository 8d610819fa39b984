// Generator state and draws.
#include "core/random.h"

#include "core/dispatch.h"

namespace tandem {

namespace {
Tensor make_key(int64_t seed, int64_t draw) {
  TensorImpl* impl = TensorImpl::create();
  impl->dtype = DType::int64;
  impl->is_scalar = true;
  impl->set_contiguous_layout({2});
  Tensor key = Tensor::adopt(impl);
  impl->allocate();
  static_cast<int64_t*>(impl->data)[0] = seed;
  static_cast<int64_t*>(impl->data)[1] = draw;
  return key;
}
}  // namespace

Generator::Generator(uint64_t seed) : state_(make_key(static_cast<int64_t>(seed), 0)) {}
void Generator::seed(uint64_t seed) {
  words()[0] = static_cast<int64_t>(seed);
  words()[1] = 0;
}
uint64_t Generator::seed() const { return static_cast<uint64_t>(words()[0]); }
uint64_t Generator::draws() const { return static_cast<uint64_t>(words()[1]); }
void Generator::set_draws(uint64_t draws) { words()[1] = static_cast<int64_t>(draws); }

Generator& default_generator() {
  static Generator* const generator = new Generator;
  return *generator;
}
void manual_seed(uint64_t seed, Where where) {
  if (interceptor())
    throw TraceError(
        "manual_seed: not while a function is traced: a graph numbers its draws when it is made, and each call goes on "
        "from where the generator is; seed it before the call",
        user_line(where));
  default_generator().seed(seed);
}

namespace {
Draw new_draw() {
  Generator& generator = default_generator();
  if (Interceptor* tracer = interceptor()) return {generator.state(), tracer->draw()};
  const uint64_t draw = generator.draws();
  generator.set_draws(draw + 1);
  return {make_key(static_cast<int64_t>(generator.seed()), static_cast<int64_t>(draw)), 0};
}
}  // namespace

DrawScope::DrawScope(std::vector<Draw>& draws, Use use) : draws_(draws), use_(use), installed_(this) {}

Draw DrawScope::outer() { return installed_.previous() ? installed_.previous()->next() : new_draw(); }

Draw DrawScope::next() {
  if (use_ == Use::replay) {
    // A function that draws more often the second time has changed its mind; what it draws then is new.
    return at_ < draws_.size() ? draws_[at_++] : outer();
  }
  draws_.push_back(outer());
  return draws_.back();
}

DrawsOfAPiece::DrawsOfAPiece() : seed_(default_generator().seed()), draws_(default_generator().draws()) {
  if (!thread_state.draws) return;
  Generator& generator = default_generator();
  const Draw first = next_draw();
  again_ = generator.draws() == draws_;  // it is a remembered one
  const auto* words = static_cast<const int64_t*>(first.key.impl()->data);
  generator.seed(static_cast<uint64_t>(words[0]));
  generator.set_draws(static_cast<uint64_t>(words[1] + first.site));
}
DrawsOfAPiece::~DrawsOfAPiece() {
  if (!again_) return;
  default_generator().seed(seed_);
  default_generator().set_draws(draws_);
}

Draw next_draw() { return thread_state.draws ? thread_state.draws->next() : new_draw(); }

}  // namespace tandem

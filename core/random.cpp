// Generator state and draws.
#include "core/random.h"

#include <atomic>

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
uint64_t Generator::advance(uint64_t draws) {
  return static_cast<uint64_t>(std::atomic_ref(words()[1]).fetch_add(static_cast<int64_t>(draws)));
}

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
Draw new_draw(int64_t count) {
  Generator& generator = default_generator();
  if (Interceptor* tracer = interceptor()) return {generator.state(), tracer->draw()};
  const uint64_t draw = generator.advance(static_cast<uint64_t>(count));
  return {make_key(static_cast<int64_t>(generator.seed()), static_cast<int64_t>(draw)), 0};
}
}  // namespace

Tensor Draw::key_on(Device device) const { return key.is_symbolic() && key.device() != device ? key.to(device) : key; }

Draw next_draw(int64_t count) { return thread_state.draws ? thread_state.draws->next(count) : new_draw(count); }

Draw DrawScope::outer(int64_t count) {
  return installed_.previous() ? installed_.previous()->next(count) : new_draw(count);
}

Draw RecordedDraws::next(int64_t count) {
  if (use_ == Use::replay) {
    // A function that draws more often the second time has changed its mind; what it draws then is new.
    return at_ < draws_.size() ? draws_[at_++] : outer(count);
  }
  draws_.push_back(outer(count));
  return draws_.back();
}

const Tensor& TurnScope::key() {
  if (!key_.defined()) key_ = make_key_();
  return key_;
}

Draw TurnScope::next(int64_t count) { return {key(), take(count)}; }

LaterDraw::LaterDraw() : turn_(thread_state.draws ? thread_state.draws->turn() : nullptr) {
  draw_ = turn_ ? Draw{{}, turn_->take(1)} : next_draw();
}

const Draw& LaterDraw::operator()() {
  if (!draw_.key.defined()) draw_.key = turn_->key();
  return draw_;
}

Tensor turn_key(const Draw& of, const Tensor& turn) {
  static const Op& op = find_op("turn_key");
  return dispatch(op, {of.key, turn}, {{"site", of.site}}, Where::current());
}

}  // namespace tandem

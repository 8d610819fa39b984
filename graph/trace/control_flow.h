// Control flow that depends on values: cond, while_loop, scan, map. Eagerly they are C++'s if and loops; in a graph each is one
// node with regions (graph/ir/region.h), so that one trace serves every branch and any number of turns.
//
// Branches and bodies take and return what compiled functions do: Tensors, and tuples, vectors and plain structs of them. What
// they close over is read as everywhere; a tensor from outside that they assign to is assigned when the branch, or the loop, has
// ended. Write to a clone() of a result: eagerly it may be what was closed over itself. Random draws are numbered by turn, the same in
// every mode (core/random.h). In a graph backward() can't be called inside (grad() can).
#pragma once

#include "compile.h"

namespace tandem {

namespace graph {
using RegionFunction = std::function<Tensors(const Tensors&)>;
Tensors run_cond(const Tensor& condition, const RegionFunction& then, const RegionFunction& otherwise, Where where);
Tensors run_while(const RegionFunction& condition, const RegionFunction& body, const Tensors& initial, Where where);
/// `carried` results of the body come first.
Tensors run_scan(const char* name, const RegionFunction& body, const Tensors& initial, const Tensors& sequences,
                 bool reverse, int64_t checkpoint, Where where);

struct Flat {
  Tensors tensors = {};
  void tensor(const Tensor& each) { tensors.push_back(each); }
  template <class T> void rest(const T&) {}
};
template <class T> Tensors flat(const T& value) {
  Flat all;
  for_each_part(value, all);
  return all.tensors;
}
/// `like` with these tensors, from the place of `first` on.
template <class T> T with(const T& like, const Tensors& tensors, size_t first = 0) {
  return with_tensors(like, tensors, first);
}
template <class R, class F> RegionFunction branch(F& function, std::shared_ptr<const Kept>& kept) {
  return [&](const Tensors&) {
    if constexpr (std::is_void_v<R>) return function(), Tensors();
    else return take_tensors<R>(function(), &kept);
  };
}

template <class C, class B, class... T> auto loop(Where where, C& condition, B& body, const T&... initial) {
  const std::tuple<T...> like(initial...);
  const auto apply = [&](auto& function) {
    return [&](const Tensors& in) { return flat(std::apply(function, with(like, in))); };
  };
  using Next = std::decay_t<std::invoke_result_t<B&, const T&...>>;
  if constexpr (sizeof...(T) == 1 && std::is_same_v<std::tuple<Next>, std::tuple<T...>>) {
    return with(std::get<0>(like), run_while(apply(condition), apply(body), flat(like), where));
  } else {
    static_assert(
        std::is_same_v<Next, std::tuple<T...>>,
        "tandem::while_loop: the body must return what it takes: the loop variables, several as a std::tuple");
    return with(like, run_while(apply(condition), apply(body), flat(like), where));
  }
}
}  // namespace graph

/// `then()` if the condition (a tensor of one element) isn't 0, else `otherwise()`; both return the same types, or nothing. In
/// a graph results of the two have the same shapes and dtypes too, and only the branch that is taken runs. Gradients are those of
/// that branch.
/// Errors: ShapeError if the condition has more elements (where() chooses by element); in a graph TraceError if results differ.
template <class Then, class Otherwise>
auto cond(const Tensor& condition, Then&& then, Otherwise&& otherwise, Where where = Where::current()) {
  using Result = std::decay_t<std::invoke_result_t<Then&>>;
  static_assert(std::is_same_v<Result, std::decay_t<std::invoke_result_t<Otherwise&>>>,
                "tandem::cond: both branches must return the same type");
  std::shared_ptr<const graph::Kept> kept;
  Tensors results =
      graph::run_cond(condition, graph::branch<Result>(then, kept), graph::branch<Result>(otherwise, kept), where);
  if constexpr (!std::is_void_v<Result>) return graph::filled<Result>(std::move(results), kept.get());
}

/// Runs `body` on the loop variables while `condition` of them isn't 0. The body returns the new ones: a Tensor, or a std::tuple
/// if there are several. Their shapes and dtypes stay.
/// Errors: ShapeError or DTypeError if a variable changes its type. In a graph there is no gradient, as the number of turns isn't
/// known: AutogradError, on backward(). A scan has one.
template <class C, class B, class T1>
auto while_loop(C&& condition, B&& body, const T1& x1, Where where = Where::current()) {
  return graph::loop(where, condition, body, x1);
}
template <class C, class B, class T1, class T2>
auto while_loop(C&& condition, B&& body, const T1& x1, const T2& x2, Where where = Where::current()) {
  return graph::loop(where, condition, body, x1, x2);
}
template <class C, class B, class T1, class T2, class T3>
auto while_loop(C&& condition, B&& body, const T1& x1, const T2& x2, const T3& x3, Where where = Where::current()) {
  return graph::loop(where, condition, body, x1, x2, x3);
}
template <class C, class B, class T1, class T2, class T3, class T4>
auto while_loop(C&& condition, B&& body, const T1& x1, const T2& x2, const T3& x3, const T4& x4,
                Where where = Where::current()) {
  return graph::loop(where, condition, body, x1, x2, x3, x4);
}

struct ScanOptions {
  bool reverse = false;  ///< from the last element to the first; results stay in the order of the elements
  int64_t checkpoint =
      0;  ///< in a graph: keep what is carried for the gradient every so many turns only, and compute the rest
          ///< again; 0: keep all. About the square root of the turns needs least.
};

/// (carry, y) = body(carry, x) for each x along dim 0 of `xs`, which holds sequences of one length; the last carry, and all y
/// stacked along dim 0. In a graph the gradient is a scan from the end, and may be differentiated again.
/// Errors: ShapeError if sequences differ in length, or have none, ShapeError or DTypeError if the carry changes its type.
template <class F, class Carry, class X>
auto scan(F&& body, const Carry& initial, const X& xs, ScanOptions options = {}, Where where = Where::current()) {
  using Step = std::decay_t<std::invoke_result_t<F&, const Carry&, const X&>>;
  using Y = std::decay_t<decltype(std::get<1>(std::declval<Step>()))>;
  static_assert(
      std::is_same_v<std::decay_t<decltype(std::get<0>(std::declval<Step>()))>, Carry>,
      "tandem::scan: the body must return a pair of the new carry, of the type that it is given, and a result");
  const Tensors carried = graph::flat(initial);
  std::shared_ptr<const graph::Kept> kept;
  Tensors results = graph::run_scan(
      "scan",
      [&](const Tensors& in) {
        Step step = body(graph::with(initial, in), graph::with(xs, in, carried.size()));
        Tensors all = graph::flat(std::get<0>(step));
        for (Tensor& each : graph::take_tensors<Y>(std::move(std::get<1>(step)), &kept)) all.push_back(std::move(each));
        return all;
      },
      carried, graph::flat(xs), options.reverse, options.checkpoint, where);
  Carry last = graph::with(initial, results);
  results.erase(results.begin(), results.begin() + std::ssize(carried));
  return std::pair<Carry, Y>(std::move(last), graph::filled<Y>(std::move(results), kept.get()));
}

/// f(x) for each x along dim 0 of `xs`, stacked along dim 0.
template <class F, class X> auto map(F&& f, const X& xs, Where where = Where::current()) {
  using Y = std::decay_t<std::invoke_result_t<F&, const X&>>;
  std::shared_ptr<const graph::Kept> kept;
  Tensors results = graph::run_scan(
      "map", [&](const Tensors& in) { return graph::take_tensors<Y>(f(graph::with(xs, in)), &kept); }, {},
      graph::flat(xs), false, 0, where);
  return graph::filled<Y>(std::move(results), kept.get());
}

}  // namespace tandem

// Control flow that depends on values: cond, while_loop, scan, map. Eagerly they are C++'s if and loops; in a graph each is one
// node with regions (graph/ir/region.h), so that one trace serves every branch and any number of turns.
//
// Branches and bodies are functions of Tensors, or of pairs, tuples and arrays of them, that return such. What they close over
// is read as everywhere; a tensor from outside that they assign to is assigned when the branch, or the loop, has ended. In a graph
// random numbers can't be drawn inside (draw them before), nor backward() be called there (grad() can).
#pragma once

#include "compile.h"

namespace tandem {

namespace graph {
using RegionFunction = std::function<Tensors(const Tensors&)>;
Tensors run_cond(const Tensor& condition, const RegionFunction& then, const RegionFunction& otherwise, Where where);
Tensors run_while(const RegionFunction& condition, const RegionFunction& body, const Tensors& initial, Where where);
/// `carried` results of the body come first.
Tensors run_scan(const char* name, const RegionFunction& body, const Tensors& initial, const Tensors& sequences, bool reverse,
             int64_t checkpoint, Where where);

template <class T> Tensors flat(const T& value) {
  Tensors result;
  flatten(result, value);
  return result;
}
template <class F> RegionFunction branch(F& function) {
  return [&function](const Tensors&) {
    if constexpr (std::is_void_v<std::invoke_result_t<F&>>) return function(), Tensors();
    else return flat(function());
  };
}
/// Tensors back to what a body takes for its loop variables.
template <class T> T unflat(const Tensors& tensors, size_t first = 0) {
  Tensors mine(tensors.begin() + static_cast<std::ptrdiff_t>(first), tensors.end());
  size_t at = 0;
  return Unflatten<T>::from(mine, at);
}
template <class... T> struct LoopVariables { using Type = std::tuple<T...>; };
template <class T> struct LoopVariables<T> { using Type = T; };

template <class C, class B, class... T>
auto loop(Where where, C& condition, B& body, const T&... initial) {
  using Variables = std::tuple<T...>;
  static_assert(std::is_same_v<std::decay_t<std::invoke_result_t<B&, const T&...>>, typename LoopVariables<T...>::Type>,
                "tandem::while_loop: the body must return what it takes: the loop variables, several as a std::tuple");
  const auto apply = [](auto& function) {
    return [&function](const Tensors& in) { return flat(std::apply(function, unflat<Variables>(in))); };
  };
  return unflat<typename LoopVariables<T...>::Type>(
      run_while(apply(condition), apply(body), flat(std::tuple<const T&...>(initial...)), where));
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
  Tensors results = graph::run_cond(condition, graph::branch(then), graph::branch(otherwise), where);
  if constexpr (!std::is_void_v<Result>) return graph::unflat<Result>(results);
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
  bool reverse = false;    ///< from the last element to the first; results stay in the order of the elements
  int64_t checkpoint = 0;  ///< in a graph: keep what is carried for the gradient every so many turns only, and compute the rest
                           ///< again; 0: keep all. About the square root of the turns needs least.
};

/// (carry, y) = body(carry, x) for each x along dim 0 of `xs`, which holds sequences of one length; the last carry, and all y
/// stacked along dim 0. In a graph the gradient is a scan from the end, and may be differentiated again.
/// Errors: ShapeError if sequences differ in length, or have none, ShapeError or DTypeError if the carry changes its type.
template <class F, class Carry, class X>
auto scan(F&& body, const Carry& initial, const X& xs, ScanOptions options = {}, Where where = Where::current()) {
  using Step = std::decay_t<std::invoke_result_t<F&, const Carry&, const X&>>;
  using Y = std::decay_t<decltype(std::get<1>(std::declval<Step>()))>;
  static_assert(std::is_same_v<std::decay_t<decltype(std::get<0>(std::declval<Step>()))>, Carry>,
                "tandem::scan: the body must return a pair of the new carry, of the type that it is given, and a result");
  const Tensors carried = graph::flat(initial);
  const Tensors results = graph::run_scan(
      "scan",
      [&](const Tensors& in) {
        return graph::flat(body(graph::unflat<Carry>(in), graph::unflat<X>(in, carried.size())));
      },
      carried, graph::flat(xs), options.reverse, options.checkpoint, where);
  return std::pair<Carry, Y>(graph::unflat<Carry>(results), graph::unflat<Y>(results, carried.size()));
}

/// f(x) for each x along dim 0 of `xs`, stacked along dim 0.
template <class F, class X> auto map(F&& f, const X& xs, Where where = Where::current()) {
  using Y = std::decay_t<std::invoke_result_t<F&, const X&>>;
  return graph::unflat<Y>(graph::run_scan(
      "map", [&](const Tensors& in) { return graph::flat(f(graph::unflat<X>(in))); }, {}, graph::flat(xs), false, 0,
      where));
}

}  // namespace tandem

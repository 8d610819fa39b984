// compile(): runs a function eagerly, as a replayed graph, or compiled, without a change to its text.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "../ir/graph.h"
#include "../ir/stage.h"
#include "parts.h"

namespace tandem {

enum class Mode : uint8_t {
  eager,     ///< op by op, as the function runs
  replay,    ///< traced once; the graph's ops run one by one on the eager kernels
  compiled,  ///< traced once; the graph optimised, fused, memory-planned and compiled
};
Mode parse_mode(const std::string& name, Where where = Where::current());  ///< throws ValueError
std::string_view name_of(Mode mode);

/// When later calls are traced again to see whether the program has changed under the graph.
enum class Verify : uint8_t { powers_of_two, every, never };
/// What happens when a function needs more than max_specialisations.
enum class OnLimit : uint8_t { error, evict, eager };

/// Which dims of arguments may have many sizes in one specialisation. By default a dim does from its second size on: kernels
/// are then made once more, to read sizes at run time, and another size costs neither compiler nor passes.
class DynamicSizes {
 public:
  struct Dim {
    int argument;  ///< the position among all tensors that are given, as in Stats::retraces
    int dim;
  };
  DynamicSizes() = default;
  /// These from the first call on. It traces the function in two more sizes, which nobody has given: 2 and 3 times as large.
  DynamicSizes(std::initializer_list<Dim> dims) : dims_(dims) {}
  /// One specialisation for each size.
  static const DynamicSizes never;

  bool is_never() const { return never_; }
  const std::vector<Dim>& dims() const { return dims_; }

 private:
  bool never_ = false;
  std::vector<Dim> dims_;
};

struct CompileOptions {
  Mode mode = Mode::compiled;
  std::vector<std::string> without = {};  ///< passes to leave out, by name (see pass_names); also memory_plan, emit
  Verify verify = Verify::powers_of_two;
  int max_specialisations = 8;
  OnLimit on_limit = OnLimit::error;
  DynamicSizes dynamic = {};  ///< {{argument, dim}, …}, or DynamicSizes::never
  /// A call that needs code waits for the compiler. False: it runs the tier below, the planned graph on eager kernels, and so
  /// do those after it, until a thread beside them has the code; then it takes over. If the compiler fails, a warning says
  /// so, and the tier below stays.
  bool wait = true;
  /// How much memory intermediate values should take at most: up to 1 a part of what they would take if each was kept until it is
  /// read for the last time, beyond that bytes. Values are computed again to get there, as far as that helps; explain() says
  /// which. From 0.9 on, only those that take about a fiftieth of the step's time, all of them; below, pointwise ones, and then
  /// products too. 1: none is. Mode::compiled alone.
  double memory_budget = 0.9;
};

struct Retrace {
  std::string reason;  ///< "argument 0: shape [8, 64] -> [16, 64]"
  double seconds = 0;  ///< what it cost
};
/// How many calls ran as what.
struct TierCalls {
  std::string tier;  ///< as Stats::tier; "eager": those over the limit of specialisations
  int64_t calls = 0;
};
/// What graph mode did. Bytes and kernels are of the newest specialisation.
struct Stats {
  int64_t calls = 0;
  int64_t traces = 0;             ///< specialisations made
  int64_t verifications = 0;      ///< traces made only to compare
  int64_t resizes = 0;            ///< new sizes that cost neither passes nor the compiler
  int64_t resizes_in_place = 0;   ///< of these, those that were put into a program that was there
  int64_t sources = 0;            ///< different sources generated: each is one call of the compiler, if no cache has it
  int64_t promoted = 0;           ///< constants that became run-time scalars
  int64_t kernels = 0;            ///< launches of one call
  int64_t fused_kernels = 0;      ///< of these, generated ones
  int64_t peak_bytes = 0;         ///< the planned arena
  int64_t lower_bound_bytes = 0;  ///< most bytes alive at one time: no plan is smaller
  int64_t backward_kernels = 0;   ///< launches of backward() of the results
  int64_t saved_bytes = 0;        ///< what a call keeps for it, beside arguments, results and tensors from outside
  double trace_seconds = 0, pass_seconds = 0, emit_seconds = 0, compiler_seconds = 0;
  bool compiler_cached = false;  ///< the generated kernels were found on disk
  std::string tier;              ///< "eager kernels", "generated C", "generated CUDA"
  std::string note;              ///< why the tier is lower than asked for, if it is
  std::vector<TierCalls> tiers;  ///< of all specialisations
  int64_t compiling = 0;         ///< specialisations whose code is being compiled beside the calls
  std::vector<PassTime> passes;
  std::vector<Retrace> retraces;
  std::vector<std::string>
      sizes;  ///< dims with many sizes in one specialisation, and why there is one per size elsewhere
  std::vector<std::string>
      stale;  ///< numbers that had changed before a verification saw it, and which calls used the old
};

/// A number that a compiled function is given anew at each call, without another trace: where a plain number is baked into the
/// trace, and another one is another specialisation. In an operation it behaves as the number does: it broadcasts, and never
/// widens a tensor (of float32, or float64 for double). Its value is not known while the function is traced.
///
///   auto step = td::compile([&](const td::Tensor& x, td::Dynamic<float> rate) { return x * rate; });
///   step(x, td::Dynamic(0.1f));
template <class T>
requires std::is_arithmetic_v<T>
class Dynamic {
 public:
  explicit Dynamic(T value)
      : number_(Arg(value).scalar(std::is_same_v<T, float>      ? float32
                                  : std::is_floating_point_v<T> ? float64
                                  : std::is_same_v<T, bool>     ? bool_
                                                                : int64)) {}
  operator Arg() const { return Arg(number_); }
  /// 0-d.
  const Tensor& tensor() const { return number_; }
  /// TraceError while the function is traced.
  T value(Where where = Where::current()) const { return static_cast<T>(number_.item<double>(where)); }

 private:
  template <class Qualified, class V> friend void graph::for_each_part(Qualified&, V&);
  Tensor number_;
};

namespace graph {

using Function = std::function<Tensors(const Tensors&)>;

/// The part of a compiled function that doesn't depend on its C++ type.
class CompiledFunction {
 public:
  CompiledFunction(CompileOptions options, Where where);
  ~CompiledFunction();
  CompiledFunction(CompiledFunction&&) noexcept;
  CompiledFunction& operator=(CompiledFunction&&) noexcept;

  /// `static_key` spells the arguments that are no tensors; they are baked into the trace. `function` leaves in `kept` what
  /// else it returned; there it is found after the call.
  Tensors call(const Tensors& arguments, const std::string& static_key, const Function& function,
               std::shared_ptr<const Kept>* kept = nullptr);
  const CompileOptions& options() const;
  Stats stats() const;
  bool ready() const;
  void wait() const;
  const std::vector<Stage>& stages() const;
  std::string explain() const;
  std::string plan() const;
  std::string source() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Graph trace(const Tensors& arguments, const Function& function, Where where);

}  // namespace graph

/// A function that runs in one of the three modes. Made by compile(). Copies are the same function, with one set of traces.
/// Several threads may call it at one time: docs/contract.md says what runs side by side and what one after another.
template <class F> class Compiled {
 public:
  Compiled(F function, CompileOptions options, Where where)
      : body_(std::make_shared<Body>(std::move(function), std::move(options), where)) {}

  /// Calls the function with these arguments: Tensors and Dynamic numbers; numbers, enums and strings, which are static:
  /// another value is another specialisation; vectors, arrays, tuples, optionals and plain structs of these. The same may be
  /// returned. Results that require a gradient have the function behind them on the tape, as one node (not for create_graph).
  /// A number that the function returns is what it was when it was traced last, as a captured one is.
  template <class... Args> auto operator()(const Args&... args) const {
    using Result = std::invoke_result_t<F&, const Args&...>;
    F& user = body_->function;
    if (body_->core.options().mode == Mode::eager) return user(args...);
    Tensors tensors;
    tensors.reserve(sizeof...(Args));
    std::string static_key;
    [[maybe_unused]] graph::Collected collected{tensors, static_key};
    (graph::for_each_part(args, collected), ...);
    std::shared_ptr<const graph::Kept> kept;
    const auto function = [&](const Tensors& in) { return graph::call_with(user, in, &kept, args...); };
    // By reference: it allocates nothing.
    Tensors results = body_->core.call(tensors, static_key, std::ref(function), &kept);
    if constexpr (!std::is_void_v<Result>) return graph::filled<std::decay_t<Result>>(std::move(results), kept.get());
  }

  Stats stats() const { return body_->core.stats(); }
  /// Whether nothing is being compiled beside the calls (CompileOptions::wait): the next ones run what there is.
  bool ready() const { return body_->core.ready(); }
  /// Waits until nothing is being compiled beside the calls.
  void wait() const { body_->core.wait(); }
  /// The graph as traced and after each pass, of the newest specialisation. Not to be read while another thread calls.
  const std::vector<Stage>& stages() const { return body_->core.stages(); }
  /// Fusions made and refused, the plan, retraces and their reasons.
  std::string explain() const { return body_->core.explain(); }
  /// What one call does: steps in order, and where each value lies (of the newest specialisation).
  std::string plan() const { return body_->core.plan(); }
  /// The generated C or CUDA C++.
  std::string source() const { return body_->core.source(); }
  F& function() const { return body_->function; }
  const CompileOptions& options() const { return body_->core.options(); }

 private:
  struct Body {
    Body(F function, CompileOptions options, Where where)
        : function(std::move(function)), core(std::move(options), where) {}
    F function;
    graph::CompiledFunction core;
  };
  std::shared_ptr<Body> body_;
};

namespace graph {
/// A call of a model where it stands: what its fields are is seen at each call.
template <class Model> struct ModelCall {
  Model* model;
  template <class... Args>
  requires std::is_invocable_v<Model&, const Args&...>
  decltype(auto) operator()(const Args&... args) const { return (*model)(args...); }
};
template <class Model, class Member> struct MemberCall {
  Model* model;
  Member member;
  template <class... Args>
  requires std::is_invocable_v<Member, Model&, const Args&...>
  decltype(auto) operator()(const Args&... args) const { return std::invoke(member, *model, args...); }
};
template <class F> inline constexpr bool is_model = nn::detail::has_fields<std::remove_cvref_t<F>>;
}  // namespace graph

/// A function object is copied, or moved. A model, which is a struct with fields and operator(), is referred to, and must
/// outlive what is made here, unless it is moved in: compile(std::move(model)).
template <class F> auto compile(F&& function, CompileOptions options = {}, Where where = Where::current()) {
  if constexpr (std::is_lvalue_reference_v<F> && graph::is_model<F>) {
    using Call = graph::ModelCall<std::remove_reference_t<F>>;
    return Compiled<Call>(Call{&function}, std::move(options), where);
  } else {
    return Compiled<std::decay_t<F>>(std::forward<F>(function), std::move(options), where);
  }
}
/// A member function of a model, which must outlive what is made here: compile(net, &Net::encode).
template <class Model, class Member>
requires std::is_member_function_pointer_v<Member>
auto compile(Model& model, Member member, CompileOptions options = {}, Where where = Where::current()) {
  using Call = graph::MemberCall<Model, Member>;
  return Compiled<Call>(Call{&model, member}, std::move(options), where);
}

/// The graph of one call of `function` with these arguments, without compiling or running it. Arguments may be all that a
/// compiled function takes.
template <class F> Graph trace(const F& function, const Tensor& a, Where where = Where::current()) {
  return graph::trace(
      {a}, [&](const Tensors& in) { return graph::call_with(function, in, nullptr, a); }, where);
}
template <class F> Graph trace(const F& function, const Tensor& a, const Tensor& b, Where where = Where::current()) {
  return graph::trace(
      {a, b}, [&](const Tensors& in) { return graph::call_with(function, in, nullptr, a, b); }, where);
}
template <class F, class... Args>
requires std::is_invocable_v<const F&, const Args&...> Graph trace(const F& function, const Args&... args) {
  Tensors tensors;
  std::string static_key;
  [[maybe_unused]] graph::Collected collected{tensors, static_key};
  (graph::for_each_part(args, collected), ...);
  return graph::trace(
      tensors, [&](const Tensors& in) { return graph::call_with(function, in, nullptr, args...); }, Where());
}

}  // namespace tandem

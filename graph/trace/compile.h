// compile(): runs a function eagerly, as a replayed graph, or compiled, without a change to its text.
#pragma once

#include <array>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "../ir/graph.h"
#include "../ir/stage.h"

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

struct CompileOptions {
  Mode mode = Mode::compiled;
  std::vector<std::string> without = {};  ///< passes to leave out, by name (see pass_names); also memory_plan, emit
  Verify verify = Verify::powers_of_two;
  int max_specialisations = 8;
  OnLimit on_limit = OnLimit::error;
};

struct Retrace {
  std::string reason;  ///< "argument 0: shape [8, 64] -> [16, 64]"
  double seconds = 0;  ///< what it cost
};
/// What graph mode did. Bytes and kernels are of the newest specialisation.
struct Stats {
  int64_t calls = 0;
  int64_t traces = 0;             ///< specialisations made
  int64_t verifications = 0;      ///< traces made only to compare
  int64_t promoted = 0;           ///< constants that became run-time scalars
  int64_t kernels = 0;            ///< launches of one call
  int64_t fused_kernels = 0;      ///< of these, generated ones
  int64_t peak_bytes = 0;         ///< the planned arena
  int64_t lower_bound_bytes = 0;  ///< most bytes alive at one time: no plan is smaller
  double trace_seconds = 0, pass_seconds = 0, emit_seconds = 0, compiler_seconds = 0;
  bool compiler_cached = false;  ///< the generated kernels were found on disk
  std::string tier;              ///< "eager kernels", "generated C", "generated CUDA"
  std::string note;              ///< why the tier is lower than asked for, if it is
  std::vector<PassTime> passes;
  std::vector<Retrace> retraces;
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
  static Dynamic of(const Tensor& number) { return Dynamic(number); }

  operator Arg() const { return Arg(number_); }
  /// 0-d.
  const Tensor& tensor() const { return number_; }
  /// TraceError while the function is traced.
  T value(Where where = Where::current()) const { return static_cast<T>(number_.item<double>(where)); }

 private:
  explicit Dynamic(const Tensor& number) : number_(number) {}
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

  /// `static_key` spells the arguments that are no tensors; they are baked into the trace.
  Tensors call(const Tensors& arguments, const std::string& static_key, const Function& function);
  const CompileOptions& options() const;
  Stats stats() const;
  const std::vector<Stage>& stages() const;
  std::string explain() const;
  std::string plan() const;
  std::string source() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Graph trace(const Tensors& arguments, const Function& function, Where where);

// Results and arguments of user functions, flattened to tensors and back.
template <class T> struct IsTensor : std::is_same<std::decay_t<T>, Tensor> {};
template <class T> struct IsDynamic : std::false_type {};
template <class T> struct IsDynamic<Dynamic<T>> : std::true_type {};
inline void flatten(Tensors& out, const Tensor& tensor) { out.push_back(tensor); }
inline void flatten(Tensors& out, const Tensors& tensors) { out.insert(out.end(), tensors.begin(), tensors.end()); }
template <class... T> void flatten(Tensors& out, const std::tuple<T...>& tuple) {
  std::apply([&](const auto&... each) { (flatten(out, each), ...); }, tuple);
}
template <class A, class B> void flatten(Tensors& out, const std::pair<A, B>& pair) {
  flatten(out, pair.first);
  flatten(out, pair.second);
}
template <class T, size_t N> void flatten(Tensors& out, const std::array<T, N>& array) {
  for (const T& each : array) flatten(out, each);
}
template <class T> struct Unflatten;
template <> struct Unflatten<Tensor> {
  static Tensor from(Tensors& in, size_t& at) { return std::move(in[at++]); }
};
template <> struct Unflatten<Tensors> {
  static Tensors from(Tensors& in, size_t& at) {
    Tensors rest(std::make_move_iterator(in.begin() + static_cast<std::ptrdiff_t>(at)),
                 std::make_move_iterator(in.end()));
    at = in.size();
    return rest;
  }
};
template <class... T> struct Unflatten<std::tuple<T...>> {
  static std::tuple<T...> from(Tensors& in, size_t& at) { return std::tuple<T...>{Unflatten<T>::from(in, at)...}; }
};
template <class A, class B> struct Unflatten<std::pair<A, B>> {
  static std::pair<A, B> from(Tensors& in, size_t& at) {
    A first = Unflatten<A>::from(in, at);
    return {std::move(first), Unflatten<B>::from(in, at)};
  }
};
template <class T, size_t N> struct Unflatten<std::array<T, N>> {
  static std::array<T, N> from(Tensors& in, size_t& at) {
    std::array<T, N> result;
    for (T& each : result) each = Unflatten<T>::from(in, at);
    return result;
  }
};

void describe_number(std::string& key, double value);              ///< with all its digits
void describe_string(std::string& key, const std::string& value);  ///< with its length, so that none runs into the next
inline void describe_static(std::string&, const Tensor&) {}
template <class T> void describe_static(std::string& key, const Dynamic<T>&) { key += "dynamic;"; }
template <class T> void describe_static(std::string& key, const T& value) {
  // A generic function does another thing with 2 than with 2.0.
  if constexpr (std::is_floating_point_v<T>)
    describe_number(key += sizeof(T) == 4 ? "f32 " : "f64 ", static_cast<double>(value));
  else if constexpr (std::is_same_v<T, bool>) key += value ? "true;" : "false;";
  else if constexpr (std::is_arithmetic_v<T>)
    key += (std::is_signed_v<T> ? 'i' : 'u') + std::to_string(8 * sizeof(T)) + ' ' + std::to_string(value) + ";";
  else if constexpr (std::is_enum_v<T>) key += std::to_string(static_cast<long long>(value)) + ";";
  else if constexpr (std::is_convertible_v<T, std::string>) describe_string(key, value);
  else
    static_assert(std::is_arithmetic_v<T>,
                  "tandem::compile: arguments of a compiled function are Tensors, numbers, Dynamic numbers, enums or "
                  "strings; capture "
                  "anything else by reference in the lambda");
}

}  // namespace graph

/// A function that runs in one of the three modes. Made by compile(). Several threads may call it at one time:
/// docs/contract.md says what runs side by side and what one after another.
template <class F> class Compiled {
 public:
  Compiled(F function, CompileOptions options, Where where)
      : function_(std::move(function)), core_(std::move(options), where) {}

  /// Calls the function with these arguments: Tensors and Dynamic numbers, or numbers, enums and strings (which are static:
  /// another value is another specialisation). Results are detached from the tape: put backward() inside.
  template <class... Args> auto operator()(const Args&... args) {
    using Result = std::invoke_result_t<F&, const Args&...>;
    if (core_.options().mode == Mode::eager) return function_(args...);
    Tensors tensors;
    tensors.reserve(sizeof...(Args));
    std::string static_key;
    ((add(tensors, args), graph::describe_static(static_key, args)), ...);
    const auto function = [&](const Tensors& in) {
      size_t next = 0;
      const auto pick = [&](const auto& arg) -> decltype(auto) {
        if constexpr (graph::IsTensor<decltype(arg)>::value) return (in[next++]);
        else if constexpr (graph::IsDynamic<std::decay_t<decltype(arg)>>::value)
          return std::decay_t<decltype(arg)>::of(in[next++]);
        else return (arg);
      };
      std::tuple<decltype(pick(args))...> picked{pick(args)...};
      Tensors out;
      if constexpr (std::is_void_v<Result>) std::apply(function_, picked);
      else graph::flatten(out, std::apply(function_, picked));
      return out;
    };
    Tensors results = core_.call(tensors, static_key, std::ref(function));  // by reference: it allocates nothing
    if constexpr (!std::is_void_v<Result>) {
      size_t at = 0;
      return graph::Unflatten<std::decay_t<Result>>::from(results, at);
    }
  }

  Stats stats() const { return core_.stats(); }
  /// The graph as traced and after each pass, of the newest specialisation. Not to be read while another thread calls.
  const std::vector<Stage>& stages() const { return core_.stages(); }
  /// Fusions made and refused, the plan, retraces and their reasons.
  std::string explain() const { return core_.explain(); }
  /// What one call does: steps in order, and where each value lies (of the newest specialisation).
  std::string plan() const { return core_.plan(); }
  /// The generated C or CUDA C++.
  std::string source() const { return core_.source(); }
  F& function() { return function_; }
  const CompileOptions& options() const { return core_.options(); }

 private:
  static void add(Tensors& tensors, const Tensor& tensor) { tensors.push_back(tensor); }
  template <class T> static void add(Tensors& tensors, const Dynamic<T>& number) { tensors.push_back(number.tensor()); }
  template <class T> static void add(Tensors&, const T&) {}

  F function_;
  graph::CompiledFunction core_;
};

template <class F> Compiled<F> compile(F function, CompileOptions options = {}, Where where = Where::current()) {
  return Compiled<F>(std::move(function), std::move(options), where);
}

/// The graph of one call of `function` with these arguments, without compiling or running it.
template <class F> Graph trace(const F& function, const Tensor& a, Where where = Where::current()) {
  return graph::trace(
      {a},
      [&](const Tensors& in) {
        Tensors out;
        graph::flatten(out, function(in[0]));
        return out;
      },
      where);
}
template <class F> Graph trace(const F& function, const Tensor& a, const Tensor& b, Where where = Where::current()) {
  return graph::trace(
      {a, b},
      [&](const Tensors& in) {
        Tensors out;
        graph::flatten(out, function(in[0], in[1]));
        return out;
      },
      where);
}

}  // namespace tandem

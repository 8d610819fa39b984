// Specialisations: which trace serves a call, when it is made, checked and given up.
#include "graph/trace/compile.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <set>

#include "autograd/anomaly.h"
#include "core/autocast.h"
#include "core/dispatch.h"
#include "core/warning.h"
#include "graph/passes/pipeline.h"
#include "graph/run/program.h"
#include "graph/trace/difference.h"
#include "graph/trace/programs.h"
#include "graph/trace/tracer.h"

namespace tandem {

Mode parse_mode(const std::string& name, Where where) {
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled})
    if (name == name_of(mode)) return mode;
  throw ValueError("no mode is called \"" + name + "\"; there are eager, replay and compiled", where);
}

const DynamicSizes DynamicSizes::never = [] {
  DynamicSizes result;
  result.never_ = true;
  return result;
}();

std::string_view name_of(Mode mode) {
  constexpr std::string_view names[] = {"eager", "replay", "compiled"};
  return names[static_cast<int>(mode)];
}

namespace graph {

namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Whether two traces of one function read the very same tensors, but for numbers.
bool read_the_same(const Graph& a, const Graph& b) {
  const auto same = [](const auto& x, const auto& y) { return x.tensor.impl() == y.tensor.impl(); };
  const auto same_leaf = [&](const Leaf& x, const Leaf& y) {
    return x.kind == y.kind && (x.kind == LeafKind::scalar || same(x, y));
  };
  return std::equal(a.leaves.begin(), a.leaves.end(), b.leaves.begin(), b.leaves.end(), same_leaf) &&
         std::equal(a.gradients.begin(), a.gradients.end(), b.gradients.begin(), b.gradients.end(), same);
}

}  // namespace

struct CompiledFunction::State : Programs {
  std::vector<std::unique_ptr<Specialisation>> specialisations;
  std::atomic<Specialisation*> newest = nullptr;  ///< the one that served last
  std::atomic<uint64_t> clock = 0;

  static constexpr std::ptrdiff_t kMostOfOneKind = 8;  ///< programs for sizes of one specialisation

  Specialisation* find(const Call& call) {
    Specialisation* const last = newest.load(std::memory_order_relaxed);
    if (last && last->signature.holds(call)) return last;
    for (const auto& each : specialisations)
      if (each->signature.holds(call)) return served_by(*each);
    return nullptr;
  }

  Specialisation* served_by(Specialisation& next) {
    if (Specialisation* const last = newest.exchange(&next)) last->last_used = ++clock;
    return &next;
  }

  void give_up(Specialisation* specialisation) {
    count_calls(*specialisation);
    forget(*specialisation);
    stats.calls += specialisation->calls;
    if (newest == specialisation) newest = nullptr;
    std::erase_if(specialisations, [&](const auto& each) { return each.get() == specialisation; });
  }

  /// Whether a specialisation's call of that number is traced again to compare.
  bool due(int64_t calls) const {
    return options.verify == Verify::every || (options.verify == Verify::powers_of_two && (calls & (calls - 1)) == 0);
  }

  /// How many count against the limit.
  int kinds() const {
    std::set<const void*> all;
    for (const auto& each : specialisations) {
      if (each->sizes) all.insert(each->sizes.get());
      else all.insert(each.get());
    }
    return static_cast<int>(all.size());
  }

  /// The one that was used least lately, of these sizes if any are given.
  Specialisation* oldest(const Sizes* sizes) {
    if (Specialisation* const last = newest) last->last_used = ++clock;
    Specialisation* result = nullptr;
    for (const auto& each : specialisations)
      if ((!sizes || each->sizes.get() == sizes) && (!result || each->last_used < result->last_used))
        result = each.get();
    return result;
  }

  /// Room for one more. False if the call is to be eager instead.
  bool make_room(const std::string& difference) {
    if (kinds() < options.max_specialisations) return true;
    if (options.on_limit == OnLimit::eager) return false;
    if (options.on_limit == OnLimit::error)
      throw RetraceError(
          detail::str("compiled function: this call needs specialisation ", kinds() + 1, ", the limit is ",
                      options.max_specialisations, ". The newest differs in ", difference,
                      ". Pad or bucket that argument, raise max_specialisations, or set on_limit to OnLimit::evict "
                      "or OnLimit::eager",
                      newest && newest.load()->backward()
                          ? "; or call it under NoGrad if no gradient is wanted, where one trace serves many sizes"
                          : ""),
          where);
    while (kinds() >= options.max_specialisations) give_up(oldest(nullptr));
    return true;
  }

  void trace(Specialisation& made, const Call& call, const Function& function,
             const std::shared_ptr<const Kept>* kept) {
    const auto begin = std::chrono::steady_clock::now();
    JointTrace joint = trace_jointly(call.arguments, function, {}, recompute(), where);
    stats.trace_seconds += seconds_since(begin);
    if (kept) made.kept = *kept;
    made.traced = std::move(joint.traced.graph);
    made.parts = joint.parts;
    made.gradient = joint_gradient(joint, where);
    made.signature.reads(std::move(joint.traced.guards));
    made.reads_numbers = joint.traced.reads_values && options.verify != Verify::never;
  }

  /// A specialisation that differs from a call in sizes alone.
  struct Kin {
    Specialisation* specialisation;
    Signature signature;  ///< of the call
    std::optional<Sizes::Foreseen> foreseen = {};
  };
  /// The newest of each kind.
  std::vector<Kin> kin_of(const Call& call) const {
    std::vector<Kin> result;
    if (options.dynamic.is_never()) return result;
    std::set<const Sizes*> known;
    for (auto each = specialisations.rbegin(); each != specialisations.rend(); ++each) {
      Specialisation& specialisation = **each;
      if (specialisation.sizes && known.count(specialisation.sizes.get())) continue;
      std::optional<Signature> signature = specialisation.signature.resized(call);
      if (!signature) continue;
      result.push_back({&specialisation, std::move(*signature)});
      if (!specialisation.sizes) continue;
      known.insert(specialisation.sizes.get());
      result.back().foreseen = specialisation.sizes->foresee(call.arguments);
    }
    return result;
  }

  std::ptrdiff_t count_of(const Sizes* sizes) const {
    return std::count_if(specialisations.begin(), specialisations.end(),
                         [&](const auto& each) { return each->sizes.get() == sizes; });
  }

  /// The trace and the program that were used least lately, in place of those that would be given up for one more.
  bool take_over(Specialisation& made, const Kin& kin, const Graph& reads) {
    const Sizes& sizes = *kin.specialisation->sizes;
    if (count_of(&sizes) < kMostOfOneKind) return false;
    Specialisation& old = *oldest(&sizes);
    if (&old == kin.specialisation || old.upgrade || old.fitted != sizes.fitted() || !old.program->resizable() ||
        !read_the_same(old.traced, reads))
      return false;
    Graph traced = std::move(old.traced);
    std::vector<NumberPlace> places = std::move(old.number_places);
    std::shared_ptr<Program> program = old.program;
    give_up(&old);
    if (!sizes.resize(*kin.foreseen, reads, traced, places, *program)) return false;
    made.traced = std::move(traced);
    made.number_places = std::move(places);
    made.program = std::move(program);
    ++stats.resizes_in_place;
    return true;
  }

  /// The program that was foreseen, for the trace that `made` has, or without one. False if the code doesn't serve this size.
  bool resize(Specialisation& made, const Kin& kin, bool traced) {
    Sizes& sizes = *kin.specialisation->sizes;
    const Graph& like = kin.specialisation->traced;
    if (!take_over(made, kin, traced ? made.traced : like)) {
      if (!traced) made.traced = sizes.traced(*kin.foreseen, like);
      made.program = sizes.program(*kin.foreseen, made.traced);
      if (!made.program) return false;
    }
    if (traced) sizes.confirm(*kin.foreseen);
    made.sizes = kin.specialisation->sizes;
    made.fitted = sizes.fitted();
    made.reads_numbers = made.reads_numbers || kin.specialisation->reads_numbers;
    ++stats.resizes;
    stats.peak_bytes = made.program->plan().arena_bytes();
    stats.lower_bound_bytes = made.program->plan().lower_bound_bytes();
    return true;
  }

  /// Without a trace of this size: one has been seen to be as foreseen, or nobody wants to look.
  std::unique_ptr<Specialisation> resized_unseen(const std::vector<Kin>& all) {
    for (const Kin& kin : all) {
      if (!kin.foreseen) continue;
      const Specialisation& like = *kin.specialisation;
      if (like.reads_numbers || like.sizes->reads_numbers() ||
          (!like.sizes->confirmed(*kin.foreseen) && (options.verify != Verify::never || like.sizes->results_vary())))
        continue;
      auto made = std::make_unique<Specialisation>(kin.signature);
      made->parts = like.parts;
      made->gradient = like.gradient;
      made->kept = like.kept;
      if (resize(*made, kin, false)) return made;
    }
    return nullptr;
  }

  /// Traces in two sizes that nobody has given, as the dims that were asked for may have any.
  void ask_for_sizes(Specialisation& made, const Call& call, const Function& function) {
    std::vector<Traced> others;
    try {
      for (const int64_t factor : {2, 3}) {
        Tensors arguments = call.arguments;
        bool larger = false;
        for (const DynamicSizes::Dim& dim : options.dynamic.dims()) {
          if (dim.argument < 0 || dim.argument >= std::ssize(arguments)) continue;
          Tensor& argument = arguments[static_cast<size_t>(dim.argument)];
          ValueType type = type_of(argument);
          if (dim.dim < 0 || dim.dim >= type.shape.size() || type.shape[dim.dim] < 2) continue;
          if (type.strides != contiguous_strides(type.shape) || argument.impl()->grad.defined()) continue;
          type.shape[dim.dim] *= factor;
          type.strides = contiguous_strides(type.shape);
          const bool requires_grad = argument.requires_grad();
          for (Tensor& same : arguments)
            if (&same != &argument && same.impl() == argument.impl()) return;
          argument = header_of(type, argument.impl()->is_scalar);
          argument.impl()->requires_grad = requires_grad;
          larger = true;
        }
        if (!larger) return;
        others.push_back(run_trace(arguments, function, where));
        ++stats.verifications;
      }
    } catch (const Error& error) {
      note_sizes("one specialisation per size: in a larger one, " + error.message());
      return;
    }
    auto sizes = std::make_shared<Sizes>(std::move(others[1].graph));
    std::string difference = sizes->add(others[0].graph);
    if (difference.empty()) difference = sizes->add(made.traced);
    made.sizes = std::move(sizes);
    if (!difference.empty()) one_per_size(made, difference);
  }

  Specialisation* specialise(const Call& call, const Function& function, const std::shared_ptr<const Kept>* kept) {
    const std::vector<Kin> all = kin_of(call);
    std::unique_ptr<Specialisation> made = resized_unseen(all);
    if (!made) {
      Retrace retrace;
      Specialisation* const last = newest;
      if (last) retrace.reason = last->signature.describe(call);
      if (all.empty() && !make_room(retrace.reason)) return nullptr;
      const auto begin = std::chrono::steady_clock::now();
      made = std::make_unique<Specialisation>(Signature(call));
      trace(*made, call, function, kept);
      const bool resized = std::any_of(all.begin(), all.end(), [&](const Kin& kin) {
        return kin.foreseen && kin.specialisation->sizes->agrees(made->traced, *kin.foreseen) &&
               resize(*made, kin, true);
      });
      if (resized) {
        ++stats.verifications;
      } else {
        if (made->gradient && made->gradient->traced_gradient()) {
          if (!all.empty()) one_per_size(*made, "its results have a gradient");
        } else {
          for (const Kin& kin : all)
            if (!made->sizes) join(*kin.specialisation, *made);
          if (all.empty() && !options.dynamic.dims().empty()) ask_for_sizes(*made, call, function);
        }
        make_programs(*made);
        ++stats.traces;
        if (made->sizes) {
          made->reads_numbers =
              made->reads_numbers || (made->sizes->reads_numbers() && options.verify != Verify::never);
          for (const std::string& dim : made->sizes->dims()) note_sizes("many in one specialisation: " + dim);
        } else if (!all.empty() && !make_room(retrace.reason)) {
          forget(*made);
          return nullptr;
        }
        if (last) {
          retrace.seconds = seconds_since(begin);
          stats.retraces.push_back(std::move(retrace));
        }
      }
    }
    const Sizes* const sizes = made->sizes.get();
    specialisations.push_back(std::move(made));
    Specialisation* const result = served_by(*specialisations.back());
    if (sizes && count_of(sizes) > kMostOfOneKind) give_up(oldest(sizes));
    return result;
  }

  /// The trace `made` as one of the same kind, if it is.
  void join(Specialisation& kin, Specialisation& made) {
    const std::shared_ptr<Sizes> sizes = kin.sizes ? kin.sizes : std::make_shared<Sizes>(kin.traced);
    if (const std::string difference = sizes->add(made.traced); !difference.empty())
      return one_per_size(made, difference);
    if (kin.kept && made.kept && kin.kept->text != made.kept->text) sizes->note_results_vary();
    made.reads_numbers = made.reads_numbers || kin.reads_numbers;
    made.sizes = kin.sizes = sizes;
  }

  /// Traces again and compares: changed numbers are promoted, other tensors take the place of the old ones,
  /// another structure is an error. `number` is that of this call.
  void check(Specialisation& specialisation, const Tensors& arguments, const Function& function,
             const std::shared_ptr<const Kept>* kept, int64_t number) {
    JointTrace now = trace_jointly(arguments, function, specialisation.gradient ? specialisation.gradient->refused : "",
                                   recompute(), where);
    const Graph& then = specialisation.traced;
    if (const std::string difference = structural_difference(then, now.traced.graph); !difference.empty())
      throw TraceError(
          detail::str(
              "compiled function: it does something else than when it was traced, though its arguments are alike: ",
              difference,
              ". A C++ condition or loop has changed under the graph: pass what it depends on as an argument, write it "
              "with where(), or use {.mode = Mode::eager}"),
          where);
    try {
      renew(specialisation, now, kept, number);
    } catch (...) {  // half renewed it is neither: the next call traces anew
      give_up(&specialisation);
      throw;
    }
  }

  void renew(Specialisation& specialisation, JointTrace& joint, const std::shared_ptr<const Kept>* kept,
             int64_t number) {
    Traced& now = joint.traced;
    Graph& then = specialisation.traced;
    const std::vector<size_t> aliased = aliases(then);
    std::vector<size_t> rebound;
    bool promoted = false, rebuild = false;
    for (size_t i = 0; i < then.leaves.size(); ++i) {
      Leaf& leaf = then.leaves[i];
      const Leaf& fresh = now.graph.leaves[i];
      if (leaf.kind == LeafKind::scalar) {
        if ((leaf.run_time && specialisation.reads_numbers) ||
            std::memcmp(&leaf.number, &fresh.number, sizeof(double)) == 0)
          continue;
        rebuild = rebuild || !leaf.run_time;
        leaf.run_time = true;
        promoted = true;
        ++stats.promoted;
        if (!specialisation.reads_numbers)
          report_stale(detail::str("a number, now ", fresh.number, " and ", leaf.number, " before,"), fresh.where,
                       specialisation.traced_at, number);
      } else if (leaf.tensor.impl() != fresh.tensor.impl()) {
        if (leaf.kind == LeafKind::constant && !specialisation.reads_numbers &&
            !same_bytes(leaf.tensor, fresh.tensor)) {
          ++stats.promoted;
          specialisation.reads_numbers = true;
          report_stale(detail::str("a tensor ", fresh.tensor.shape(), " made from C++ values"), fresh.where,
                       specialisation.traced_at, number);
        }
        leaf.tensor = fresh.tensor;
        rebound.push_back(i);
      }
    }
    for (size_t i = 0; i < then.gradients.size(); ++i)
      if (then.gradients[i].tensor.impl() != now.graph.gradients[i].tensor.impl()) {
        then.gradients[i].tensor = now.graph.gradients[i].tensor;
        rebuild = true;
      }
    if (kept && *kept) {
      if (specialisation.kept->text != (*kept)->text && !specialisation.reads_numbers) {
        ++stats.promoted;
        specialisation.reads_numbers = true;
        report_stale("a number among the results", where, specialisation.traced_at, number);
      }
      specialisation.kept = *kept;
    }
    specialisation.reads_numbers |= promoted;
    if (rebuild || aliases(then) != aliased) {
      specialisation.sizes = nullptr;
      make_programs(specialisation);
    } else {
      for (const size_t i : rebound) specialisation.program->bind(static_cast<int>(i), then.leaves[i].tensor);
    }
    if (specialisation.gradient && !same_operands(specialisation.gradient->operands, joint.operands)) {
      auto renewed = std::make_shared<JointGradient>(*specialisation.gradient);
      renewed->operands = joint.operands;
      specialisation.gradient = std::move(renewed);
    }
    for (size_t i = 0; i < then.leaves.size(); ++i)
      if (then.leaves[i].kind == LeafKind::scalar && then.leaves[i].run_time)
        specialisation.program->set_number(static_cast<int>(i), now.graph.leaves[i].number);
    specialisation.signature.reads(std::move(now.guards));
    specialisation.traced_at = number;
  }

  /// Says that calls between two traces may have used what has changed since.
  void report_stale(const std::string& what, Where read, int64_t last_right, int64_t number) {
    if (number <= last_right + 1) return;
    stats.stale.push_back(detail::str(
        what, " read at ", to_string(read), " has changed: calls ", last_right + 1, " to ", number - 1,
        " may have used the old one. It is read at each call from now on; pass it as an argument, or verify each call "
        "with {.verify = Verify::every}"));
    warn(detail::str("compiled function at ", to_string(where), ": ", stats.stale.back()));
  }
};

void describe_number(std::string& key, double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g;", value);
  key += text;
}
void describe_string(std::string& key, const std::string& value) {
  key += detail::str('"', value, "\" (", value.size(), ");");
}

CompiledFunction::CompiledFunction(CompileOptions options, Where where) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  state_->where = user_line(where);
  if (state_->options.max_specialisations < 1)
    throw ValueError(
        detail::str("compile: max_specialisations is ", state_->options.max_specialisations, ", must be at least 1"),
        state_->where);
  plan_options(state_->options.without, state_->where);  // whether all names exist
}
CompiledFunction::~CompiledFunction() = default;
CompiledFunction::CompiledFunction(CompiledFunction&&) noexcept = default;
CompiledFunction& CompiledFunction::operator=(CompiledFunction&&) noexcept = default;

const CompileOptions& CompiledFunction::options() const { return state_->options; }
const std::vector<Stage>& CompiledFunction::stages() const { return state_->stages; }

Stats CompiledFunction::stats() const {
  const auto hold = state_->lock.hold();
  Stats stats = state_->stats;
  for (const auto& each : state_->specialisations) {
    const int64_t calls = each->calls;
    stats.calls += calls;
    State::count_calls(stats, each->program->plan().tier(), calls - each->calls_before);
    stats.compiling += each->upgrade && !each->upgrade->settled();
  }
  return stats;
}

bool CompiledFunction::ready() const { return stats().compiling == 0; }

void CompiledFunction::wait() const {
  std::vector<std::shared_ptr<const Upgrade>> upgrades;
  {
    const auto hold = state_->lock.hold();
    for (const auto& each : state_->specialisations)
      if (each->upgrade) upgrades.push_back(each->upgrade);
  }
  for (const auto& each : upgrades) each->wait();
}

Tensors CompiledFunction::call(const Tensors& arguments, const std::string& static_key, const Function& function,
                               std::shared_ptr<const Kept>* kept) {
  State& state = *state_;
  if (interceptor()) return function(arguments);          // inside another trace it is part of that graph
  if (AnomalyMode::active()) return function(arguments);  // which needs values at each op
  for (size_t i = 0; i < arguments.size(); ++i)
    if (!arguments[i].defined())
      throw UndefinedError(detail::str("compiled function: argument ", i, " is an undefined Tensor"), state.where);
  const Call call{arguments, static_key};
  const auto run = [&](const Specialisation& specialisation) {
    if (kept) *kept = specialisation.kept;
    return specialisation.run(arguments);
  };
  int64_t counted = 0;  // this call's number, once its specialisation has counted it
  if (state.lock.try_enter()) {
    struct Inside {
      CallLock& lock;
      ~Inside() { lock.leave(); }
    } const inside{state.lock};
    if (Specialisation* found = state.find(call); found && !found->upgrade_settled()) {
      counted = ++found->calls;
      if (!found->reads_numbers && !state.due(counted)) return run(*found);
    }
  }
  std::unique_lock alone(state.lock);
  Specialisation* specialisation = state.find(call);
  if (!specialisation) {
    specialisation = state.specialise(call, function, kept);
    if (!specialisation) {  // over the limit, and eager was chosen
      if (!counted) ++state.stats.calls;
      State::count_calls(state.stats, "eager", 1);
      alone.unlock();
      return function(arguments);
    }
    if (!counted) ++specialisation->calls;  // or the one that it found at first did, since given up
    return run(*specialisation);
  }
  if (!counted) {  // nobody else counts now
    counted = specialisation->calls.load(std::memory_order_relaxed) + 1;
    specialisation->calls.store(counted, std::memory_order_relaxed);
  }
  if (specialisation->upgrade_settled()) state.take_upgrade(*specialisation);
  const bool due = state.due(counted);
  if (due) ++state.stats.verifications;
  if (due || specialisation->reads_numbers) state.check(*specialisation, arguments, function, kept, counted);
  state.count_again(*specialisation, counted);
  return run(*specialisation);
}

std::string CompiledFunction::plan() const {
  const auto hold = state_->lock.hold();
  const Specialisation* const newest = state_->newest;
  return newest ? newest->plan() : std::string();
}

std::string CompiledFunction::source() const {
  const auto hold = state_->lock.hold();
  const Specialisation* const newest = state_->newest;
  return newest ? newest->source() : std::string();
}

std::string CompiledFunction::explain() const {
  const auto hold = state_->lock.hold();
  const State& state = *state_;
  const Stats s = stats();
  tandem::detail::TextStream out;
  out << "compiled at " << to_string(state.where) << ", mode " << name_of(state.options.mode) << ": " << s.calls
      << " calls, " << s.traces << " traces, " << s.verifications << " verifications, " << s.promoted
      << " constants promoted, " << s.resizes << " sizes without passes or compiler\n";
  for (const std::string& line : s.sizes) out << "sizes: " << line << "\n";
  const Specialisation* const newest = state.newest;
  if (!newest) return out.str() + "not called yet\n";
  out << "runs as " << s.tier << ": " << s.kernels << " kernels, " << s.fused_kernels << " of them generated\n";
  if (s.tiers.size() > 1)
    for (const TierCalls& each : s.tiers) out << each.calls << " calls ran as " << each.tier << "\n";
  if (!s.note.empty()) out << "note: " << s.note << "\n";
  out << "seconds: trace " << s.trace_seconds << ", passes " << s.pass_seconds << ", emit " << s.emit_seconds
      << ", compiler " << s.compiler_seconds << (s.compiler_cached ? " (found in the cache)" : "") << "\n";
  out << "memory: arena " << s.peak_bytes << " bytes, "
      << (s.lower_bound_bytes ? static_cast<double>(s.peak_bytes) / static_cast<double>(s.lower_bound_bytes) : 1.0)
      << " of the lower bound " << s.lower_bound_bytes << "\n";
  out << "passes:\n";
  for (const PassTime& pass : s.passes)
    out << "  " << pass.name << ": " << pass.nodes_before << " -> " << pass.nodes_after << " nodes, "
        << pass.seconds * 1e3 << " ms\n";
  if (newest->backward())
    out << "backward() of its results: " << s.backward_kernels << " kernels, " << s.saved_bytes
        << " bytes kept for it\n";
  else if (newest->gradient && !newest->gradient->refused.empty())
    out << "backward() of its results: refused, " << newest->gradient->refused << "\n";
  out << newest->plan();
  out << "fused:\n";
  for (const std::string& line : state.fused) out << "  " << line << "\n";
  if (!state.recomputed.empty()) out << "computed again:\n";
  for (const std::string& line : state.recomputed) out << "  " << line << "\n";
  out << "refused:\n";
  for (const std::string& line : state.refused) out << "  " << line << "\n";
  for (const std::string& line : s.stale) out << "stale: " << line << "\n";
  out << "retraces:\n";
  for (const Retrace& retrace : s.retraces) out << "  " << retrace.reason << " (" << retrace.seconds * 1e3 << " ms)\n";
  return out.str();
}

}  // namespace graph
}  // namespace tandem

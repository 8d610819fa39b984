// Tests made from the op table: each op, on the samples of its family (tests/samples/), in every layout and
// dtype, against double arithmetic and finite differences, and in the three modes.
//
//   TANDEM_TEST_DEVICE=cuda  runs them on cuda(0)
//   TANDEM_TEST_EVERY=5      runs every fifth case (sanitizers)
//   TANDEM_TEST_OP=softmax   runs one op
#include <doctest/doctest.h>

#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>

#include "autograd/autograd.h"
#include "graph/trace/compile.h"
#include "samples/case.h"

namespace td = tandem;
using namespace tandem::samples;

namespace {

int64_t number_from(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::atoll(text) : otherwise;
}

/// Cases that ran and failed, of one op.
struct Tally {
  int64_t forward = 0, first = 0, second = 0, replay = 0, compiled = 0, failed = 0;
  int64_t total() const { return forward + first + second + replay + compiled; }
};

class Suite {
 public:
  void forward(const Case& each) {
    ++tally(each).forward;
    attempt(each, "forward", [&] { each.check_forward(); });
  }

  void gradients(const Case& each) {
    if (each.sample().gradients == Gradients::none || each.dtype() != td::float64 || each.numel() > 600) return;
    ++tally(each).first;
    attempt(each, "first gradient",
            [&] { td::gradcheck(each.differentiable_call(), each.differentiable_bases(), {.atol = 1e-5}); });
    if (each.sample().gradients != Gradients::second || each.numel() > 64) return;
    ++tally(each).second;
    attempt(each, "second gradient", [&] {
      td::gradgradcheck(each.differentiable_call(), each.differentiable_bases(), {.rtol = 1e-3, .atol = 1e-5});
    });
  }

  /// Many cases are one function, so that tracing is quick and the compiler called seldom.
  void modes(const std::vector<Case>& cases) {
    constexpr size_t kAtOnce = 64, kCompiled = 12;
    for (size_t begin = 0; begin < cases.size(); begin += kAtOnce)
      modes(td::Mode::replay, {cases.data() + begin, std::min(kAtOnce, cases.size() - begin)});
    std::vector<Case> some;  // spread over samples, dtypes and layouts
    for (size_t i = 0; i < std::min(cases.size(), kCompiled); ++i)
      some.push_back(cases[i * cases.size() / std::min(cases.size(), kCompiled)]);
    modes(td::Mode::compiled, some);
  }

  const std::map<std::string, Tally>& tallies() const { return tallies_; }

 private:
  Tally& tally(const Case& each) { return tallies_[each.sample().op]; }

  template <class F> void attempt(const Case& each, const std::string& what, F&& f) {
    try {
      f();
    } catch (const std::exception& error) { complain(each, what, error.what()); }
  }

  void complain(const Case& each, const std::string& what, const std::string& why) {
    constexpr int kShown = 4;  // of one op: the rest will have the same cause
    if (++tally(each).failed <= kShown) FAIL_CHECK(each.name() << ", " << what << ": " << why);
  }

  void modes(td::Mode mode, std::span<const Case> cases) {
    const std::string what = mode == td::Mode::replay ? "replay" : "compiled";
    std::vector<td::Tensors> expected;
    td::Tensors bases;
    for (const Case& each : cases) {
      expected.push_back(each.call(each.bases()));
      for (const td::Tensor& base : each.bases()) bases.push_back(base);
    }
    attempt(cases[0], what, [&] {
      td::graph::CompiledFunction compiled({.mode = mode}, td::Where::current());
      const auto run = [&] {
        return compiled.call(bases, "", [&](const td::Tensors& in) {
          td::Tensors out;
          size_t next = 0;
          for (const Case& each : cases) {
            const auto begin = in.begin() + static_cast<std::ptrdiff_t>(next);
            next += each.bases().size();
            for (const td::Tensor& result :
                 each.call({begin, begin + static_cast<std::ptrdiff_t>(each.bases().size())}))
              out.push_back(result);
          }
          return out;
        });
      };
      run();
      const td::Tensors results = run();  // the first call may still be on another tier
      size_t next = 0;
      for (size_t i = 0; i < cases.size(); ++i) {
        ++(mode == td::Mode::replay ? tally(cases[i]).replay : tally(cases[i]).compiled);
        for (const td::Tensor& eager : expected[i])
          attempt(cases[i], what, [&] { cases[i].check_same(results.at(next++), eager, mode == td::Mode::replay); });
      }
    });
  }

  std::map<std::string, Tally> tallies_;
};

std::string report(const std::map<std::string, Tally>& tallies) {
  std::ostringstream out;
  int64_t total = 0;
  for (const auto& [op, tally] : tallies) {
    total += tally.total();
    out << "  " << std::left << std::setw(20) << op << std::right << std::setw(6) << tally.total() << "  (forward "
        << tally.forward << ", first gradient " << tally.first << ", second " << tally.second << ", replay "
        << tally.replay << ", compiled " << tally.compiled << ")\n";
  }
  std::string number = std::to_string(total);
  for (int at = static_cast<int>(number.size()) - 3; at > 0; at -= 3) number.insert(static_cast<size_t>(at), ",");
  out << "generated: " << tallies.size() << " ops, " << number << " cases\n";
  return out.str();
}

}  // namespace

/// Whether the registers that long doubles live in are all free, as a function must leave them.
static bool x87_is_free() {
#ifdef __x86_64__
  unsigned environment[7];
  asm volatile("fnstenv %0\n\tfldenv %0" : "+m"(environment));
  return (environment[2] & 0xffff) == 0xffff;
#else
  return true;
#endif
}

TEST_CASE("every op of the table: forward, gradients and modes, on its samples in every layout") {
  const td::Device device = test_device();
  const int64_t every = number_from("TANDEM_TEST_EVERY", 1);
  const char* const only = std::getenv("TANDEM_TEST_OP");
  const Samples samples = all_samples();
  Suite suite;
  int64_t counter = 0;
  for (const td::Op* op : td::op_table().all()) {
    if ((only && std::string(only) != op->name) || op->user) continue;
    if (op->kind == td::OpKind::control) continue;  // tests/control_flow_test.cpp
    if (!device.is_cpu() && !td::kernel_for(*op, device) && op->kind != td::OpKind::view)
      continue;  // no CUDA kernel yet
    bool any = false;
    std::vector<Case> for_modes;
    for (const Sample& sample : samples) {
      if (sample.op != op->name) continue;
      any = true;
      if (sample.large && !device.is_cpu()) continue;
      for (const td::DType dtype : sample.dtypes) {
        for (const LayoutChoice& layouts : layout_choices(sample)) {
          if (counter++ % every != 0) continue;
          const Case each(sample, dtype, layouts, device);
          suite.forward(each);
          if (device.is_cpu() || each.numel() <= 20) suite.gradients(each);
          for_modes.push_back(each);
        }
      }
    }
    if (!for_modes.empty()) suite.modes(for_modes);
    CHECK_MESSAGE(x87_is_free(), op->name << ": a kernel leaves x87 or MMX registers in use");
    CHECK_MESSAGE(any, "op " << op->name << " has no samples: add some to tests/samples/");
  }
  CHECK_MESSAGE(!suite.tallies().empty(), "no op was tested");
  std::cout << report(suite.tallies());
}

TEST_CASE("samples name ops that exist") {
  for (const Sample& sample : all_samples())
    CHECK_MESSAGE(td::op_table().find(sample.op), "no op is called " << sample.op);
}

// Sizes: what the traces of one function in several sizes of its arguments have in common: a graph, and how its numbers
// depend on the sizes. From the third on, the graph of another size is worked out rather than made.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "../ir/choices.h"
#include "../ir/graph.h"
#include "../ir/numbers.h"

namespace tandem::graph {

class Program;

class Sizes {
 public:
  /// The graph's passes.
  using Optimise = std::function<Graph(const Graph&)>;

  explicit Sizes(Graph traced);

  // Both say why the graph is another one in this size, and not only in its numbers; then all is as before. Empty if it isn't.
  /// One more trace. Numbers of the program's text that differ are made run-time scalars.
  std::string add(Graph& traced);
  /// What the passes made of the trace added last: its kernels will read at run time what depends on sizes. Traces before it
  /// go through the passes again if they have to.
  std::string lower(Graph& optimised, const Optimise& optimise);
  /// Whether the next program is to serve more than one size. Regions are programs for one (pass row_pipelines).
  bool several() const { return samples_.size() > 1; }
  /// How often that was done: a program serves only the graph that was lowered last.
  int64_t lowered() const { return lowered_; }
  /// The program of that graph, whose code serves all sizes.
  void built(std::shared_ptr<const Program> program) { program_ = std::move(program); }
  /// It is yet to be compiled.
  void not_built() { program_ = nullptr; }

  /// What passes chose by bytes for one of the sizes, and choose for all.
  Choices& choices() { return choices_; }

  /// The numbers that the graphs of these arguments have.
  struct Foreseen {
    std::vector<int64_t> sizes;
    std::vector<int64_t> values;  ///< of each rule
    std::vector<double> reals;    ///< of each rule for doubles
  };
  /// Nothing if they aren't known (fewer than three traces, a number that follows no rule), or if one would be 0 or 1 that
  /// wasn't.
  std::optional<Foreseen> foresee(const Tensors& arguments) const;
  /// Whether the trace is as foreseen. Its numbers that change with sizes become run-time scalars.
  bool agrees(Graph& traced, const Foreseen& foreseen) const;
  /// Whether a trace of these sizes has been seen to agree, and says all that a call needs.
  bool confirmed(const Foreseen& foreseen) const { return !results_vary_ && confirmed_.count(foreseen.sizes) != 0; }
  void confirm(const Foreseen& foreseen) {
    if (confirmed_.size() < kMostConfirmed) confirmed_.insert(foreseen.sizes);
  }
  /// The function returns other numbers in another size: only a trace says which.
  void note_results_vary() { results_vary_ = true; }
  bool results_vary() const { return results_vary_; }

  /// The trace as foreseen, with the tensors of `like`.
  Graph traced(const Foreseen& foreseen, const Graph& like) const;
  /// Its program: another plan for the same code. It reads the tensors and numbers of `traced`. Null if the code doesn't
  /// serve this size.
  std::unique_ptr<Program> program(const Foreseen& foreseen, const Graph& traced) const;
  /// A trace as traced() gives, and its program, in place of those in another size; both read the tensors that `like` reads.
  /// `places` are those of the trace's numbers: found when it is empty. False if the program doesn't serve this size: then both
  /// are of no use any more.
  bool resize(const Foreseen& foreseen, const Graph& like, Graph& traced, std::vector<NumberPlace>& places,
              Program& program) const;
  /// What a Specialisation's program was made by has been made anew since.
  int64_t fitted() const { return fitted_; }

  /// A number among the program's own follows no rule: it is read at each call, by tracing.
  bool reads_numbers() const { return reads_numbers_; }
  /// "argument 0, dim 0".
  std::vector<std::string> dims() const;

 private:
  static constexpr size_t kMostConfirmed = 1 << 16;

  using Samples = std::vector<int64_t>;  ///< a number in each of the traces
  struct Sample {
    Graph traced;
    std::optional<Graph> optimised = {};
  };
  struct Symbol {
    int argument, dim;
    Samples samples;
  };
  /// (numerator · product or sum of factors) / denominator + constant.
  struct Rule {
    std::vector<int> factors;  ///< indices in known quantities: symbols, then derived ones
    bool sum = false;
    int64_t numerator = 1, denominator = 1, constant = 0;
    int64_t least = 0;  ///< the number is no extent of 0 or 1 if it has been none
  };
  /// Numbers that depend on sizes: where, and by which rule. Doubles by their bits.
  struct Numbers {
    std::vector<int64_t> all;
    std::vector<std::pair<size_t, int>> rules, real_rules;
  };
  /// Of a double.
  struct RealRule {
    /// rule, 1 / rule, rule / other, rule · constant, rule / constant
    enum Form : uint8_t { whole, inverse, ratio, times, over } form;
    int rule, other;
    DType type;  ///< as which it is rounded
    double constant = 1;
  };
  struct Fit {
    std::vector<Symbol> symbols;
    std::vector<Samples> quantities;
    std::vector<Rule> derived;  ///< of the quantities behind the symbols
    std::vector<Rule> rules;
    std::vector<RealRule> real_rules;
    Numbers traced, optimised;
    std::vector<std::pair<size_t, int>> scalars;  ///< leaves of the trace, and their real rules
    bool complete = false;
  };

  void mark_scalars(Graph& traced) const;
  std::string difference_in_samples() const;
  void fit();
  static std::optional<Rule> rule_for(const Samples& samples, const Fit& fit, size_t bases);
  static std::optional<int64_t> value_of(const Rule& rule, const std::vector<int64_t>& quantities);
  std::optional<Foreseen> foresee(std::vector<int64_t> sizes) const;
  static std::vector<int64_t> evaluate(const Numbers& numbers, const Foreseen& foreseen);
  std::optional<std::vector<int64_t>> bytes_of_values(const Foreseen& foreseen, bool roomy) const;

  Choices choices_;
  std::vector<Sample> samples_;
  std::vector<bool> scalar_varies_;  ///< of each leaf
  Fit fit_;
  bool reads_numbers_ = false, results_vary_ = false;
  std::shared_ptr<const Program> program_;
  int64_t lowered_ = 0;
  std::set<std::vector<int64_t>> confirmed_;
  int64_t fitted_ = 0;
};

}  // namespace tandem::graph

// Shrinking a program that fails: whatever can go while it still fails goes.
#include <algorithm>
#include <set>
#include <utility>

#include "fuzz/program.h"

namespace tandem::fuzz {

namespace {

class Minimiser {
 public:
  Minimiser(Program program, const std::function<bool(const Program&)>& fails)
      : program_(std::move(program)), fails_(fails) {}

  Program smallest() {
    for (bool changed = true; changed;) {
      changed = false;
      changed = fewer_lines() || changed;
      changed = simpler_operands() || changed;
      changed = fewer_inputs() || changed;
      changed = smaller_shapes() || changed;
      changed = plainer_inputs() || changed;
    }
    return program_;
  }

 private:
  bool accept(const Program& candidate) {
    if (!fails_(candidate)) return false;
    program_ = candidate;
    return true;
  }

  /// Without these lines, and all that need what they make.
  static Program without(Program program, size_t begin, size_t end) {
    std::set<int> gone;
    std::vector<Statement> body;
    for (size_t i = 0; i < program.body.size(); ++i) {
      const Statement& statement = program.body[i];
      const bool needs =
          std::any_of(statement.operands.begin(), statement.operands.end(), [&](int x) { return gone.count(x) > 0; });
      if ((i >= begin && i < end) || needs) gone.insert(statement.results.begin(), statement.results.end());
      else body.push_back(statement);
    }
    program.body = std::move(body);
    std::erase_if(program.results, [&](int x) { return gone.count(x) > 0; });
    return program;
  }
  /// `one` read in the place of `other`.
  static Program renamed(Program program, int other, int one) {
    for (Statement& statement : program.body)
      std::replace(statement.operands.begin(), statement.operands.end(), other, one);
    std::replace(program.results.begin(), program.results.end(), other, one);
    return program;
  }

  bool fewer_lines() {
    bool changed = false;
    for (const int calls : {1, 2})
      if (calls < program_.calls) {
        Program candidate = program_;
        candidate.calls = calls;
        changed = accept(candidate) || changed;
      }
    for (size_t i = program_.extents.size(); i-- > 0;) {
      Program candidate = program_;
      candidate.extents.erase(candidate.extents.begin() + static_cast<std::ptrdiff_t>(i));
      candidate.calls = std::max(1, static_cast<int>(candidate.extents.size()));
      changed = accept(candidate) || changed;
    }
    for (size_t size = program_.body.size() / 2; size > 0; size /= 2)
      for (size_t end = program_.body.size(); end > 0;
           end = std::min(end - std::min(end, size), program_.body.size())) {
        const size_t begin = end - std::min(end, size);
        changed = accept(without(program_, begin, end)) || changed;
      }
    // A line that others need: they read its operand.
    for (size_t i = program_.body.size(); i-- > 0;) {
      if (i >= program_.body.size() || program_.body[i].results.empty()) continue;
      const Statement statement = program_.body[i];
      for (const int operand : statement.operands) {
        Program candidate = program_;
        candidate.body.erase(candidate.body.begin() + static_cast<std::ptrdiff_t>(i));
        for (const int result : statement.results) candidate = renamed(candidate, result, operand);
        if (accept(candidate)) {
          changed = true;
          break;
        }
      }
    }
    for (size_t i = program_.results.size(); i-- > 0;) {
      Program candidate = program_;
      candidate.results.erase(candidate.results.begin() + static_cast<std::ptrdiff_t>(i));
      changed = accept(candidate) || changed;
    }
    return changed;
  }

  /// Operands that are inputs, the first ones where any does.
  bool simpler_operands() {
    bool changed = false;
    for (size_t i = 0; i < program_.body.size(); ++i)
      for (size_t k = 0; k < program_.body[i].operands.size(); ++k)
        for (int input = 0; input < static_cast<int>(program_.inputs.size()); ++input) {
          if (input >= program_.body[i].operands[k]) break;
          Program candidate = program_;
          candidate.body[i].operands[k] = input;
          if (accept(candidate)) {
            changed = true;
            break;
          }
        }
    return changed;
  }

  bool is_used(int number) const {
    const auto uses = [&](const std::vector<Statement>& statements) {
      return std::any_of(statements.begin(), statements.end(), [&](const Statement& statement) {
        return std::count(statement.operands.begin(), statement.operands.end(), number) > 0;
      });
    };
    return uses(program_.outside) || uses(program_.body) ||
           std::count(program_.results.begin(), program_.results.end(), number) > 0;
  }

  bool fewer_inputs() {
    bool changed = false;
    for (size_t i = program_.outside.size(); i-- > 0;) {
      const Statement view = program_.outside[i];
      Program candidate = program_;
      candidate.outside.erase(candidate.outside.begin() + static_cast<std::ptrdiff_t>(i));
      if (is_used(view.results[0])) candidate = renamed(candidate, view.results[0], view.operands[0]);
      changed = accept(candidate) || changed;
    }
    for (size_t i = program_.inputs.size(); i-- > 0;) {
      if (is_used(static_cast<int>(i))) continue;
      Program candidate = program_;
      candidate.inputs.erase(candidate.inputs.begin() + static_cast<std::ptrdiff_t>(i));
      const auto shift = [&](std::vector<int>& numbers) {
        for (int& number : numbers) number -= number > static_cast<int>(i);
      };
      for (auto* statements : {&candidate.outside, &candidate.body})
        for (Statement& statement : *statements) shift(statement.operands), shift(statement.results);
      shift(candidate.results);
      changed = accept(candidate) || changed;
    }
    return changed;
  }

  /// One extent, wherever it stands, in attributes too; then in one input alone; then without dims.
  bool smaller_shapes() {
    bool changed = false;
    std::set<int64_t> extents;
    for (const Input& input : program_.inputs) extents.insert(input.shape.begin(), input.shape.end());
    for (const int64_t extent : extents)
      for (const int64_t smaller : {int64_t{1}, int64_t{2}, int64_t{3}}) {
        if (smaller >= extent) break;
        Program candidate = program_;
        for (Input& input : candidate.inputs) std::replace(input.shape.begin(), input.shape.end(), extent, smaller);
        for (auto* statements : {&candidate.outside, &candidate.body})
          for (Statement& statement : *statements) {
            Attributes attributes;
            for (Attribute attribute : statement.attributes) {
              if (auto* shape = std::get_if<Shape>(&attribute.value))
                std::replace(shape->begin(), shape->end(), extent, smaller);
              attributes.set(attribute);
            }
            statement.attributes = attributes;
          }
        if (accept(candidate)) {
          changed = true;
          break;
        }
      }
    for (size_t i = 0; i < program_.inputs.size(); ++i)
      for (int d = program_.inputs[i].shape.size(); d-- > 0;) {
        if (d >= program_.inputs[i].shape.size()) continue;
        Program candidate = program_;
        candidate.inputs[i].shape.erase(d);
        if (accept(candidate)) {
          changed = true;
          continue;
        }
        for (const int64_t smaller : {int64_t{1}, int64_t{2}}) {
          if (smaller >= program_.inputs[i].shape[d]) break;
          candidate = program_;
          candidate.inputs[i].shape[d] = smaller;
          if (accept(candidate)) {
            changed = true;
            break;
          }
        }
      }
    return changed;
  }

  bool plainer_inputs() {
    bool changed = false;
    for (size_t i = 0; i < program_.inputs.size(); ++i) {
      const Input input = program_.inputs[i];
      const auto attempt = [&](const Input& plainer) {
        Program candidate = program_;
        candidate.inputs[i] = plainer;
        return accept(candidate);
      };
      const auto with = [](Input plainer, auto&& change) {
        change(plainer);
        return plainer;
      };
      if (input.dtype != float32) changed = attempt(with(input, [](Input& x) { x.dtype = float32; })) || changed;
      const Input now = program_.inputs[i];
      if (now.role != Input::Role::argument)
        changed = attempt(with(now, [](Input& x) { x.role = Input::Role::argument; })) || changed;
      const Input last = program_.inputs[i];
      if (last.values != std::vector<double>{1})
        changed = attempt(with(last, [](Input& x) { x.values = {1}; })) ||
                  (last.values.size() > 1 && attempt(with(last, [](Input& x) { x.values.clear(); }))) || changed;
    }
    const auto accept_without = [&](auto&& flag_of) {
      Program candidate = program_;
      if (!std::exchange(flag_of(candidate), false)) return;
      changed = accept(candidate) || changed;
    };
    accept_without([](Program& program) -> bool& { return program.twice; });
    accept_without([](Program& program) -> bool& { return program.casts; });
    for (size_t i = 0; i < program_.inputs.size(); ++i)
      accept_without([i](Program& program) -> bool& { return program.inputs[i].trained; });
    for (size_t i = 0; i < program_.body.size(); ++i) {
      const Statement& statement = program_.body[i];
      if (statement.action == Action::op || statement.action == Action::draw || statement.action == Action::constant ||
          statement.name.empty())
        continue;
      Program candidate = program_;
      candidate.body[i].name.clear();
      changed = accept(candidate) || changed;
    }
    if (!program_.optimiser.empty()) {
      Program candidate = program_;
      candidate.optimiser.clear();
      changed = accept(candidate) || changed;
    }
    return changed;
  }

  Program program_;
  const std::function<bool(const Program&)>& fails_;
};

}  // namespace

Program minimised(Program program, const std::function<bool(const Program&)>& fails) {
  return Minimiser(std::move(program), fails).smallest();
}

}  // namespace tandem::fuzz

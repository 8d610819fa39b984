// Optimizer: what all optimisers share: groups of parameters, their learning rates, the errors.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "../../core/tensor.h"
#include "../reflect.h"

namespace tandem::nn::optim {

/// Parameters that share options: `AdamW({{matrices, {.weight_decay = 0.1}}, {others, {.lr = 1e-4}}})`.
template <class Options> struct ParameterGroup {
  Tensors parameters;
  Options options = {};
};

/// Base of the optimisers. All that a step reads and writes is tensors made at construction, so a compiled
/// step treats them as state: changing the learning rate, or counting steps, traces nothing anew.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Forgets all gradients.
  void zero_grad(Where where = Where::current());
  /// Updates every parameter that has a gradient. AutogradError if none has.
  void step(Where where = Where::current());

  size_t group_count() const { return groups_.size(); }
  /// The learning rate of a group: a 0-d float32 tensor on the parameters' device. ValueError if there is no such group, here
  /// and below.
  const Tensor& lr(size_t group = 0, Where where = Where::current()) const { return group_at(group, where).lr; }
  /// Sets the rate of all groups, or of one.
  void set_lr(double value, Where where = Where::current());
  void set_group_lr(size_t group, double value, Where where = Where::current());
  /// The learning rate that the options gave: what schedules scale.
  double initial_lr(size_t group = 0, Where where = Where::current()) const {
    return group_at(group, where).initial_lr;
  }

  /// Of all groups, in order.
  const Tensors& parameters() const { return parameters_; }
  /// All tensors of the optimiser's own (learning rates, moments, step count), for checkpoints: to restore
  /// one, assign the saved values to them. Numbers in the names are places in parameters(), or, for lr.1, …
  /// after the first, groups.
  virtual std::vector<NamedTensor> state() const;

 protected:
  /// `name` is the class's, for errors.
  Optimizer(const char* name, const std::vector<Tensors>& groups, const std::vector<double>& rates, Where where);
  /// Called once a step, without recording.
  virtual void update(Where where) = 0;
  /// Throws ValueError "nn::optim::Name: parts" unless `condition`.
  template <class... Parts> void check(bool condition, Where where, const Parts&... parts) const {
    if (!condition) fail(tandem::detail::str(parts...), where);
  }
  /// Calls f(i, parameter, gradient) for the parameters of a group that have a gradient.
  template <class F> void for_each_gradient(size_t group, F&& f) const {
    for (size_t i = groups_[group].begin; i < groups_[group].end; ++i)
      if (const Tensor gradient = parameters_[i].grad(); gradient.defined()) f(i, parameters_[i], gradient);
  }
  void check_group(size_t group, Where where) const {
    check(group < groups_.size(), where, "there is no group ", group, ": there are ", groups_.size());
  }
  /// The places of a group's parameters: [first, second).
  std::pair<size_t, size_t> range(size_t group) const { return {groups_[group].begin, groups_[group].end}; }
  /// A tensor of that value for each parameter of the group, undefined ones for the others. Adds to `to`.
  void make_state(Tensors& to, size_t group, double value, Where where) const;
  /// Appends "name.i" for each defined tensor.
  static void add_state(std::vector<NamedTensor>& to, const char* name, const Tensors& tensors);
  Device device() const { return parameters_[0].device(); }

 private:
  [[noreturn]] void fail(const std::string& message, Where where) const;
  void check_parameters(Where where) const;

  struct Group {
    size_t begin, end;  ///< places in parameters_
    double initial_lr;
    Tensor lr;
  };
  const Group& group_at(size_t group, Where where) const {
    check_group(group, where);
    return groups_[group];
  }
  const char* name_;
  Tensors parameters_;
  std::vector<Group> groups_;
};

/// An optimiser whose groups have options of that type, one of which is `lr`.
template <class Options> class GroupedOptimizer : public Optimizer {
 public:
  using Group = ParameterGroup<Options>;
  using Groups = std::vector<Group>;
  const Options& options(size_t group = 0, Where where = Where::current()) const {
    this->check_group(group, where);
    return options_[group];
  }

 protected:
  GroupedOptimizer(const char* name, const Groups& groups, Where where)
      : Optimizer(name, parameters_of(groups), rates_of(groups), where) {
    for (const Group& group : groups) options_.push_back(group.options);
  }

 private:
  static std::vector<Tensors> parameters_of(const Groups& groups) {
    std::vector<Tensors> result;
    for (const Group& group : groups) result.push_back(group.parameters);
    return result;
  }
  static std::vector<double> rates_of(const Groups& groups) {
    std::vector<double> result;
    for (const Group& group : groups) result.push_back(group.options.lr);
    return result;
  }
  std::vector<Options> options_;
};

namespace detail {
/// 16-bit floats are updated in float32 and rounded when they are assigned.
Tensor widened(const Tensor& x);
}  // namespace detail

}  // namespace tandem::nn::optim

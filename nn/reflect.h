// The tensors of a model, found by walking its fields: parameters, buffers, names, moves, modes.
//
//   struct Mlp {
//     nn::Linear hidden{784, 256};
//     nn::Linear output{256, 10};
//   };
//   Mlp model;
//   nn::named_parameters(model);  // hidden.weight, hidden.bias, output.weight, output.bias
//
// A model is any aggregate, or a class whose fields are public and which says how many they are: `static constexpr int fields
// = 2;` is all that a constructor costs. (C++20 binds the fields of such a class, but can't count them; a wrong number is an
// error.) Walked into: nested structs, vectors, arrays, deques, lists, maps, optionals,
// tuples, pairs, variants, unique_ptr and shared_ptr. Numbers, enums, strings and the like are passed over. A
// class with private parts says what it holds:
//
//   template <class V> void visit(V&& v) { v("weight", weight_); v("bias", bias_); }
//
// What can't be walked is a compile-time error, so that no parameter is lost silently; a type that holds no
// tensors is declared so by `template <> inline constexpr bool tandem::nn::holds_no_tensors<T> = true;`.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "../core/ops/conv.h"
#include "../core/tensor.h"
#include "fields.h"
#include "training_flag.h"

namespace tandem::nn {

class Visitor;

/// Specialise as true for a type that the walk should pass over.
template <class T> inline constexpr bool holds_no_tensors = false;
template <> inline constexpr bool holds_no_tensors<std::string> = true;
template <> inline constexpr bool holds_no_tensors<std::string_view> = true;
template <> inline constexpr bool holds_no_tensors<Shape> = true;
template <> inline constexpr bool holds_no_tensors<Dims> = true;
template <> inline constexpr bool holds_no_tensors<Pair> = true;
template <> inline constexpr bool holds_no_tensors<Padding1d> = true;
template <> inline constexpr bool holds_no_tensors<Padding2d> = true;
template <> inline constexpr bool holds_no_tensors<Device> = true;
template <> inline constexpr bool holds_no_tensors<TensorOptions> = true;

namespace detail {

template <class T>
inline constexpr bool is_passed_over = holds_no_tensors<T> || std::is_arithmetic_v<T> || std::is_enum_v<T> ||
                                       std::is_null_pointer_v<T> || std::is_member_pointer_v<T> ||
                                       (std::is_class_v<T> && std::is_empty_v<T>) ||
                                       (std::is_pointer_v<T> && !std::is_class_v<std::remove_pointer_t<T>>);

template <class T>
concept HasVisit = requires(T& value, Visitor& visitor) {
  value.visit(visitor);
};
template <class T>
concept OwnsOne = !std::is_pointer_v<T> && requires(T & value) {
  static_cast<bool>(value);
  *value;
};
template <class T>
concept Range = requires(T& value) {
  value.begin() != value.end();
  requires !std::is_same_v<typename T::value_type, T>;  // std::filesystem::path is a range of paths
};
template <class T>
concept Map = Range<T> && requires {
  typename T::mapped_type;
};
template <class T>
concept Unordered = requires {
  typename T::hasher;
};
template <class T>
concept TupleLike = requires {
  std::tuple_size<T>::value;
};
template <class T> inline constexpr bool is_variant = false;
template <class... T> inline constexpr bool is_variant<std::variant<T...>> = true;
template <class T> inline constexpr bool is_shared_ptr = false;
template <class T> inline constexpr bool is_shared_ptr<std::shared_ptr<T>> = true;
template <class T> inline constexpr bool is_never = false;

/// A class as it was declared: "Linear".
std::string_view class_name(std::string_view printed);
template <class T> std::string_view class_name() { return class_name(__PRETTY_FUNCTION__); }

}  // namespace detail

/// Walks a model, and notes its tensors and flags in the order of declaration. `visit` members get one.
class Visitor {
 public:
  struct Leaf {
    std::string name;  ///< "hidden.weight"; empty without names
    Tensor* tensor;
  };
  /// A model or layer: a class with fields, or a `visit`.
  struct Layer {
    std::string name;  ///< "hidden"; empty for the whole model
    std::string_view type;
  };
  enum class Names { kept, dropped };

  explicit Visitor(Names names) : keeps_names_(names == Names::kept) {}
  /// Of a copy of a model: copies what its shared pointers point at, too.
  static Visitor of_copy() {
    Visitor visitor(Names::kept);
    visitor.owned_.emplace();
    return visitor;
  }

  /// A member called `name` of what is being visited.
  template <class T> void operator()(std::string_view name, T& member) {
    if constexpr (!detail::is_passed_over<std::remove_const_t<T>>) {
      const size_t length = enter(name);
      walk(member);
      leave(length);
    }
  }
  /// What belongs to the place that is being visited, without a name of its own.
  template <class T> void walk(T& value);
  /// Calls walk_there() for element `index` of what is being visited.
  template <class F> void place(size_t index, F&& walk_there) {
    const size_t length = enter(index);
    walk_there();
    leave(length);
  }

  /// A walk over a copy gives the pointer a copy of what it points at, as `copy` makes it, and the same one to all that pointed
  /// there.
  template <class P, class F> void own(std::shared_ptr<P>& pointer, F&& copy) {
    if (!owned_ || !pointer) return;
    std::shared_ptr<void>& owned = (*owned_)[pointer.get()];
    if (!owned) owned = copy();
    if (!owned) not_copied(path_);
    pointer = std::static_pointer_cast<P>(owned);
  }

  const std::vector<Leaf>& tensors() const { return tensors_; }
  const std::vector<TrainingFlag*>& flags() const { return flags_; }
  /// All that were walked into, outer ones first. None without names.
  const std::vector<Layer>& layers() const { return layers_; }

 private:
  size_t enter(std::string_view name);
  size_t enter(size_t index);
  void leave(size_t length) { path_.resize(length); }
  [[noreturn]] static void not_copied(const std::string& path);
  void found(Tensor& tensor);
  void found(TrainingFlag& flag) { flags_.push_back(&flag); }

  bool keeps_names_;
  std::string path_;
  std::optional<std::unordered_map<const void*, std::shared_ptr<void>>> owned_;  ///< the copies, of a walk over a copy
  std::vector<Leaf> tensors_;
  std::vector<TrainingFlag*> flags_;
  std::vector<Layer> layers_;
};

template <class Qualified> void Visitor::walk(Qualified& qualified) {
  using T = std::remove_const_t<Qualified>;
  T& value = const_cast<T&>(qualified);  // only functions that take a mutable model change anything
  if constexpr (std::is_same_v<T, Tensor> || std::is_same_v<T, TrainingFlag>) {
    found(value);
  } else if constexpr (detail::is_passed_over<T>) {
  } else if constexpr (detail::HasVisit<T>) {
    if (keeps_names_) layers_.push_back({path_, detail::class_name<T>()});
    value.visit(*this);
  } else if constexpr (detail::is_variant<T>) {
    std::visit([this](auto& held) { this->walk(held); }, value);
  } else if constexpr (detail::OwnsOne<T>) {
    if constexpr (detail::is_shared_ptr<T>) {
      using Held = typename T::element_type;
      own(value, [&]() -> std::shared_ptr<void> {
        // What derives from Held would be cut short.
        if constexpr (std::is_copy_constructible_v<Held> && (!std::is_polymorphic_v<Held> || std::is_final_v<Held>))
          return std::make_shared<std::remove_const_t<Held>>(*value);
        else return nullptr;
      });
    }
    if (value) walk(*value);
  } else if constexpr (detail::Map<T>) {
    static_assert(!detail::Unordered<T>,
                  "tandem::nn: the order of parameters in an unordered map is not defined: use std::map");
    for (auto& [key, mapped] : value) {
      if constexpr (std::is_convertible_v<decltype(key), std::string_view>) (*this)(key, mapped);
      else (*this)(std::to_string(key), mapped);
    }
  } else if constexpr (detail::Range<T>) {
    if constexpr (!detail::is_passed_over<typename T::value_type>) {
      size_t index = 0;
      for (auto& held : value) place(index++, [&] { this->walk(held); });
    }
  } else if constexpr (detail::TupleLike<T>) {
    [&]<size_t... I>(std::index_sequence<I...>) {
      using std::get;
      (place(I, [&] { this->walk(get<I>(value)); }), ...);
    }
    (std::make_index_sequence<std::tuple_size<T>::value>());
  } else if constexpr (detail::has_fields<T>) {
    if (keeps_names_) layers_.push_back({path_, detail::class_name<T>()});
    detail::with_fields(value, [this](auto&... fields) {
      [[maybe_unused]] const std::string_view* name = detail::field_names<T>();
      ((*this)(*name++, fields), ...);
    });
  } else {
    static_assert(
        detail::is_never<T>,
        "tandem::nn: a field of this type can't be walked for parameters (it has private parts or a "
        "constructor, or is a raw pointer). If all its fields are public, say how many:  static constexpr int "
        "fields = N;  else give its class  template <class V> void visit(V&& v) { v(\"name\", name); ... }  or, if it "
        "holds no tensors,  template <> inline constexpr bool "
        "tandem::nn::holds_no_tensors<T> = true;");
  }
}

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

namespace detail {

/// A Tensor field of a model belongs to one of these.
enum class Role { parameter, buffer, any };
std::vector<NamedTensor> named(const Visitor& visitor, Role role);
Tensors unnamed(const Visitor& visitor, Role role);
void set_training(const Visitor& visitor, bool value);
void move_to(const Visitor& visitor, Device device, Where where);
void cast_to(const Visitor& visitor, DType dtype, Where where);
void make_own(const Visitor& copy, Where where);
void copy_values(const Visitor& target, const Visitor& source, Where where);

template <class Model> Visitor visited(Model& model, Visitor::Names names) {
  Visitor visitor(names);
  visitor.walk(model);
  return visitor;
}

template <class Model>
concept Mutable = !std::is_const_v<Model>;

}  // namespace detail

/// Calls f(name, tensor) for every defined Tensor field of `model`, in order: `f(const std::string&,
/// Tensor&)`.
template <class Model, class F> void for_each(Model& model, F&& f) {
  const Visitor visitor = detail::visited(model, Visitor::Names::kept);
  for (const Visitor::Leaf& leaf : visitor.tensors()) {
    if constexpr (std::is_const_v<Model>) f(leaf.name, std::as_const(*leaf.tensor));
    else f(leaf.name, *leaf.tensor);
  }
}

/// The tensors that require gradients. One that stands in two fields (tied weights) is returned once.
template <class Model> Tensors parameters(const Model& model) {
  return detail::unnamed(detail::visited(model, Visitor::Names::dropped), detail::Role::parameter);
}
/// The same with their names; a tied one has that of its first field.
template <class Model> std::vector<NamedTensor> named_parameters(const Model& model) {
  return detail::named(detail::visited(model, Visitor::Names::kept), detail::Role::parameter);
}
/// The tensors that don't require gradients: running statistics, tables, frozen weights.
template <class Model> std::vector<NamedTensor> named_buffers(const Model& model) {
  return detail::named(detail::visited(model, Visitor::Names::kept), detail::Role::buffer);
}

/// Sets every TrainingFlag of the model: dropout draws.
template <class Model> void train(Model& model) {
  detail::set_training(detail::visited(model, Visitor::Names::dropped), true);
}
/// Clears every TrainingFlag of the model: dropout passes its input on.
template <class Model> void eval(Model& model) {
  detail::set_training(detail::visited(model, Visitor::Names::dropped), false);
}

/// Puts copies on `device` in the place of all tensors (gradients too) and returns the model. The old handles
/// are no longer the model's: make optimisers and compiled functions afterwards.
template <detail::Mutable Model> Model& to(Model& model, Device device, Where where = Where::current()) {
  detail::move_to(detail::visited(model, Visitor::Names::dropped), device, where);
  return model;
}
/// The same for a floating dtype; integer and bool tensors stay as they are.
template <detail::Mutable Model> Model& to(Model& model, DType dtype, Where where = Where::current()) {
  detail::cast_to(detail::visited(model, Visitor::Names::dropped), dtype, where);
  return model;
}

/// A copy of the model that shares nothing with it: weights and buffers of its own, which require gradients where the model's do
/// and have none yet, training flags of its own. Fields that shared a tensor, and pointers that shared a layer, do so in the copy.
/// (`Model copy = model;` copies handles: the same weights.) ValueError where a layer behind a shared_ptr can't be copied;
/// TraceError in a trace, which the copy would outlive.
template <class Model> Model clone(const Model& model, Where where = Where::current()) {
  static_assert(std::is_copy_constructible_v<Model>,
                "tandem::nn::clone: this model can't be copied (a unique_ptr among its fields?): make another one, and "
                "write  copy_into(other, model)");
  const WhereScope scope(where);
  Model copy = model;
  Visitor visitor = Visitor::of_copy();
  visitor.walk(copy);
  detail::make_own(visitor, where);
  return copy;
}

/// Writes the values of source's weights and buffers over target's, field by field: a target network takes the online one's.
/// dtypes and devices stay target's. ValueError where the fields' names differ, or a tensor is one and the same in both;
/// ShapeError where shapes differ: then nothing has been written.
template <detail::Mutable Target, class Source>
void copy_into(Target& target, const Source& source, Where where = Where::current()) {
  detail::copy_values(detail::visited(target, Visitor::Names::kept), detail::visited(source, Visitor::Names::kept),
                      where);
}

}  // namespace tandem::nn

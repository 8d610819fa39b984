// nn::save and nn::load: a model's parameters and buffers in a safetensors file.
//
//   nn::save(model, "mlp.safetensors");
//   nn::load(model, "mlp.safetensors");
//
// They stand here, as a model knows nothing of files.
#pragma once

#include <string>

#include "../nn/reflect.h"

namespace tandem::nn {

namespace detail {
void save(const Visitor& visitor, const std::string& path, Where where);
void load(const Visitor& visitor, const std::string& path, Where where);
}  // namespace detail

/// Writes every Tensor field of the model, parameters and buffers, under its name ("hidden.weight"); a tensor that stands
/// in two fields (tied weights) once, under the first name. Atomic: a crash leaves the previous file whole. Python's
/// safetensors opens it. FileError if it can't be written.
template <class Model> void save(const Model& model, const std::string& path, Where where = Where::current()) {
  detail::save(detail::visited(model, Visitor::Names::kept), path, where);
}

/// Overwrites the model's tensors, on whatever device they are, with those of the file; handles, optimisers and compiled
/// functions go on with the new values. Names, shapes and dtypes must be the model's: FileError names everything that is
/// missing, unknown or of another kind. Whatever goes wrong, the model is as it was. Tied weights may stand in the file under
/// any of their names, or under several with the same values.
template <detail::Mutable Model> void load(Model& model, const std::string& path, Where where = Where::current()) {
  detail::load(detail::visited(model, Visitor::Names::kept), path, where);
}

}  // namespace tandem::nn

// A graph that holds a function and the gradient of its results, and what passes between the two once it is cut.
#pragma once

#include "graph.h"

namespace tandem::graph {

/// What is what in a graph that holds a function and, behind it, the gradient of its results. The leaves of cotangents are the
/// last ones.
struct JointParts {
  int results = 0;    ///< the first outputs are the function's results, the others are gradients
  int nodes = 0;      ///< the first nodes are the function's
  int arguments = 0;  ///< arguments from this position on are cotangents: gradients of results, given to backward()
  int64_t draws = 0;  ///< that the function makes
};

/// Where an argument of the backward graph comes from.
struct Saved {
  enum class From : uint8_t {
    argument,  ///< argument `index` of the function
    leaf,      ///< the tensor of leaf `index`
    result,    ///< result `index` of the function
    output,    ///< output `index` of the forward graph, which is behind the results
  };
  From from;
  int index;
  ValueType type;
};

}  // namespace tandem::graph

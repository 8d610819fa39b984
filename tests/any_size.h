// Row pipelines of any size: tests have small tensors.
#pragma once

#include "graph/passes/rows.h"

/// As long as it lives, chains become row pipelines whatever their size and cost.
struct AnySize {
  int64_t before = tandem::graph::set_least_pipeline_bytes(0);
  ~AnySize() { tandem::graph::set_least_pipeline_bytes(before); }
};

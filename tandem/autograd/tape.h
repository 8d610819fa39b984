// A node of the tape: one recorded op with what its gradient rule needs.
#pragma once

#include <vector>

#include "tandem/core/op.h"

namespace tandem {

/// Where the gradient of an operand goes: to the node that made it, or to the leaf itself.
struct Edge {
  TapeNodeBase* node = nullptr;  ///< owned reference
  Tensor leaf;
  uint32_t output_index = 0;
  bool wanted = false;
};

struct TensorMeta {
  Shape shape;
  DType dtype = DType::float32;
  Device device;
};

/// A saved operand or result, with the version of its storage when it was saved.
struct SavedTensor {
  Tensor tensor;         ///< for a result of the node itself: without its tape, to avoid a cycle
  uint32_t version = 0;
};

struct OperandRecord {
  Edge edge;
  TensorMeta meta;
  SavedTensor saved;
};
struct ResultRecord {
  TensorMeta meta;
  SavedTensor saved;
};

struct TapeNode final : TapeNodeBase {
  const Op* op = nullptr;
  uint64_t sequence = 0;  ///< nodes are numbered as they are made; edges go to smaller numbers
  Where where;
  Attributes attributes;
  bool released = false;  ///< backward has freed what was saved
  void* pending = nullptr;  ///< the gradients that a running backward has brought here
  uint32_t operand_count = 0, result_count = 0;
  OperandRecord inline_operands[2];
  ResultRecord inline_result;
  std::vector<OperandRecord> more_operands;  ///< all of them where there are over two
  std::vector<ResultRecord> more_results;    ///< all of them where there are over one

  OperandRecord* operands() { return operand_count > 2 ? more_operands.data() : inline_operands; }
  ResultRecord* results() { return result_count > 1 ? more_results.data() : &inline_result; }
  void release_saved();
  void destroy() override;
};

/// Installs the recorder; called by the library before the first op is recorded.
void install_tape();

}  // namespace tandem

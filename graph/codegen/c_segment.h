// One segment of a loop kernel as C: how its domain is walked. Part of c_source.cpp.
//
// The innermost dim is walked in a plain loop, which the compiler vectorises, or strip by strip where that falls short:
//
//   stages   a long dependent chain runs at its latency, so a strip is walked once for every costly statement of it
//   filled   float16 and random numbers come into a strip by functions of core/scalar/strips.h; float16 goes out so
//   tiles    what lies along another dim than the innermost is transposed, 64 bytes of that dim at a time
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/codegen/c_source.h"

namespace tandem::graph {

class CSegment final : public SegmentEmitter {
 public:
  CSegment(const LoopKernel& kernel, const Segment& segment, std::set<std::string>& helpers);

  SegmentCall call;  ///< of what was emitted

  /// The function, from its parameters on.
  std::string emit();
  /// Straight-line code over the partial results, which are combined first; then a loop of one turn with the stores.
  std::string emit_finish();

 private:
  /// The function that begins so, with the buffers and numbers that it turned out to use; `first` stands before its loops.
  std::string function(std::string text, const std::string& first = "");

  // Numbers out of range, and folds.
  void check(int i, std::string_view indent) override;
  void declare_fold(int i, std::string_view indent) override;
  void accumulate(int i, std::string_view indent) override;
  std::string folded(int i);
  std::string pragma(const std::vector<int>& folds) const;
  void write_partials();
  void choose_summed();
  bool in_one_go(int fold) const;
  void add_strip(int fold, const std::string& count, const std::string& values, const std::string& indent);
  void end_sums(const std::vector<int>& folds, const std::string& indent);
  std::vector<int> not_summed(const std::vector<int>& folds) const;

  // Walks over the domain.
  void flat();
  void rows();
  void row(const std::string& indent);
  void outer_loop(int dims);
  void tiled_loop();
  void hold_in_results();
  /// Memory of so many bytes for each column of a row, of the thread's own.
  std::string scratch(int64_t bytes_per_column);

  // Over the innermost dim.
  /// Where its loop runs: the variable i<dim>, from `from` to `to`.
  struct Inner {
    int dim;
    std::string from, to;
  };
  void begin_lanes(const std::vector<int>& folds);
  void walk_lanes(const Phase& all);
  void end_lanes(const std::vector<int>& folds);
  bool needs_strips(const Phase& now) const;
  void walk(const Phase& now, const Inner& inner, const std::string& indent);
  void strip(const Phase& now, int dim, const std::string& indent);
  void fill(int i, const std::string& indent);
  std::map<int, int> stages(const Phase& now) const;
  bool is_short(int dim) const;
  bool lies_along(const Position& position, int dim) const;
  bool is_filled(int i) const;
  bool is_drained(const Store& store) const;

  // Tiles.
  void choose_tile(int inner);
  bool is_crossed(const Position& position, int tiled) const;
  int crossed_buffer(const Position* position) const;
  std::string element(int index, const Position& position) override;
  void transpose(bool in, const std::string& begin, const std::string& count, const std::string& indent);

  std::set<int> summed_;                          ///< folds of float32 that functions of strips.h add up
  std::map<int, const Store*> held_in_;           ///< of hold_, what is held where that is stored at last
  int inner_ = 0;                                 ///< the innermost dim
  std::map<const Position*, std::string> tiles_;  ///< of what is transposed, their names
  std::vector<std::pair<const Position*, int>> crossed_loads_, crossed_stores_;  ///< with their buffers
  std::string tile_step_, tile_at_;  ///< elements between a tile's rows; the element within a row
};

}  // namespace tandem::graph

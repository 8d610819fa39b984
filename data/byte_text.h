// ByteText: text as bytes, in windows to predict the next byte from.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../formats/files.h"
#include "dataset.h"

namespace tandem::io {

enum class Windows {
  random,     ///< each begins anywhere; drawn anew in each epoch
  sequential  ///< one after the other, as evaluation wants them
};
enum class Reading {
  whole,  ///< into memory, now
  mapped  ///< page by page as it is looked at: for more text than fits; the file must not be shortened meanwhile
};

struct ByteTextOptions {
  int64_t context = 128;  ///< bytes that the model sees
  Windows windows = Windows::random;
  Split split = Split::train;
  double held_out = 0.1;  ///< the part of the text, at its end, that is Split::test, and not Split::train
  int64_t samples = 0;    ///< windows in an epoch if they are random; 0: as many as are side by side in the text
  Reading reading = Reading::whole;
  Limits limits = {};  ///< of all files together, read whole
};

/// A data set of windows of `context` + 1 bytes, as inputs [context] (all but the last) and targets [context] (all but
/// the first), both int64, 0 to 255.
///
///   io::ByteText text("input.txt", {.context = 64});
///   for (auto& [inputs, targets] : io::Loader(text, {.batch_size = 16, .seed = 1})) …  // [16, 64] each
///
/// Several files follow one another as one text; a folder is its .txt files, by name (or those of tinyshakespeare/ in
/// it). A sequential window's targets end where the next one's inputs begin, so each byte but the first is predicted
/// once; what is left at the end, too short for a window, is not. FileError for what is missing or empty; ValueError
/// for a text that is shorter than one window. Safe to read from several threads.
class ByteText {
 public:
  explicit ByteText(const std::string& path, ByteTextOptions options = {}, Where where = Where::current());
  explicit ByteText(const std::vector<std::string>& paths, ByteTextOptions options = {},
                    Where where = Where::current());
  /// Text that is at hand: io::ByteText::of(io::synthetic_text(), {.context = 64}).
  static ByteText of(std::string text, ByteTextOptions options = {}, Where where = Where::current());

  int64_t size() const { return count_; }
  int64_t context() const { return options_.context; }
  /// The bytes of this split.
  std::span<const uint8_t> bytes() const { return bytes_; }
  /// Inputs and targets [context]. A random window without a generator is that of EpochRandom{}.
  std::pair<Tensor, Tensor> get(int64_t index, Where where = Where::current()) const;
  /// Inputs and targets [batch, context].
  std::pair<Tensor, Tensor> batch(std::span<const int64_t> indices, EpochRandom random = {},
                                  Where where = Where::current()) const;

 private:
  ByteText(Bytes text, std::string name, ByteTextOptions options, Where where);

  Bytes text_;
  std::span<const uint8_t> bytes_;
  ByteTextOptions options_;
  int64_t count_ = 0;
};

}  // namespace tandem::io

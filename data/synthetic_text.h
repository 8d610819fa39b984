// synthetic_text: English-like sentences, for where no text is at hand.
#pragma once

#include <cstdint>
#include <string>

#include "../core/error.h"

namespace tandem::io {

struct SyntheticTextOptions {
  int64_t bytes = 400'000;  ///< at least; it ends with the sentence that reaches them
  uint64_t seed = 1;
};

/// Paragraphs of a small grammar: subjects and verbs that agree in number, relative clauses between them, dialogue
/// with quotation marks, sums that are right. So a model can learn letters first, then words, then what spans them.
/// The same options give the same text.
std::string synthetic_text(SyntheticTextOptions options = {}, Where where = Where::current());

}  // namespace tandem::io

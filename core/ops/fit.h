// What shapes the operands of an op must have beside each other, for ops that no public function checks: gradients, which graph
// text and calls by name may give anything.
#pragma once

#include "../op.h"

namespace tandem {

/// Checks operands against a pattern such as "t b h, t b h, 4h h, ..:wide": an operand's dims, by letters that each stand for one
/// extent in all operands, behind a number for a multiple of it; a number alone is that extent, and ".." any dims, the same
/// ones in all operands. An operand has the first one's dtype; with :wide the one in which its sums are computed (float64 for
/// float64, else float32), with :either one of the two, with :int64 that. Operands beyond the pattern are the caller's.
/// ShapeError, DTypeError or, if there are fewer operands, ValueError.
void check_fit(const Infer& op, std::string_view pattern);

}  // namespace tandem

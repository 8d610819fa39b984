// Losses.
#pragma once

#include <optional>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Losses: what torch.nn.functional calls the same, with its defaults.
/// What becomes of the losses of single elements or rows. batchmean, their sum divided by the extent of dim 0, is for kl_div.
enum class Reduction : uint8_t { mean, sum, none, batchmean };
struct LossOptions {
  Reduction reduction = Reduction::mean;
};
struct CrossEntropyOptions {
  Tensor weight = {};  ///< [classes]; mean is then the weighted mean
  std::optional<int64_t> ignore_index =
      {};                      ///< rows with this label count for nothing (PyTorch: -100, without being asked)
  double label_smoothing = 0;  ///< this part of each label is spread over all classes (Szegedy 2016)
  Reduction reduction = Reduction::mean;
};
/// -log softmax(logits)[label] of logits [batch, classes, d1..] or [classes] at int64 labels [batch, d1..]. Labels of the
/// logits' own shape and a floating dtype are probabilities: -sum over classes of label log softmax(logits). By default the
/// mean, which without other options is one kernel.
Tensor cross_entropy(const Arg& logits, const Tensor& labels);
Tensor cross_entropy(const Arg& logits, const Tensor& labels, const CrossEntropyOptions& options);
struct NllOptions {
  Tensor weight = {};
  std::optional<int64_t> ignore_index = {};
  Reduction reduction = Reduction::mean;
};
/// -log_probabilities[label], shapes and options as for cross_entropy.
Tensor nll_loss(const Arg& log_probabilities, const Tensor& labels, const NllOptions& options = {});
// Of x and a target of the same shape, element by element, d = x - target.
Tensor mse_loss(const Arg& x, const Arg& target, LossOptions options = {});  ///< d^2
Tensor l1_loss(const Arg& x, const Arg& target, LossOptions options = {});   ///< |d|
struct HuberOptions {
  double delta = 1;
  Reduction reduction = Reduction::mean;
};
/// d^2 / 2 where |d| < delta, else delta (|d| - delta / 2)  (Huber 1964).
Tensor huber_loss(const Arg& x, const Arg& target, HuberOptions options = {});
struct SmoothL1Options {
  double beta = 1;
  Reduction reduction = Reduction::mean;
};
/// d^2 / (2 beta) where |d| < beta, else |d| - beta / 2.
Tensor smooth_l1_loss(const Arg& x, const Arg& target, SmoothL1Options options = {});
struct BinaryCrossEntropyOptions {
  Tensor weight = {};  ///< of each element; broadcasts
  Reduction reduction = Reduction::mean;
};
/// -(target log p + (1 - target) log(1 - p)) of probabilities p; logarithms are at least -100, as in PyTorch. What is not
/// between 0 and 1 is a ValueError; in a graph on CUDA, where nobody looks, its loss is NaN.
Tensor binary_cross_entropy(const Arg& p, const Arg& target, const BinaryCrossEntropyOptions& options = {});
struct BceWithLogitsOptions {
  Tensor weight = {};      ///< of each element; broadcasts
  Tensor pos_weight = {};  ///< of the positive part, target log p; broadcasts
  Reduction reduction = Reduction::mean;
};
/// The same of p = sigmoid(logits), exact also where p is all but 0 or 1.
Tensor binary_cross_entropy_with_logits(const Arg& logits, const Arg& target, const BceWithLogitsOptions& options = {});
inline Tensor bce_with_logits(const Arg& logits, const Arg& target, const BceWithLogitsOptions& options = {}) {
  return binary_cross_entropy_with_logits(logits, target, options);
}
struct KlDivOptions {
  bool log_target = false;  ///< the target, too, is log-probabilities
  Reduction reduction = Reduction::mean;
};
/// target (log target - x) of log-probabilities x (Kullback, Leibler 1951); 0 where the target is 0. The divergence of
/// distributions is the sum over each; reduction batchmean gives its mean over the batch.
Tensor kl_div(const Arg& x, const Arg& target, KlDivOptions options = {});
struct CtcOptions {
  int64_t blank = 0;           ///< the class that stands for no label
  bool zero_infinity = false;  ///< where no path has the labels, loss and gradient are 0 rather than infinity and NaN
  Reduction reduction = Reduction::mean;  ///< mean: of each loss over its number of labels
};
/// -log of the probability that a sequence gives the labels, over all ways to repeat them and to put blanks between them
/// (Graves et al. 2006). log_probabilities [time, batch, classes] are log_softmax's, targets int64 [batch, most labels], or
/// all labels one after another [sum of lengths]; both lengths are int64 [batch]. One sequence may stand without the batch.
/// DimensionError of a label, ValueError of a length out of range. The gradient is the formula's own: that by log_probabilities
/// differs from PyTorch's by exp(log_probabilities), and none that goes on through log_softmax does. It has no second one.
Tensor ctc_loss(const Arg& log_probabilities, const Tensor& targets, const Tensor& input_lengths,
                const Tensor& target_lengths, const CtcOptions& options = {});
struct GaussianNllOptions {
  bool full = false;  ///< with the constant log(2 pi) / 2
  double epsilon = 1e-6;
  Reduction reduction = Reduction::mean;
};
/// (log variance + (x - target)^2 / variance) / 2, the variance at least epsilon; the three broadcast.
Tensor gaussian_nll_loss(const Arg& x, const Arg& target, const Arg& variance, GaussianNllOptions options = {});
struct PoissonNllOptions {
  bool log_input = true;  ///< x is the logarithm of the rate
  bool full = false;      ///< with Stirling's term for log target!
  double epsilon = 1e-8;  ///< added to a rate before its logarithm
  Reduction reduction = Reduction::mean;
};
/// exp(x) - target x, or x - target log(x + epsilon).
Tensor poisson_nll_loss(const Arg& x, const Arg& target, PoissonNllOptions options = {});
struct TripletOptions {
  double margin = 1, p = 2, epsilon = 1e-6;
  bool swap = false;  ///< the negative's distance is the lesser of those to the anchor and to the positive
  Reduction reduction = Reduction::mean;
};
/// max(|anchor - positive| - |anchor - negative| + margin, 0) by pairwise_distance.
Tensor triplet_margin_loss(const Arg& anchor, const Arg& positive, const Arg& negative, TripletOptions options = {});
struct MarginOptions {
  double margin = 0;
  Reduction reduction = Reduction::mean;
};
/// max(margin - y (a - b), 0), y 1 where a should rank higher and -1 where b should.
Tensor margin_ranking_loss(const Arg& a, const Arg& b, const Arg& y, MarginOptions options = {});
/// 1 - cos(a, b) over the last dim where y is 1, max(cos(a, b) - margin, 0) where it is -1.
Tensor cosine_embedding_loss(const Arg& a, const Arg& b, const Arg& y, MarginOptions options = {});
/// x where y is 1, max(margin - x, 0) where it is -1.
Tensor hinge_embedding_loss(const Arg& x, const Arg& y, MarginOptions options = {.margin = 1});
Tensor soft_margin_loss(const Arg& x, const Arg& y, LossOptions options = {});  ///< log(1 + exp(-y x))

}  // namespace tandem

// cross_entropy and its gradient.
#include <algorithm>

#include "core/range_check.h"
#include "kernels/cpu/support/rows.h"

namespace tandem {

namespace {

/// Labels, how many rows count, and which don't.
struct Labels {
  const int64_t* values;
  int64_t count;
  const AttributeValue* ignored;

  Labels(const KernelContext& c, int input, int64_t batch, int64_t classes)
      : values(static_cast<const int64_t*>(c.in(input).data)), count(batch),
        ignored(c.attributes.find("ignore_index")) {
    for (int64_t i = 0; i < batch; ++i) {
      if (values[i] >= 0 && values[i] < classes && !ignored) [[likely]]
        continue;
      if (ignores(i)) --count;
      else if (values[i] < 0 || values[i] >= classes)
        c.fail<DimensionError>(
            RangeCheck{.what = "label",
                       .bound = classes,
                       .classes = true,
                       .ignored = ignored ? std::optional(std::get<int64_t>(*ignored)) : std::nullopt}
                .text(values[i], Shape{i}));
    }
  }
  bool ignores(int64_t row) const { return ignored && values[row] == std::get<int64_t>(*ignored); }
  int64_t operator[](int64_t row) const { return values[row]; }
};

template <class T> void cross_entropy(KernelContext& c) {
  const int64_t batch = c.in(0).shape[0], classes = c.in(0).shape[1];
  const Labels labels(c, 1, batch, classes);
  const WideInput<T> x(c.in(0));
  const WideOutput<T> loss(c.out(0)), log_sum_exp(c.out(1));
  const auto row = row_loops<T>().log_sum_exp;
  for_rows(batch, classes, [&](int64_t r) { log_sum_exp.data()[r] = row(classes, x.data() + r * classes); });
  double total = 0;
  for (int64_t r = 0; r < batch; ++r)
    if (!labels.ignores(r)) total += static_cast<double>(log_sum_exp.data()[r] - x.data()[r * classes + labels[r]]);
  *loss.data() = static_cast<T>(total) / static_cast<T>(labels.count);  // rounded as the fused kernel rounds
  loss.finish(), log_sum_exp.finish();
}

template <class T> void cross_entropy_grad(KernelContext& c) {
  const int64_t batch = c.in(1).shape[0], classes = c.in(1).shape[1];
  if (batch == 0 || classes == 0) return;
  const Labels labels(c, 2, batch, classes);
  const WideInput<T> g(c.in(0)), x(c.in(1)), log_sum_exp(c.in(3));
  const WideOutput<T> dx(c.out());
  const T scale = *g.data() / static_cast<T>(labels.count);
  const auto row = row_loops<T>().softmax_minus;
  for_rows(batch, classes, [&](int64_t r) {
    T* to = dx.data() + r * classes;
    if (labels.ignores(r)) std::fill_n(to, classes, T(0));
    else row(classes, x.data() + r * classes, log_sum_exp.data()[r], labels[r], scale, to);
  });
  dx.finish();
}

}  // namespace

void add_cpu_ctc(Kernels kernels);  // ctc.cpp

void add_cpu_loss(Kernels kernels) {
  add_cpu_ctc(kernels);
  kernels["cross_entropy"] = TANDEM_WIDE_KERNEL(cross_entropy);
  kernels["cross_entropy_grad"] = TANDEM_WIDE_KERNEL(cross_entropy_grad);
}

}  // namespace tandem

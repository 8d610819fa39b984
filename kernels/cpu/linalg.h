// What the kernels of linear algebra share: a batch of matrices, one after another and over the threads, and what is said
// of the first that is no good. Eigen's own threads are off: they would split a product differently for each number of
// threads, and results with it.
#pragma once

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>

#include <mutex>
#include <string>

#include "core/op.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem::by_eigen {

template <class T> using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
template <class T> using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T> using Input = Eigen::Map<const Rows<T>>;
template <class T> using Output = Eigen::Map<Rows<T>>;

/// The matrices in the last two dims (or of one column, in the last dim) of a contiguous tensor.
template <class T> class Batch {
 public:
  explicit Batch(const TensorImpl& x, int rank = 2) : data_(static_cast<T*>(x.data)), batch_(x.shape) {
    rows_ = x.shape[x.shape.size() - rank];
    columns_ = rank == 2 ? x.shape.back() : 1;
    batch_.resize(x.shape.size() - rank);
  }
  const Shape& shape() const { return batch_; }
  int64_t count() const { return batch_.numel(); }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  Input<T> operator[](int64_t i) const { return {data_ + i * rows_ * columns_, rows_, columns_}; }
  Output<T> out(int64_t i) const { return {data_ + i * rows_ * columns_, rows_, columns_}; }

  /// The matrix that matrix `i` of a batch broadcast to `to` is read from.
  int64_t source(int64_t i, const Shape& to) const {
    int64_t position = 0, step = 1;
    for (int d = 1; d <= to.size(); ++d) {
      const int64_t at = i % to[to.size() - d];
      i /= to[to.size() - d];
      if (d > batch_.size()) continue;
      const int64_t extent = batch_[batch_.size() - d];
      if (extent != 1) position += at * step;
      step *= extent;
    }
    return position;
  }

 private:
  T* data_;
  Shape batch_;
  int64_t rows_, columns_;
};

/// What is wrong with a matrix; empty for nothing.
using Fault = std::string;
inline constexpr const char* kNotFinite = "has elements that are not finite; look for what made them";
inline constexpr const char* kNotConverged = "has a decomposition that didn't converge; scale it, or use float64";

/// The first matrix of operand 0 with a fault, from all threads.
class Faults {
 public:
  void add(int64_t matrix, const Fault& fault) {
    if (fault.empty()) return;
    const std::lock_guard lock(mutex_);
    if (first_ >= 0 && first_ <= matrix) return;
    first_ = matrix, fault_ = fault;
  }
  void raise(const KernelContext& c) const {
    if (first_ < 0) return;
    const TensorImpl& a = c.in(0);
    Shape index = a.shape;
    index.resize(a.shape.size() - 2);
    int64_t rest = first_;
    for (int d = index.size() - 1; d >= 0; --d) {
      const int64_t extent = index[d];
      index[d] = rest % extent;
      rest /= extent;
    }
    c.fail<LinAlgError>("the matrix ", index.empty() ? std::string() : "at " + to_string(index) + " of ", a.dtype,
                        a.shape, " ", fault_);
  }

 private:
  std::mutex mutex_;
  int64_t first_ = -1;
  Fault fault_;
};

/// Calls f(begin, end, faults) on pieces of a batch of `count` problems of `flops` each, and raises the first fault.
template <class F> void over_batch(KernelContext& c, int64_t count, int64_t flops, F&& f) {
  constexpr int64_t kWorthAThread = 50'000;
  Faults faults;
  parallel_for(count, std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(1, flops)),
               [&](int64_t begin, int64_t end) { f(begin, end, faults); });
  faults.raise(c);
}
/// The same for one matrix at a time: f(i) gives its fault. Matrices without elements are passed by.
template <class T, class F> void each_matrix(KernelContext& c, const Batch<T>& a, F&& f) {
  const int64_t rows = a.rows(), columns = a.columns();
  over_batch(c, a.count(), rows * columns * std::min(rows, columns), [&](int64_t begin, int64_t end, Faults& faults) {
    for (int64_t i = begin; i < end; ++i) faults.add(i, a[i].allFinite() ? f(i) : Fault(kNotFinite));
  });
}

template <class F> void by_type(KernelContext& c, F&& f) {
  if (c.in(0).dtype == DType::float64) f.template operator()<double>();
  else f.template operator()<float>();
}

template <class... Parts> Fault fault(const Parts&... parts) { return detail::str(parts...); }

/// out = A^-1 B, with `prepare()` a solver for one A, which serves all of B that follow each other in the batch.
template <class T, class Prepare> void solve_each(KernelContext& c, Prepare&& prepare) {
  const Batch<T> a(c.in(0)), b(c.in(1)), out(c.out());
  const int64_t m = a.rows(), n = a.columns();
  if (out.rows() * out.columns() == 0) return;
  over_batch(c, out.count(), m * n * std::min(m, n) + m * n * b.columns(),
             [&](int64_t begin, int64_t end, Faults& faults) {
               auto solver = prepare();
               int64_t last = -1;
               bool sound = true;
               for (int64_t i = begin; i < end; ++i) {
                 const int64_t from = a.source(i, out.shape());
                 if (from != last) {
                   const Fault wrong = a[from].allFinite() ? solver.factor(a[from]) : Fault(kNotFinite);
                   faults.add(from, wrong);
                   sound = wrong.empty();
                   last = from;
                 }
                 if (sound) solver.solve(b[b.source(i, out.shape())], out.out(i));
               }
             });
}

// In linalg_svd.cpp.
void lstsq_kernel(KernelContext& c);
void svd_kernel(KernelContext& c);
void svdvals_kernel(KernelContext& c);
void pinv_kernel(KernelContext& c);

}  // namespace tandem::by_eigen

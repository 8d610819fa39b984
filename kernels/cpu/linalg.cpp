// Systems of equations and decompositions, by Eigen: one matrix of a batch after another, batches over the threads. Each
// matrix is copied from its rows to the columns that Eigen's algorithms run along, and worked on there. Eigen's own threads
// are off: they would split a product differently for each number of threads, and results with it.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>

#include <limits>
#include <mutex>
#include <string>

#include "core/op.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

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
    for (int64_t i = begin; i < end; ++i)
      faults.add(i, a[i].allFinite() ? f(i) : Fault("has elements that are not finite; look for what made them"));
  });
}

template <class F> void by_type(KernelContext& c, F&& f) {
  if (c.in(0).dtype == DType::float64) f.template operator()<double>();
  else f.template operator()<float>();
}

template <class... Parts> Fault fault(const Parts&... parts) { return detail::str(parts...); }

// Singular and not symmetric ---------------------------------------------------------------------------------------

/// The first pivot of LU factors that may be nothing but rounding errors, or -1: u_kk is what is left of terms l_ki u_ik,
/// and nothing is known of it where it is a few epsilons of their sizes' sum. Scaling A's rows or columns changes nothing.
template <class T> int64_t lost_pivot(const Matrix<T>& lu) {
  constexpr T kFew = 8;
  for (int64_t k = 0; k < lu.rows(); ++k) {
    const T terms = lu.row(k).head(k).cwiseAbs().dot(lu.col(k).head(k).cwiseAbs()), pivot = std::abs(lu(k, k));
    if (!(pivot > kFew * std::numeric_limits<T>::epsilon() * (terms + pivot))) return k;
  }
  return -1;
}
template <class T> Fault singular(const Matrix<T>& lu) {
  const int64_t k = lost_pivot<T>(lu);
  if (k < 0) return {};
  return fault("is singular: pivot ", k, " of its LU factors is ", lu(k, k),
               ", 0 but for rounding; use pinv or lstsq, or add a multiple of the identity");
}

template <class T> Fault not_symmetric(const Input<T>& a) {
  const T largest = a.cwiseAbs().maxCoeff(), allowed = std::sqrt(std::numeric_limits<T>::epsilon()) * largest;
  for (int64_t i = 0; i < a.rows(); ++i)
    for (int64_t j = 0; j < i; ++j)
      if (!(std::abs(a(i, j) - a(j, i)) <= allowed))
        return fault("is not symmetric: ", a(i, j), " at [", i, ", ", j, "] and ", a(j, i), " at [", j, ", ", i,
                     "]; make it (A + A') / 2, if that is meant");
  return {};
}

/// The order of the first leading minor that is not positive: Cholesky's algorithm up to where it fails.
template <class T> int64_t failing_minor(Matrix<T> a) {
  for (int64_t k = 0; k < a.rows(); ++k) {
    const T pivot = a(k, k) - a.row(k).head(k).squaredNorm();
    if (!(pivot > 0)) return k + 1;
    a(k, k) = std::sqrt(pivot);
    for (int64_t i = k + 1; i < a.rows(); ++i) a(i, k) = (a(i, k) - a.row(i).head(k).dot(a.row(k).head(k))) / a(k, k);
  }
  return a.rows();
}

const char* const kNotConverged = "has a decomposition that didn't converge; scale it, or use float64";

// Systems ----------------------------------------------------------------------------------------------------------

/// out = A^-1 B, with `prepare(a)` a solver of one A, which serves all of B that follow each other in the batch.
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
                   const Fault wrong = a[from].allFinite()
                                           ? solver.factor(a[from])
                                           : Fault("has elements that are not finite; look for what made them");
                   faults.add(from, wrong);
                   sound = wrong.empty();
                   last = from;
                 }
                 if (sound) solver.solve(b[b.source(i, out.shape())], out.out(i));
               }
             });
}

template <class T> struct LuSolver {
  Eigen::PartialPivLU<Matrix<T>> lu;
  Fault factor(const Input<T>& a) {
    lu.compute(a);
    return singular<T>(lu.matrixLU());
  }
  void solve(const Input<T>& b, Output<T> x) const { x = lu.solve(b); }
};

template <class T> struct TriangularSolver {
  bool upper, unit;
  Matrix<T> a = {};
  Fault factor(const Input<T>& matrix) {
    a = matrix;
    for (int64_t k = 0; !unit && k < a.rows(); ++k)
      if (a(k, k) == 0)
        return fault("is singular: [", k, ", ", k, "] of its diagonal is 0; use pinv or lstsq of the triangle");
    return {};
  }
  void solve(const Input<T>& b, Output<T> x) const {
    Matrix<T> result = b;
    if (upper && unit) a.template triangularView<Eigen::UnitUpper>().solveInPlace(result);
    else if (upper) a.template triangularView<Eigen::Upper>().solveInPlace(result);
    else if (unit) a.template triangularView<Eigen::UnitLower>().solveInPlace(result);
    else a.template triangularView<Eigen::Lower>().solveInPlace(result);
    x = result;
  }
};

/// By QR with column pivots, from both sides: rank and least norm come with it.
template <class T> struct LeastSquaresSolver {
  Eigen::CompleteOrthogonalDecomposition<Matrix<T>> decomposition;
  Fault factor(const Input<T>& a) {
    const int64_t full = std::min(a.rows(), a.cols());
    if (full == 0) return {};
    decomposition.compute(a);
    if (decomposition.rank() == full) return {};
    return fault("has rank ", decomposition.rank(), ", not ", full,
                 ", so that many X fit equally; use matmul(pinv(A), B) for the least of them");
  }
  void solve(const Input<T>& b, Output<T> x) const {
    if (b.rows() == 0) x.setZero();
    else x = decomposition.solve(b);
  }
};

void solve_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() { solve_each<T>(c, [] { return LuSolver<T>(); }); });
}
void triangular_kernel(KernelContext& c) {
  const bool upper = c.attributes.flag("upper"), unit = c.attributes.flag("unitriangular");
  by_type(c, [&]<class T>() { solve_each<T>(c, [&] { return TriangularSolver<T>{upper, unit}; }); });
}
void lstsq_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() { solve_each<T>(c, [] { return LeastSquaresSolver<T>(); }); });
}

void inverse_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0)), out(c.out());
    if (a.rows() == 0) return;
    each_matrix(c, a, [&](int64_t i) {
      const Eigen::PartialPivLU<Matrix<T>> lu(a[i]);
      const Fault wrong = singular<T>(lu.matrixLU());
      if (wrong.empty()) out.out(i) = lu.inverse();
      return wrong;
    });
  });
}

/// det, and slogdet where there are two outputs. A product of pivots; a logarithm is summed in double.
void det_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0));
    const bool logarithm = c.outputs.size() > 1;
    T* first = static_cast<T*>(c.out(0).data);
    T* second = logarithm ? static_cast<T*>(c.out(1).data) : nullptr;
    each_matrix(c, a, [&](int64_t i) {
      if (a.rows() == 0) {
        first[i] = 1;
        if (logarithm) second[i] = 0;
        return Fault();
      }
      const Eigen::PartialPivLU<Matrix<T>> lu(a[i]);
      if (!logarithm) {
        first[i] = lu.determinant();
        return Fault();
      }
      T sign = static_cast<T>(lu.permutationP().determinant());
      double sum = 0;
      for (int64_t k = 0; k < a.rows(); ++k) {
        const T pivot = lu.matrixLU()(k, k);
        sign *= static_cast<T>((pivot > 0) - (pivot < 0));
        sum += std::log(std::abs(static_cast<double>(pivot)));
      }
      first[i] = sign, second[i] = static_cast<T>(sum);
      return Fault();
    });
  });
}

// Decompositions ---------------------------------------------------------------------------------------------------

void cholesky_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0)), out(c.out());
    if (a.rows() == 0) return;
    each_matrix(c, a, [&](int64_t i) {
      const Fault asymmetry = not_symmetric<T>(a[i]);
      if (!asymmetry.empty()) return asymmetry;
      const Eigen::LLT<Matrix<T>, Eigen::Lower> llt(a[i]);
      if (llt.info() != Eigen::Success)
        return fault("is not positive definite: its leading minor of order ", failing_minor<T>(a[i]),
                     " is not positive; add a multiple of the identity, or use eigh");
      out.out(i) = Matrix<T>(llt.matrixL());
      return Fault();
    });
  });
}

void qr_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0)), q(c.out(0)), r(c.out(1));
    const int64_t k = q.columns();
    each_matrix(c, a, [&](int64_t i) {
      if (a.rows() * a.columns() == 0) {
        if (q.rows() * k > 0) q.out(i).setIdentity();
        return Fault();
      }
      const Eigen::HouseholderQR<Matrix<T>> qr(a[i]);
      q.out(i) = qr.householderQ() * Matrix<T>::Identity(a.rows(), k);
      r.out(i) = Matrix<T>(qr.matrixQR().topRows(k).template triangularView<Eigen::Upper>());
      return Fault();
    });
  });
}

/// Divide and conquer, which for up to 16 columns is Jacobi's algorithm.
template <class T> using Svd = Eigen::BDCSVD<Matrix<T>>;

void svd_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0)), u(c.out(0)), s(c.out(1), 1), vh(c.out(2));
    if (s.rows() == 0) return;
    each_matrix(c, a, [&](int64_t i) {
      const Svd<T> svd(a[i], Eigen::ComputeThinU | Eigen::ComputeThinV);
      if (svd.info() != Eigen::Success) return Fault(kNotConverged);
      u.out(i) = svd.matrixU();
      s.out(i) = svd.singularValues();
      vh.out(i) = svd.matrixV().transpose();
      return Fault();
    });
  });
}

void svdvals_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0)), s(c.out(), 1);
    if (s.rows() == 0) return;
    each_matrix(c, a, [&](int64_t i) {
      const Svd<T> svd(a[i]);
      if (svd.info() != Eigen::Success) return Fault(kNotConverged);
      s.out(i) = svd.singularValues();
      return Fault();
    });
  });
}

void pinv_kernel(KernelContext& c) {
  const double share = c.attribute("rtol");
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0)), out(c.out());
    if (a.rows() * a.columns() == 0) return;
    each_matrix(c, a, [&](int64_t i) {
      const Svd<T> svd(a[i], Eigen::ComputeThinU | Eigen::ComputeThinV);
      if (svd.info() != Eigen::Success) return Fault(kNotConverged);
      const auto& s = svd.singularValues();
      const auto rank = (s.array() > static_cast<T>(share) * s(0)).count();  // s descends
      out.out(i) = svd.matrixV().leftCols(rank) * s.head(rank).cwiseInverse().asDiagonal() *
                   svd.matrixU().leftCols(rank).transpose();
      return Fault();
    });
  });
}

/// eigh, and eigvalsh where there is one output.
void eigh_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0)), w(c.out(0), 1);
    const bool vectors = c.outputs.size() > 1;
    if (a.rows() == 0) return;
    each_matrix(c, a, [&](int64_t i) {
      const Fault asymmetry = not_symmetric<T>(a[i]);
      if (!asymmetry.empty()) return asymmetry;
      const Eigen::SelfAdjointEigenSolver<Matrix<T>> solver(
          a[i], vectors ? Eigen::ComputeEigenvectors : Eigen::EigenvaluesOnly);
      if (solver.info() != Eigen::Success) return Fault(kNotConverged);
      w.out(i) = solver.eigenvalues();
      if (vectors) Batch<T>(c.out(1)).out(i) = solver.eigenvectors();
      return Fault();
    });
  });
}

}  // namespace

void add_cpu_linalg(Kernels kernels) {
  kernels["solve"] = solve_kernel;
  kernels["solve_triangular"] = triangular_kernel;
  kernels["lstsq"] = lstsq_kernel;
  kernels["inverse"] = inverse_kernel;
  kernels["det"] = det_kernel;
  kernels["slogdet"] = det_kernel;
  kernels["cholesky"] = cholesky_kernel;
  kernels["qr"] = qr_kernel;
  kernels["svd"] = svd_kernel;
  kernels["svdvals"] = svdvals_kernel;
  kernels["pinv"] = pinv_kernel;
  kernels["eigh"] = eigh_kernel;
  kernels["eigvalsh"] = eigh_kernel;
}

}  // namespace tandem

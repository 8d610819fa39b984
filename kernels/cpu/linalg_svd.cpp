// Least squares and what is made of singular values, by Eigen, in double also for float32: these algorithms take most of a
// minute to compile for a type, and float32 results come out rounded once. A file of its own, to compile beside linalg.cpp.
#include <limits>

#include "kernels/cpu/linalg.h"

namespace tandem::by_eigen {

namespace {

/// By QR with column pivots, from both sides: rank and least norm come with it.
template <class T> struct LeastSquaresSolver {
  Eigen::CompleteOrthogonalDecomposition<Matrix<double>> decomposition;
  Fault factor(const Input<T>& a) {
    const int64_t full = std::min(a.rows(), a.cols());
    if (full == 0) return {};
    decomposition.setThreshold(static_cast<double>(full) * std::numeric_limits<T>::epsilon());  // of what A is held in
    decomposition.compute(a.template cast<double>());
    if (decomposition.rank() == full) return {};
    return fault("has rank ", decomposition.rank(), ", not ", full,
                 ", so that many X fit equally; use matmul(pinv(A), B) for the least of them");
  }
  void solve(const Input<T>& b, Output<T> x) const {
    if (b.rows() == 0) x.setZero();
    else x = Matrix<double>(decomposition.solve(Matrix<double>(b.template cast<double>()))).template cast<T>();
  }
};

/// Divide and conquer, which for up to 16 columns is Jacobi's algorithm.
using Svd = Eigen::BDCSVD<Matrix<double>>;

/// f(i, svd) for each matrix of input 0 that has elements.
template <class T, class F> void each_svd(KernelContext& c, bool with_vectors, F&& f) {
  const Batch<T> a(c.in(0));
  if (a.rows() * a.columns() == 0) return;
  each_matrix(c, a, [&](int64_t i) {
    const Svd svd(a[i].template cast<double>(), with_vectors ? Eigen::ComputeThinU | Eigen::ComputeThinV : 0);
    if (svd.info() != Eigen::Success) return Fault(kNotConverged);
    f(i, svd);
    return Fault();
  });
}

}  // namespace

void lstsq_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() { solve_each<T>(c, [] { return LeastSquaresSolver<T>(); }); });
}

void svd_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> u(c.out(0)), s(c.out(1), 1), vh(c.out(2));
    each_svd<T>(c, true, [&](int64_t i, const Svd& svd) {
      u.out(i) = svd.matrixU().template cast<T>();
      s.out(i) = svd.singularValues().template cast<T>();
      vh.out(i) = svd.matrixV().transpose().template cast<T>();
    });
  });
}

void svdvals_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> s(c.out(), 1);
    each_svd<T>(c, false, [&](int64_t i, const Svd& svd) { s.out(i) = svd.singularValues().template cast<T>(); });
  });
}

void pinv_kernel(KernelContext& c) {
  const double share = c.attribute("rtol");
  by_type(c, [&]<class T>() {
    const Batch<T> out(c.out());
    each_svd<T>(c, true, [&](int64_t i, const Svd& svd) {
      const auto& s = svd.singularValues();
      const auto rank = (s.array() > share * s(0)).count();  // s descends
      const Matrix<double> scaled = svd.matrixV().leftCols(rank) * s.head(rank).cwiseInverse().asDiagonal();
      out.out(i) = Matrix<double>(scaled * svd.matrixU().leftCols(rank).transpose()).template cast<T>();
    });
  });
}

}  // namespace tandem::by_eigen

// Systems of equations and decompositions, by Eigen. Each matrix is copied from its rows to the columns that Eigen's
// algorithms run along, and worked on there. Those by singular values are in linalg_svd.cpp.
#include "kernels/cpu/linalg.h"

#include <limits>

namespace tandem {

namespace {

using namespace by_eigen;

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

// Systems ----------------------------------------------------------------------------------------------------------

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

void solve_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() { solve_each<T>(c, [] { return LuSolver<T>(); }); });
}
void triangular_kernel(KernelContext& c) {
  const bool upper = c.attributes.flag("upper"), unit = c.attributes.flag("unitriangular");
  by_type(c, [&]<class T>() { solve_each<T>(c, [&] { return TriangularSolver<T>{upper, unit}; }); });
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

/// eigh, and eigvalsh where there is one output. In double also for float32: Eigen's QR iteration loses some digits more
/// than LAPACK's (at n = 200, 8 times as many epsilons).
void eigh_kernel(KernelContext& c) {
  by_type(c, [&]<class T>() {
    const Batch<T> a(c.in(0)), w(c.out(0), 1);
    const bool vectors = c.outputs.size() > 1;
    if (a.rows() == 0) return;
    each_matrix(c, a, [&](int64_t i) {
      const Fault asymmetry = not_symmetric<T>(a[i]);
      if (!asymmetry.empty()) return asymmetry;
      const Eigen::SelfAdjointEigenSolver<Matrix<double>> solver(
          a[i].template cast<double>(), vectors ? Eigen::ComputeEigenvectors : Eigen::EigenvaluesOnly);
      if (solver.info() != Eigen::Success) return Fault(kNotConverged);
      w.out(i) = solver.eigenvalues().template cast<T>();
      if (vectors) Batch<T>(c.out(1)).out(i) = solver.eigenvectors().template cast<T>();
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

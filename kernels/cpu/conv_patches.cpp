// Convolutions as matrix products. A patch is what one output pixel sees, laid out as a row of
// [kernel height, kernel width, in channels]; some images' patches at a time form the matrix P:
//   y = P W',  dP = g W (then added back to where the patches came from),  dW = g' P.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/conv.h"
#include "kernels/cpu/support/gemm.h"
#include "kernels/cpu/support/layout.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

constexpr int64_t kPatchElements = 1 << 20;  // of P at a time

template <class T> class Patches {
 public:
  Patches(const ConvProblem& p)
      : p_(p), in_(p.in / p.groups), out_(p.out / p.groups), width_(p.kernel[0] * p.kernel[1] * in_),
        pixels_(p.out_height * p.out_width),
        images_(std::clamp<int64_t>(kPatchElements / std::max<int64_t>(pixels_ * width_, 1), 1, p.batch)),
        patches_(images_ * pixels_ * width_ * size()), weight_(p.out * width_ * size()) {}

  void forward(const T* x, const T* weight, const T* bias, T* y) {
    permute_weight(weight);
    if (bias) {
      parallel_for(p_.batch * pixels_, std::max<int64_t>(1, kPointwiseGrain / p_.out), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) std::memcpy(y + i * p_.out, bias, static_cast<size_t>(p_.out * size()));
      });
    }
    for_images([&](int64_t first, int64_t count, int64_t group) {
      gather(x, first, count, group);
      gemm(dtype_of<T>, count * pixels_, out_, width_, {patches(), width_, 1}, {weight_of(group), 1, width_},
           y + first * pixels_ * p_.out + group * out_, p_.out, bias != nullptr);
    });
  }

  void input_grad(const T* g, const T* weight, T* dx) {
    permute_weight(weight);
    fill_elements(dx, p_.batch * p_.in_height * p_.in_width * p_.in, dtype_of<T>, 0);
    for_images([&](int64_t first, int64_t count, int64_t group) {
      gemm(dtype_of<T>, count * pixels_, width_, out_, {g + first * pixels_ * p_.out + group * out_, p_.out, 1},
           {weight_of(group), width_, 1}, patches(), width_, false);
      scatter(dx, first, count, group);
    });
  }

  void weight_grad(const T* g, const T* x, T* dweight) {
    for_images([&](int64_t first, int64_t count, int64_t group) {
      gather(x, first, count, group);
      gemm(dtype_of<T>, out_, width_, count * pixels_, {g + first * pixels_ * p_.out + group * out_, 1, p_.out},
           {patches(), width_, 1}, weight_of(group), width_, first > 0);
    });
    // [out, kernel, in] back to [out, in, kernel].
    Header from(weight_.template as<T>(), dtype_of<T>, {p_.out, in_, p_.kernel[0] * p_.kernel[1]});
    from.impl.set_layout(from.impl.shape, {width_, 1, in_});
    copy_elements(from.impl, Header(dweight, dtype_of<T>, from.impl.shape).impl);
  }

 private:
  static constexpr int64_t size() { return sizeof(T); }
  T* patches() const { return patches_.template as<T>(); }
  T* weight_of(int64_t group) const { return weight_.template as<T>() + group * out_ * width_; }

  /// weight_ = weight as [out, kernel, in].
  void permute_weight(const T* weight) const {
    const Shape shape{p_.out, p_.kernel[0] * p_.kernel[1], in_};
    Header from(const_cast<T*>(weight), dtype_of<T>, shape);
    from.impl.set_layout(shape, {width_, 1, p_.kernel[0] * p_.kernel[1]});
    copy_elements(from.impl, Header(weight_.template as<T>(), dtype_of<T>, shape).impl);
  }

  template <class F> void for_images(F&& f) const {
    for (int64_t first = 0; first < p_.batch; first += images_)
      for (int64_t group = 0; group < p_.groups; ++group) f(first, std::min(images_, p_.batch - first), group);
  }

  /// Calls f(patch row, x offset or -1 outside, elements) for each kernel row's run of in-channels.
  template <class F> void for_pixel(int64_t row, int64_t column, F&& f) const {
    int64_t at = 0;
    for (int64_t i = 0; i < p_.kernel[0]; ++i) {
      const int64_t r = row * p_.stride[0] - p_.padding[0] + i * p_.dilation[0];
      for (int64_t j = 0; j < p_.kernel[1]; ++j, at += in_) {
        const int64_t k = column * p_.stride[1] - p_.padding[1] + j * p_.dilation[1];
        const bool inside = r >= 0 && r < p_.in_height && k >= 0 && k < p_.in_width;
        f(at, inside ? (r * p_.in_width + k) * p_.in : -1);
      }
    }
  }

  void gather(const T* x, int64_t first, int64_t count, int64_t group) const {
    const int64_t image = p_.in_height * p_.in_width * p_.in;
    // One channel, neighbouring taps: a kernel row is one copy where it lies inside.
    const bool runs = p_.in == 1 && p_.dilation[1] == 1;
    parallel_for(count * p_.out_height, std::max<int64_t>(1, kPointwiseGrain / (p_.out_width * width_)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     const T* from = x + (first + i / p_.out_height) * image + group * in_;
                     const int64_t row = i % p_.out_height;
                     T* to = patches() + i * p_.out_width * width_;
                     for (int64_t column = 0; column < p_.out_width; ++column, to += width_) {
                       const int64_t left = column * p_.stride[1] - p_.padding[1];
                       if (runs && left >= 0 && left + p_.kernel[1] <= p_.in_width) {
                         for (int64_t k = 0; k < p_.kernel[0]; ++k) {
                           const int64_t r = row * p_.stride[0] - p_.padding[0] + k * p_.dilation[0];
                           T* line = to + k * p_.kernel[1];
                           if (r < 0 || r >= p_.in_height) std::fill_n(line, p_.kernel[1], T(0));
                           else std::copy_n(from + r * p_.in_width + left, p_.kernel[1], line);
                         }
                         continue;
                       }
                       for_pixel(row, column, [&](int64_t at, int64_t place) {
                         if (place < 0) std::fill_n(to + at, in_, T(0));
                         else std::copy_n(from + place, in_, to + at);
                       });
                     }
                   }
                 });
  }

  /// dx += the patches' gradients; an image belongs to one thread.
  void scatter(T* dx, int64_t first, int64_t count, int64_t group) const {
    const int64_t image = p_.in_height * p_.in_width * p_.in;
    parallel_for(count, std::max<int64_t>(1, kPointwiseGrain / (pixels_ * width_)), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        T* to = dx + (first + n) * image + group * in_;
        const T* from = patches() + n * pixels_ * width_;
        for (int64_t row = 0; row < p_.out_height; ++row)
          for (int64_t column = 0; column < p_.out_width; ++column, from += width_)
            for_pixel(row, column, [&](int64_t at, int64_t place) {
              if (place < 0) return;
              for (int64_t j = 0; j < in_; ++j) to[place + j] += from[at + j];
            });
      }
    });
  }

  const ConvProblem& p_;
  const int64_t in_, out_, width_, pixels_, images_;
  const Scratch patches_, weight_;
};

}  // namespace

template <class T> void patch_convolve(ConvPart part, const ConvProblem& problem, const ConvOperands& operands) {
  Patches<T> patches(problem);
  const T *a = static_cast<const T*>(operands.a), *b = static_cast<const T*>(operands.b);
  T* result = static_cast<T*>(operands.result);
  switch (part) {
    case ConvPart::forward: return patches.forward(a, b, static_cast<const T*>(operands.bias), result);
    case ConvPart::input_grad: return patches.input_grad(a, b, result);
    case ConvPart::weight_grad: return patches.weight_grad(a, b, result);
  }
}
template void patch_convolve<float>(ConvPart, const ConvProblem&, const ConvOperands&);
template void patch_convolve<double>(ConvPart, const ConvProblem&, const ConvOperands&);

}  // namespace tandem

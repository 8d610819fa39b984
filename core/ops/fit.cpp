#include "core/ops/fit.h"

#include <array>
#include <cstdint>
#include <optional>

namespace tandem {

namespace {

/// The part of `text` before the next `separator`, and `text` behind it.
std::string_view take(std::string_view& text, std::string_view separator) {
  const size_t end = text.find(separator);
  const std::string_view part = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + separator.size());
  return part;
}

class Fit {
 public:
  explicit Fit(const Infer& op) : op_(op) { known_.fill(-1); }

  void check_operand(int number, std::string_view dims) {
    const Tensor& x = op_.input(number);
    const std::string_view whole = dims;
    std::string_view type = dims;
    dims = take(type, ":");
    check_type(number, type);
    int named = 0;
    bool any = false;
    for (std::string_view rest = dims; !rest.empty();) {
      const bool dots = take(rest, " ") == "..";
      any = any || dots, named += !dots;
    }
    if (any ? x.rank() < named : x.rank() != named) fail(number, whole);
    int at = 0;
    while (!dims.empty()) {
      const std::string_view dim = take(dims, " ");
      bool fits = true;
      if (dim == "..") {
        Shape others;
        for (const int end = at + x.rank() - named; at < end; ++at) others.push_back(x.shape()[at]);
        if (others_) fits = *others_ == others;
        else others_ = others;
      } else {
        fits = is(dim, x.shape()[at++]);
      }
      if (!fits) fail(number, whole);
    }
  }

 private:
  bool is(std::string_view dim, int64_t extent) {
    int64_t factor = 0;
    while (!dim.empty() && dim[0] >= '0' && dim[0] <= '9') {
      factor = factor * 10 + (dim[0] - '0');
      dim.remove_prefix(1);
    }
    if (dim.empty()) return extent == factor;
    factor = factor ? factor : 1;
    int64_t& known = known_[static_cast<unsigned char>(dim[0]) % known_.size()];
    if (known < 0 && extent % factor == 0) known = extent / factor;
    return known >= 0 && extent == factor * known;
  }
  void check_type(int number, std::string_view wanted) const {
    const DType own = op_.input(0).dtype(), type = op_.input(number).dtype(), wide = own == float64 ? float64 : float32,
                needed = wanted == "wide"    ? wide
                         : wanted == "int64" ? int64
                                             : own;
    op_.check<DTypeError>(type == needed || (wanted == "either" && type == wide), "operand ", number, " is ", type,
                          ", need ", needed, " beside operand 0 in ", own, "; cast one with to()");
  }
  [[noreturn]] void fail(int number, std::string_view pattern) const {
    std::string shapes;
    for (int i = 0; i < number; ++i) shapes += detail::str(i ? ", " : "", op_.input(i).shape());
    op_.fail<ShapeError>("operand ", number, " is ", op_.input(number).shape(), ", need [",
                         pattern.substr(0, pattern.find(':')), "] behind ", number ? shapes : "nothing");
  }

  const Infer& op_;
  std::array<int64_t, 128> known_;
  std::optional<Shape> others_;
};

}  // namespace

void check_fit(const Infer& op, std::string_view pattern) {
  Fit fit(op);
  for (int number = 0; !pattern.empty(); ++number) fit.check_operand(number, take(pattern, ", "));
}

}  // namespace tandem

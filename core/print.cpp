// Printing tensors: values in nested brackets, long ones shortened, then shape, dtype and device.
#include <cmath>
#include <iomanip>
#include <ostream>

#include "core/dispatch.h"
#include "core/tensor.h"

namespace tandem {

namespace {

constexpr int64_t kEdge = 3;        // values shown at each end of a shortened dim
constexpr int64_t kShowAll = 1000;  // tensors up to this many elements are shown whole

struct Printer {
  const Shape& shape;
  std::vector<std::string> cells;  // row-major; only the shown ones are filled
  size_t width = 0;
  bool shorten;

  template <class F> void each_shown(int64_t extent, F&& f) const {
    for (int64_t i = 0; i < extent; ++i) {
      if (shorten && extent > 2 * kEdge && i == kEdge) i = extent - kEdge;
      f(i);
    }
  }
  template <class F> void visit(int dim, int64_t index, F&& f) const {
    if (dim == shape.size()) return f(index);
    each_shown(shape[dim], [&](int64_t i) { visit(dim + 1, index * shape[dim] + i, f); });
  }
  void print(std::ostream& out, int dim, int64_t index) const {
    if (dim == shape.size()) {
      out << std::setw(static_cast<int>(width)) << cells[static_cast<size_t>(index)];
      return;
    }
    out << '[';
    bool first = true;
    each_shown(shape[dim], [&](int64_t i) {
      const bool last_dim = dim + 1 == shape.size();
      if (!first) {
        out << ',';
        if (last_dim) out << ' ';
        else
          out << std::string(static_cast<size_t>(shape.size() - dim - 1), '\n')
              << std::string(static_cast<size_t>(dim + 1), ' ');
        if (shorten && shape[dim] > 2 * kEdge && i == shape[dim] - kEdge) {
          out << "...,";
          if (last_dim) out << ' ';
          else out << '\n' << std::string(static_cast<size_t>(dim + 1), ' ');
        }
      }
      first = false;
      print(out, dim + 1, index * shape[dim] + i);
    });
    out << ']';
  }
};

std::string number(double value) {
  detail::TextStream text;
  text << std::setprecision(5) << value;
  return text.str();
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "undefined";
  if (tensor.is_symbolic()) {
    if (Interceptor* tracer = interceptor()) tracer->value_needed(tensor, "printing", Where::current());
    return out << "symbolic " << tensor.dtype() << tensor.shape();
  }
  Printer printer{tensor.shape(), std::vector<std::string>(static_cast<size_t>(tensor.numel())), 0,
                  tensor.numel() > kShowAll};
  const auto fill = [&](const auto& values) {
    printer.visit(0, 0, [&](int64_t i) {
      std::string& cell = printer.cells[static_cast<size_t>(i)];
      if constexpr (std::is_same_v<std::decay_t<decltype(values[0])>, int64_t>)
        cell = std::to_string(values[static_cast<size_t>(i)]);
      else cell = number(values[static_cast<size_t>(i)]);
      printer.width = std::max(printer.width, cell.size());
    });
  };
  if (tensor.numel() > 0) {
    if (is_floating(tensor.dtype())) fill(tensor.to_vector<double>());
    else fill(tensor.to_vector<int64_t>());
  }
  printer.print(out, 0, 0);
  return out << ' ' << tensor.dtype() << tensor.shape() << ' ' << tensor.device();
}

}  // namespace tandem

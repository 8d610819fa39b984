// Samples of softmax, log_softmax and their gradients, along any dim.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// Calls f(positions of one row) for each row along `dim`.
template <class F> void each_row(const Shape& shape, int64_t dim, F&& f) {
  if (shape.empty()) return f(std::vector<int64_t>{0});
  const int d = static_cast<int>(dim < 0 ? dim + shape.size() : dim);
  for (int64_t i = 0; i < shape.numel(); ++i) {
    Shape index = unravel(i, shape);
    if (index[d] != 0) continue;
    std::vector<int64_t> row;
    for (; index[d] < shape[d]; ++index[d]) row.push_back(ravel(index, shape));
    f(row);
  }
}

enum class Form { plain, logarithm };

Reference forward(Form form, int64_t dim) {
  return [=](const NumberLists& in) {
    Numbers out(in[0].shape, in[0].dtype);
    out.make_scale();
    each_row(in[0].shape, dim, [&](const std::vector<int64_t>& row) {
      double largest = -INFINITY;
      Real sum = 0;
      for (int64_t i : row)
        largest = in[0][i] != in[0][i] ? NAN : largest != largest ? largest : std::max(largest, in[0][i]);
      for (int64_t i : row) sum += std::exp(in[0][i] - largest);
      const double total = static_cast<double>(sum);
      for (int64_t i : row) {
        const double shifted = in[0][i] - largest;
        out[i] = form == Form::plain ? std::exp(shifted) / total : shifted - std::log(total);
        // x - max is rounded before it goes through exp.
        const double reach = std::isfinite(in[0][i]) ? std::fabs(in[0][i]) + std::fabs(largest) : 0;
        out.scale[static_cast<size_t>(i)] = form == Form::plain ? out[i] * (1 + reach) : 1 + reach;
      }
    });
    return NumberLists{out};
  };
}

Reference backward(Form form) {
  return [=](const NumberLists& in) {
    const Numbers &g = in[0], &y = in[1];
    Numbers out(g.shape, g.dtype);
    out.make_scale();
    each_row(g.shape, -1, [&](const std::vector<int64_t>& row) {
      double magnitude = 0;
      Real sum = 0;
      for (int64_t i : row) {
        const double term = form == Form::plain ? g[i] * y[i] : g[i];
        sum += term;
        magnitude += std::fabs(term);
      }
      const double total = static_cast<double>(sum);
      for (int64_t i : row) {
        const double p = form == Form::plain ? y[i] : std::exp(y[i]);
        out[i] = form == Form::plain ? p * (g[i] - total) : g[i] - p * total;
        out.scale[static_cast<size_t>(i)] =
            (form == Form::plain ? p : 1) * std::fabs(g[i]) + p * magnitude * (1 + std::fabs(y[i]));
      }
    });
    return NumberLists{out};
  };
}

void add(Samples& samples, Form form) {
  const std::string name = form == Form::plain ? "softmax" : "log_softmax";
  const auto forwards = [&](const Shape& shape, int64_t dim, Generator values, const char* note = "",
                            Gradients gradients = Gradients::second) {
    samples.push_back({.op = name,
                       .label = detail::str(shape, " dim ", dim, note),
                       .operands = {{shape, values}},
                       .dtypes = kFloats,
                       .call =
                           [=](const Tensors& x) {
                             return Tensors{form == Form::plain ? softmax(x[0], dim) : log_softmax(x[0], dim)};
                           },
                       .reference = forward(form, dim),
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = shape.numel() > 1000});
  };
  for (const Shape& shape : {Shape{}, {1}, {17}, {3, 5}, {33, 17}, {2, 3, 4}, {0, 3}, {3, 0}, {40, 1031}})
    forwards(shape, -1, spread(-4, 4));
  forwards({5, 3}, 0, spread(-4, 4));
  forwards({2, 3, 4}, 1, spread(-4, 4));
  forwards({3, 7}, 1, repeat({1000, 999, -1000, 998, 1000}), ", large values", Gradients::none);
  forwards({2, 4}, 1, repeat({-INFINITY, 0, -INFINITY, 1}), ", some -inf", Gradients::none);
  forwards({2, 3}, 1, repeat({-INFINITY, -INFINITY, -INFINITY, 1, 2, 3}), ", a row of -inf", Gradients::none);
  forwards({2, 3}, 1, repeat({0, NAN, 1, 1, 2, 3}), ", NaN", Gradients::none);
  for (const Shape& shape : {Shape{1}, {17}, {3, 5}, {33, 17}, {2, 3, 4}, {0, 3}, {3, 0}, {40, 1031}}) {
    samples.push_back(
        {.op = name + "_grad",
         .label = to_string(shape),
         .operands = {{shape, spread(-2, 2)}, {shape, form == Form::plain ? spread(0.01, 0.3, 1) : spread(-4, -1, 1)}},
         .dtypes = kFloats,
         .call = call_op(form == Form::plain ? "softmax_grad" : "log_softmax_grad"),
         .reference = backward(form),
         .gradients = Gradients::second,
         .agreement = Agreement::close,
         .large = shape.numel() > 1000});
  }
}

}  // namespace

void add_softmax_samples(Samples& samples) {
  add(samples, Form::plain);
  add(samples, Form::logarithm);
}

}  // namespace tandem::samples

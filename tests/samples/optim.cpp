// Samples of the optimisers' updates. They are not differentiable.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

const std::vector<Shape> kShapes = {{}, {17}, {33, 5}, {2, 3, 4}, {0}, {5000}};

/// A result whose errors are measured against the operands it is made of.
Numbers result_like(const Numbers& x) {
  Numbers out(x.shape, x.dtype);
  out.make_scale();
  return out;
}
double size_of_terms(std::initializer_list<double> terms) {
  double total = 0;
  for (double term : terms) total += std::fabs(term);
  return total;
}

struct Sgd {
  double momentum, dampening, decay;
  bool nesterov;
};

void add_sgd(Samples& samples, const Sgd& s, const Shape& shape) {
  samples.push_back(
      {.op = "sgd",
       .label = detail::str(shape, " momentum ", s.momentum, " dampening ", s.dampening, " weight decay ", s.decay,
                            s.nesterov ? " nesterov" : ""),
       .operands =
           {{shape, spread(-2, 2)}, {shape, spread(-1, 1, 1)}, {shape, spread(-1, 1, 2)}, {{}, repeat({0.1}), float32}},
       .dtypes = kFloats,
       .call = call_op(
           "sgd",
           {{"momentum", s.momentum}, {"dampening", s.dampening}, {"weight_decay", s.decay}, {"nesterov", s.nesterov}}),
       .reference =
           [s](const NumberLists& in) {
             Numbers param = result_like(in[0]), buffer = result_like(in[2]);
             for (int64_t i = 0; i < param.numel(); ++i) {
               const double g = in[1][i] + s.decay * in[0][i], lr = in[3][0];
               buffer[i] = s.momentum != 0 ? s.momentum * in[2][i] + (1 - s.dampening) * g : in[2][i];
               const double step = s.momentum == 0 ? g : s.nesterov ? g + s.momentum * buffer[i] : buffer[i];
               param[i] = in[0][i] - lr * step;
               buffer.scale[static_cast<size_t>(i)] = size_of_terms({in[2][i], in[1][i], in[0][i]});
               param.scale[static_cast<size_t>(i)] = size_of_terms({in[0][i], in[1][i], in[2][i]});
             }
             return NumberLists{param, buffer};
           },
       .large = shape.numel() > 1000});
}

struct Adam {
  double beta1, beta2, epsilon, decay;
  bool decoupled;
  DType rates = float32;
};

void add_adam(Samples& samples, const Adam& a, const Shape& shape) {
  samples.push_back(
      {.op = "adamw",
       .label = detail::str(shape, " weight decay ", a.decay, a.decoupled ? " decoupled" : "", " rates ", a.rates),
       .operands = {{shape, spread(-2, 2)},
                    {shape, spread(-1, 1, 1)},
                    {shape, spread(-1, 1, 2)},
                    {shape, spread(0.01, 1, 3)},
                    {{}, repeat({0.01}), a.rates},
                    {{}, repeat({0.271}), a.rates},
                    {{}, repeat({0.0632}), a.rates}},
       .dtypes = kFloats,
       .call = call_op("adamw", {{"beta1", a.beta1},
                                 {"beta2", a.beta2},
                                 {"epsilon", a.epsilon},
                                 {"weight_decay", a.decay},
                                 {"decoupled", a.decoupled}}),
       .reference =
           [a](const NumberLists& in) {
             Numbers param = result_like(in[0]), m = result_like(in[2]), v = result_like(in[3]);
             // What is made of the rates is rounded in their type whatever the parameter's is.
             const auto lr = static_cast<float>(in[4][0]);
             const bool wide = a.rates == float64;
             const double rate = wide ? in[4][0] / in[5][0] : lr / static_cast<float>(in[5][0]);
             const double kept = wide ? 1 - in[4][0] * a.decay : 1.0f - lr * static_cast<float>(a.decay),
                          correction2 = in[6][0];
             for (int64_t i = 0; i < param.numel(); ++i) {
               const double g = in[1][i] + (a.decoupled ? 0 : a.decay * in[0][i]);
               const double p = in[0][i] * (a.decoupled ? kept : 1);
               m[i] = in[2][i] * a.beta1 + g * (1 - a.beta1);
               v[i] = in[3][i] * a.beta2 + g * g * (1 - a.beta2);
               param[i] = p - rate * m[i] / (std::sqrt(v[i]) / correction2 + a.epsilon);
               m.scale[static_cast<size_t>(i)] = size_of_terms({in[2][i], g, in[0][i]});
               v.scale[static_cast<size_t>(i)] = size_of_terms({in[3][i], g * g});
               param.scale[static_cast<size_t>(i)] = size_of_terms({p, in[2][i], g});
             }
             return NumberLists{param, m, v};
           },
       .ulps = 8,
       .large = shape.numel() > 1000});
}

}  // namespace

void add_optim_samples(Samples& samples) {
  for (const Shape& shape : kShapes) {
    for (const Sgd& s :
         {Sgd{0, 0, 0, false}, {0.9, 0, 0, false}, {0.9, 0.1, 0.01, false}, {0.9, 0, 0.01, true}, {0, 0, 0.01, false}})
      add_sgd(samples, s, shape);
    for (const Adam& a : {Adam{0.9, 0.999, 1e-8, 0, false},
                          {0.9, 0.999, 1e-8, 0.01, true},
                          {0.8, 0.99, 1e-6, 0.01, false},
                          {0.9, 0.999, 1e-8, 0.01, true, float64}})
      add_adam(samples, a, shape);
  }
}

}  // namespace tandem::samples

// Programs as C++.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "fuzz/program.h"

namespace tandem::fuzz {

using detail::str;

namespace {

std::string name(int number) { return str("t", number); }
std::string name(DType dtype) { return str("td::", dtype == bool_ ? "bool_" : name_of(dtype)); }

std::string literal(double x) {
  if (std::isnan(x)) return "NAN";
  if (std::isinf(x)) return x < 0 ? "-INFINITY" : "INFINITY";
  char buffer[40];
  const std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, x).ptr);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}
template <class List, class F> std::string joined(const List& list, F&& f) {
  std::string text;
  for (const auto& each : list) text += (text.empty() ? "" : ", ") + std::string(f(each));
  return text;
}
std::string literal(int64_t number, bool changes) {
  if (!changes || number == 0 || number % kChanging) return std::to_string(number);
  return number == kChanging ? "extent" : str(number / kChanging, " * extent");
}
std::string literal(const Shape& shape, bool changes = false) {
  return "td::Shape{" + joined(shape, [&](int64_t extent) { return literal(extent, changes); }) + "}";
}
std::string literal(const AttributeValue& value, bool changes) {
  if (const auto* i = std::get_if<int64_t>(&value)) return "int64_t{" + literal(*i, changes) + "}";
  if (const auto* d = std::get_if<double>(&value)) return literal(*d);
  if (const auto* shape = std::get_if<Shape>(&value)) return literal(*shape, changes);
  if (const auto* dtype = std::get_if<DType>(&value)) return name(*dtype);
  return "std::string(" + to_string(value) + ")";
}

std::string tensor(const Program& program, size_t input, int call) {
  const Input& made = program.inputs[input];
  return "td::tensor(std::vector<double>{" +
         joined(values_of(program, input, call), [](double x) { return literal(x); }) +
         "}, {.dtype = " + name(made.dtype) + "}).reshape(" + literal(shape_of(program, input, call)) + ").clone()";
}

/// What Machine::results_of() does.
std::string line(const Program& program, const Statement& statement) {
  std::vector<std::string> x;
  for (const int operand : statement.operands) x.push_back(name(operand));
  const std::string wide = name(program.wide);
  const auto result = [&](size_t i) {
    return i < statement.results.size() ? name(statement.results[i]) : str("unused", i);
  };
  const std::string make = "td::Tensor " + result(0) + " = ";
  const auto within = [&](const std::string& expression) {
    if (statement.name.empty()) return expression;
    return "td::find_op(\"" + statement.name + "\")(td::Tensors{" + expression + "}, {})[0]";
  };
  const std::string weighted = x.empty() ? "" : "td::sum(" + x[0] + ".to(" + wide + ") * 0.5)";
  switch (statement.action) {
    case Action::op: {
      const std::string call =
          "td::find_op(\"" + statement.name + "\")(td::Tensors{" +
          joined(x, [](const std::string& each) { return each; }) + "}, {" +
          joined(statement.attributes,
                 [&](const Attribute& each) {
                   return "{\"" + std::string(each.name) + "\", " + literal(each.value, !program.extents.empty()) + "}";
                 }) +
          "})";
      if (statement.results.size() == 1) return make + call + "[0];";
      if (statement.results.empty()) return call + ";";
      std::string text = "const td::Tensors of" + result(0) + " = " + call + ";";
      for (size_t i = 0; i < statement.results.size(); ++i)
        text += str(" td::Tensor ", result(i), " = of", result(0), "[", i, "];");
      return text;
    }
    case Action::draw:
      if (statement.name == "dropout") return make + "td::dropout(" + x[0] + ", 0.5);";
      if (statement.name == "randint") return make + "td::randint(-2, 3, " + x[0] + ".shape());";
      if (statement.name == "bernoulli") return make + "td::bernoulli(0.5, " + x[0] + ".shape());";
      return make + "td::" + statement.name + "(" + x[0] + ".shape()).to(" + wide + ");";
    case Action::constant: {
      const std::string value = literal(constant_of(statement));
      return make + "td::find_op(\"" + statement.name + "\")(" +
             (statement.choice % 2 ? value + ", " + x[0] : x[0] + ", " + value) + ");";
    }
    case Action::number: {
      const std::string factor = statement.choice ? "(static_cast<double>(" + x[0] + ".numel()) / 8)" : "number";
      return make + x[0] + " * " + factor + " + " + factor + ";";
    }
    case Action::detach: return make + x[0] + ".detach();";
    case Action::assign: return "{ td::NoGrad no_grad; " + x[0] + ".assign(" + x[1] + "); }";
    case Action::add: return "{ td::NoGrad no_grad; " + x[0] + " += " + x[1] + "; }";
    case Action::scale: return "{ td::NoGrad no_grad; " + x[0] + " *= 0.5; }";
    case Action::backward: return weighted + ".backward({.retain_graph = true});";
    case Action::gradient:
      return make + "td::grad_of(" + weighted + ", {" + x[1] +
             "}, {.retain_graph = true, .create_graph = " + (statement.choice ? "true" : "false") +
             ", .allow_unused = true})[0]; if (!" + result(0) + ".defined()) " + result(0) + " = td::zeros_like(" +
             x[1] + ");";
    case Action::read_gradient:
      return make + x[0] + ".grad().defined() ? " + x[0] + ".grad() * 2 : td::zeros_like(" + x[0] + ");";
    case Action::scale_gradient:
      return "{ td::NoGrad no_grad; td::Tensor gradient = " + x[0] +
             ".grad(); if (gradient.defined()) gradient *= 0.5; }";
    case Action::clear_gradient: return x[0] + ".set_grad({});";
    case Action::optimise:
      if (program.optimiser.empty()) return ";";
      return "{ bool any = false; for (const td::Tensor& leaf : optimizer.parameters()) any = any || "
             "leaf.grad().defined(); if (any) optimizer.step(); }";
    case Action::branch:
      return make + "td::cond(td::sum(" + x[0] + ".to(" + wide + ")).detach() > 0, [&] { " +
             (x.size() > 3 ? "{ td::NoGrad no_grad; " + x[3] + ".assign(" + x[3] + " * 0.5); } " : "") + "return " +
             within(x[1] + " * " + x[2] + " + 1") + "; }, [&] { return " + within("sin(" + x[1] + ") - " + x[2]) +
             "; });";
    case Action::loop:
      return "td::Tensor at" + result(0) + " = " + x[0] + ".detach(), most" + result(0) + " = abs(td::sum(" + x[1] +
             ".detach().to(" + wide + "))) % 4; auto [" + result(1) + ", copy" + result(0) +
             "] = td::while_loop([&](const td::Tensor& turn, const td::Tensor&) { return turn < most" + result(0) +
             "; }, [&](const td::Tensor& turn, const td::Tensor& now) { return std::tuple{turn + 1, " +
             within("now * 0.5 + at" + result(0)) + "}; }, td::zeros({}), at" + result(0) + "); td::Tensor " +
             result(0) + " = copy" + result(0) + ".clone();";
    case Action::scan:
      return "auto [" + result(0) + ", " + result(1) +
             "] = td::scan([&](const td::Tensor& h, const td::Tensor& each) { td::Tensor next = " +
             within("tanh(h * 0.5 + each + " + (x.size() > 1 ? x[1] : "each") + ")") +
             "; return std::pair{next, next * each}; }, td::zeros_like(" + x[0] + ".select(0, 0)), " + x[0] +
             ", {.reverse = " + (statement.choice % 2 ? "true" : "false") +
             ", .checkpoint = " + std::to_string(statement.choice / 2) + "});";
  }
  return {};
}

std::string options_of(const Setting& setting) {
  const CompileOptions& options = setting.options;
  std::string text = ".mode = td::Mode::" + std::string(name_of(options.mode));
  if (!options.without.empty())
    text +=
        ", .without = {" + joined(options.without, [](const std::string& each) { return "\"" + each + "\""; }) + "}";
  if (options.verify == Verify::never) text += ", .verify = td::Verify::never";
  return "{" + text + "}";
}

}  // namespace

std::string printed(const Program& program, const Setting& setting, const std::string& setup) {
  std::string text =
      "#include <tandem/tandem.h>\n\n#include <cmath>\n#include <iostream>\n\nnamespace td = tandem;\n\n"
      "td::Tensors run(const td::CompileOptions& options) {\n";
  const auto add = [&](const std::string& each) { text += "  " + each + "\n"; };
  add(str("td::manual_seed(", program.seed, ");"));
  std::string leaves, kept;
  int arguments = 0;
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const std::string input = name(static_cast<int>(i));
    if (program.inputs[i].role == Input::Role::argument) {
      ++arguments;
      continue;
    }
    add("td::Tensor " + input + " = " + tensor(program, i, 0) + ";");
    kept += (kept.empty() ? "" : ", ") + input;
    if (program.inputs[i].role != Input::Role::leaf) continue;
    add(input + ".requires_grad(true);");
    leaves += (leaves.empty() ? "" : ", ") + input;
  }
  for (const Statement& statement : program.outside) add(line(program, statement));
  const bool optimises = !program.optimiser.empty() && !leaves.empty();
  if (optimises) {
    add("td::nn::optim::" + program.optimiser + " optimizer(td::Tensors{" + leaves + "}, {.lr = 0.1" +
        (program.optimiser == "Sgd" ? ", .momentum = 0.9" : "") + "});");
  }
  const bool has_number = std::any_of(program.body.begin(), program.body.end(), [](const Statement& each) {
    return each.action == Action::number && each.choice == 0;
  });
  if (!program.extents.empty()) add(str("int64_t extent = ", kChanging, ";"));
  if (has_number) add("double number = 0.5;");
  add("auto function = td::compile([&](const td::Tensors& arguments) {");
  int argument = 0;
  if (program.casts) add("  const td::Autocast casts(td::bfloat16);");
  if (!arguments) add("  (void)arguments;");
  for (size_t i = 0; i < program.inputs.size(); ++i)
    if (program.inputs[i].role == Input::Role::argument)
      add(str("  td::Tensor ", name(static_cast<int>(i)), " = arguments[", argument++, "];"));
  for (const Statement& statement : program.body)
    if (statement.action != Action::optimise || optimises) add("  " + line(program, statement));
  add("  return td::Tensors{" + joined(program.results, [](int x) { return name(x); }) + "};");
  add("}, options);");
  add(str("td::manual_seed(", program.seed + 1, ");"));
  add("td::Tensors all;");
  add("const auto keep = [&](const td::Tensor& x) { if (x.defined()) all.push_back(x.detach().clone()); };");
  for (int call = 0; call < program.calls; ++call) {
    std::string given;
    for (size_t i = 0; i < program.inputs.size(); ++i)
      if (program.inputs[i].role == Input::Role::argument)
        given += (given.empty() ? "" : ", ") + tensor(program, i, call + 1);
    add("{");
    add("  td::Tensors arguments{" + given + "};");
    int at = 0;
    for (const Input& input : program.inputs) {
      if (input.role != Input::Role::argument) continue;
      if (input.trained) add(str("  arguments[", at, "].requires_grad(true);"));
      ++at;
    }
    if (program.twice && arguments > 1) add("  arguments[1] = arguments[0];");
    if (has_number) add(str("  number = ", literal(0.5 + call), ";"));
    if (!program.extents.empty()) add(str("  extent = ", extent_of(program, call + 1), ";"));
    add("  const td::Tensors results = function(arguments);");
    if (setting.backward_outside) {
      add("  td::Tensor total;");
      add("  for (const td::Tensor& result : results) if (result.requires_grad()) { const td::Tensor sum = "
          "(result.to(td::float64) * 0.5).sum(); total = total.defined() ? total + sum : sum; }");
      add("  if (total.defined()) total.backward();");
    }
    add("  for (const td::Tensor& result : results) keep(result);");
    add("  for (const td::Tensor& argument : arguments) keep(argument), keep(argument.grad());");
    add("  for (const td::Tensor& outside : td::Tensors{" + kept + "}) keep(outside), keep(outside.grad());");
    add("}");
  }
  add("return all;");
  text += "}\n\nint main() {\n";
  if (!setup.empty()) add(setup);
  add("const td::Tensors eager = run({.mode = td::Mode::eager}), graph = run(" + options_of(setting) + ");");
  add("bool same = eager.size() == graph.size();");
  add("for (size_t i = 0; same && i < eager.size(); ++i) {");
  add("  same = td::allclose(eager[i].to(td::float64), graph[i].to(td::float64), {.rtol = 1e-5, .atol = 1e-5, "
      ".equal_nan = true});");
  add("  if (!same) std::cout << \"value \" << i << \" differs:\\n\" << eager[i] << \" eagerly\\n\" << graph[i] << "
      "\"\\n\";");
  add("}");
  add("return same ? 0 : 1;");
  return text + "}\n";
}

}  // namespace tandem::fuzz

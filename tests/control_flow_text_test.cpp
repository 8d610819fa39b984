// Graphs with regions as text: it reads back, and what is wrong in it is an error that says why.
#include "tests/control_flow.h"

#include "graph/ir/region.h"
#include "graph/passes/pipeline.h"
#include "graph/run/program.h"
#include "tests/support.h"

using namespace tandem;

TEST_CASE("control flow: the text of a graph with regions reads back, and runs") {
  const Graph graph = trace(collatz, tensor<int64_t>(27));
  const std::string text = graph.to_string();
  CHECK(contains(text, "while_loop("));
  CHECK(contains(text, "condition=graph {"));
  CHECK(parse_graph(text).to_string() == text);
  verify(parse_graph(text));
}

namespace {

/// A graph with arguments bool[], float32[2], float32[3, 2] and float32[2], and these lines.
std::string with_arguments(const std::string& lines) {
  return "graph {\n  %0: bool[] = argument 0\n  %1: float32[2] = argument 1\n  %2: float32[3, 2] = argument 2\n"
         "  %3: float32[2] = argument 3\n  " +
         lines + "\n  return %9\n}";
}
std::string in_region(const std::string& lines) { return "graph {\n" + lines + "\n}"; }

const std::string kSame = in_region("%0: float32[2] = argument 0\nreturn %0"), kNothing = in_region("return"),
                  kTrue = in_region("%0: bool[] = scalar 1\nreturn %0");

}  // namespace

TEST_CASE("control flow: text with regions that aren't right is a GraphError that says why") {
  const auto refused = [](const std::string& lines, const std::string& reason) {
    const std::string text = with_arguments(lines);
    CAPTURE(text);
    try {
      parse_graph(text);
      FAIL_CHECK("parsed");
    } catch (const GraphError& error) {
      CAPTURE(error.message());
      CHECK(contains(error.message(), "parse_graph: line "));
      CHECK(contains(error.message(), reason));
    } catch (const std::exception& error) { FAIL_CHECK("another error: ", error.what()); }
  };
  const auto cond = [](const std::string& then, const std::string& otherwise, const std::string& operands = "%0, %1") {
    return "%9: float32[2] = cond(" + operands + ") {then=" + then + ", otherwise=" + otherwise + "}";
  };
  refused("%9: float32[2] = cond(%0, %1)", "attribute then is missing");
  refused("%9: float32[2] = cond(%0, %1) {then=" + kSame + "}", "attribute otherwise is missing");
  refused("%9: float32[2] = cond(%0, %1) {body=" + kSame + "}", "cond has no attribute body");
  for (const char* const other : {"3", "1.5", "[2]", "\"graph {}\"", "float32"}) refused(cond(kSame, other), "graph");
  refused(cond("graph {", kSame), "");
  refused(cond(kSame + " more", kSame), "expected");
  refused(cond(kSame, kSame, ""), "its condition is no bool of one element");
  refused(cond(kSame, kSame, "%1, %1"), "its condition is no bool of one element");
  refused(cond(kSame, kSame, "%0"), "its region then reads operand 0 of 0");
  refused(cond(kSame, kSame, "%0, %2"), "its region then takes float32[2] as operand 0, and gets float32[3, 2]");
  refused(cond(kSame, kSame, "%0, %7"), "%7 is not defined");
  refused(cond(kSame, kNothing), "its branches give other results");
  refused(cond(kNothing, kNothing), "cond gives 0 values, not 1");
  refused(cond(kTrue, kTrue), "the type of %9 is bool[]");
  const std::pair<const char*, const char*> regions[] = {
      {"%0: float32[2] = argument 1048575\nreturn %0", "reads operand 1048575 of 1"},
      {"%0: float32[2] = argument 1048576\nreturn %0", "an argument's position is 1048576"},
      {"%0: float32[2] = argument -1\nreturn %0", "an argument's position is -1"},
      {"%0: float64[2] = argument 0\nreturn %0", "takes float64[2] as operand 0"},
      {"%0: float32[2] on cuda = argument 0\nreturn %0", "takes float32[2] on cuda:0 as operand 0"},
      {"%0: float32[2] = argument 0\n%1: float32[2] = argument 0\nreturn %0", "argument 0 is defined twice"},
      {"%0: float32[2] = argument 0\n%0: float32[2] = exp(%0)\nreturn %0", "%0 is defined twice"},
      {"%0: float32[2] = argument 0\n%4: float32[2] = exp(%1)\nreturn %4", "%1 is not defined"},
      {"%0: float32[2] = state\nreturn %0", "its region then reads a state"},
      {"%0: float32[2] = gradient\nreturn %0", "its region then reads a gradient"},
      {"%0: float32[2] = constant {1, 2}\nreturn %0", "its region then reads a constant"},
      {"%0: float32[2] = argument 0\nassign %0 = %0\nreturn %0", "its region then changes what is outside"},
      {"%0: float32[2] = argument 0\ngradient argument 0 = %0\nreturn %0", "its region then changes what is outside"},
      {"%0: float32[2] = argument 0\ndraws 1\nreturn %0", "its region then changes what is outside"},
      {"%0: float32[2] = argument 0\nreturn none", "none is no value here"},
  };
  for (const auto& [lines, reason] : regions) refused(cond(in_region(lines), kSame), reason);
  std::string many = "%9: float32[2]", returned = "%0";
  for (int i = 0; i < 5000; ++i) many += detail::str(", %", 10 + i, ": float32[2]"), returned += ", %0";
  const std::string large = in_region("%0: float32[2] = argument 0\nreturn " + returned);
  refused(many + " = cond(%0, %1) {then=" + large + ", otherwise=" + large + "}", "makes more than the 4096 results");

  const auto loop = [](const std::string& condition, const std::string& body) {
    return "%9: float32[2] = while_loop(%1) {condition=" + condition + ", body=" + body + "}";
  };
  refused(loop(kSame, kSame), "its condition gives no bool of one element");
  refused(loop(kNothing, kSame), "its condition gives no bool of one element");
  refused(loop(in_region("%0: bool[] = scalar 1\nreturn %0, %0"), kSame), "its condition gives no bool of one element");
  refused(loop(kTrue, in_region("%0: float32[2] = argument 0\nreturn %0, %0")), "its body gives 2 results");
  refused(loop(kTrue, kTrue), "its body returns bool[] for float32[2]");
  refused(loop(kTrue, kNothing), "while_loop gives 0 values, not 1");

  const std::string turn = in_region("%0: float32[2] = argument 0\n%1: float32[2] = argument 1\nreturn %0, %1");
  const auto scan = [&](const std::string& operands, const std::string& attributes, const std::string& body) {
    return "%9: float32[2], %8: float32[3, 2] = scan(" + operands + ") {body=" + body + ", " + attributes + "}";
  };
  const std::string most = "9223372036854775807";
  const auto numbers = [](const std::string& carried, const std::string& sequences, const std::string& length) {
    return "carried=" + carried + ", sequences=" + sequences + ", length=" + length + ", reverse=0, keeps=0";
  };
  parse_graph(with_arguments(scan("%1, %2", numbers("1", "1", "3"), turn)));
  refused(scan("%1, %2", "carried=1, sequences=1, length=3, reverse=0", turn), "attribute keeps is missing");
  refused(scan("%1, %2", numbers(turn, "1", "3"), turn), "expected an integer");
  for (const std::string& carried : {std::string("-1"), "-" + most})
    refused(scan("%1, %2", numbers(carried, "1", "3"), turn), "carried is " + carried + ", need at least 0");
  for (const std::string& carried : {std::string("3"), most})
    refused(scan("%1, %2", numbers(carried, "1", "3"), turn), "carried is " + carried + ", need at most 2");
  refused(scan("%1, %2", numbers("2", "1", "3"), turn), "sequences is 1, need at most 0");
  for (const std::string sequences : {"-1", "0"})
    refused(scan("%1, %2", numbers("1", sequences, "3"), turn), "sequences is " + sequences + ", need at least 1");
  refused(scan("%1, %2", numbers("1", most, "3"), turn), "sequences is " + most + ", need at most 1");
  refused(scan("%1, %2", numbers("1", "1", "0"), turn), "length is 0, need at least 1");
  for (const std::string& length : {std::string("2"), std::string("4"), most})
    refused(scan("%1, %2", numbers("1", "1", length), turn), "a sequence [3, 2] has not " + length + " elements");
  refused(scan("%1, %0", numbers("1", "1", "3"), turn), "a sequence [] has not 3 elements");
  refused(scan("", numbers("0", "1", "3"), turn), "sequences is 1, need at most 0");
  refused(scan("%1, %2", numbers("1", "1", "3"), kNothing), "its body gives 0 results");
  refused(scan("%1, %2", numbers("1", "1", "3"), kTrue), "its body returns bool[] for float32[2]");
  refused(scan("%1, %2", numbers("1", "1", "3"), kSame), "scan gives 1 values, not 2");
  refused("%4: float32[1, 1, 1, 1, 1, 1, 1, 1] = argument 4\n" +
              scan("%2, %4", numbers("0", "1", "3"),
                   in_region("%0: float32[1, 1, 1, 1, 1, 1, 1, 1] = argument 1\nreturn %0, %0")),
          "at most 8 dimensions");
  refused("%4: float32[1073741824, 0] = argument 4\n%5: float32[1073741824] = argument 5\n" +
              scan("%4, %5", numbers("0", "1", "1073741824"),
                   in_region("%0: float32[1073741824] = argument 1\nreturn %0, %0")),
          "elements");

  for (const int depth : {33, 100, 100000}) {
    std::string deep = with_arguments("");
    deep.resize(deep.find("\n  return"));
    for (int i = 0; i < depth; ++i) deep += "\n%9: bool[] = cond(%0) {then=graph { %0: bool[] = scalar 1";
    CHECK_THROWS_WITH_AS(parse_graph(deep), doctest::Contains("regions within regions, more than 32 deep"), GraphError);
  }
}

TEST_CASE("control flow: text with regions that is unlike a trace's, and right, prints as it was and runs") {
  const Tensors arguments{tensor(true), tensor({1.f, 2.f}), tensor({{1.f, 2.f}, {3.f, 4.f}, {5.f, 6.f}}),
                          tensor({7.f, 8.f})};
  const auto gives = [&](const std::string& lines, const std::vector<float>& wanted) {
    const Graph graph = parse_graph(with_arguments(lines));
    CAPTURE(graph.to_string());
    verify(graph);
    CHECK(parse_graph(graph.to_string()).to_string() == graph.to_string());
    const Graph optimised = graph::optimise(graph, {"emit"}, Where::current()).graph;
    for (const Graph& each : {graph, optimised})
      for (const bool planned : {false, true}) {
        const auto program = graph::Program::build(each, {.memory_plan = planned}, Where::current(), nullptr);
        for (int again = 0; again < 2; ++again)
          CHECK(program->run(arguments)[0].to(float32).to_vector<float>() == wanted);
      }
  };
  const auto taken = [](const std::string& type, const std::string& operand = "%1") {
    const std::string region = in_region("%0: " + type + " = argument 0\nreturn %0");
    return "%9: float32[2] = cond(%0, " + operand + ") {then=" + region + ", otherwise=" + region + "}";
  };
  gives(taken("float32[2]"), {1, 2});
  gives(taken("float32[2]", "%1, %1"), {1, 2});
  gives(taken("float32[2] strides [16777216]"), {1, 2});  // with gaps, where it has none
  gives("%4: float32[] = scalar 5\n%9: float32[] = cond(%0) {then=" + in_region("%0: float32[] = scalar 3\nreturn %0") +
            ", otherwise=" + in_region("%7: float32[] = scalar run-time\nreturn %7") + "}",
        {3});
  const Graph endless = parse_graph(with_arguments(taken("float32[2] strides [576460752303423487]")));
  set_memory_limit(memory_stats().reserved + (1 << 20));
  CHECK_THROWS_AS(graph::Program::build(endless, {}, Where::current(), nullptr)->run(arguments), OutOfMemoryError);
  set_memory_limit(0);
  const std::string both = "%0: float32[2] = argument 0\n%1: float32[2] = argument 1\n";
  gives("%9: float32[2], %8: float32[2] = while_loop(%1, %3) {condition=" +
            in_region(both + "%2: float32[] = sum(%0) {dims=[0], keepdim=0}\n%3: float32[] = scalar 40\n"
                             "%4: bool[] = less(%2, %3)\nreturn %4") +
            ", body=" + in_region(both + "%2: float32[2] = add(%0, %1)\nreturn %1, %2") + "}",
        {23, 28});  // 1 7 8 15 23, 2 8 10 18 28
  const std::string scan = in_region(
      "%1: float32[2] = argument 1\n%0: float32[2] = argument 0\n"
      "%5: float32[2] = add(%1, %0)\nreturn %5, %1, %5");
  for (const char* const flags : {"reverse=0, keeps=0", "reverse=0, keeps=-3"})
    gives(detail::str("%9: float32[2], %8: float32[3, 2], %7: float32[3, 2]",
                      contains(flags, "-3") ? ", %6: float32[3, 2]" : "", " = scan(%3, %2) {body=", scan,
                      ", carried=1, sequences=1, length=3, ", flags, "}"),
          {16, 20});
  gives("%9: float32[3, 2], %8: float32[3, 2], %7: float32[3, 2] = scan(%2, %3) {body=" +
            in_region("%1: float32[2] = argument 1\n%0: float32[2] = argument 0\n"
                      "%5: float32[2] = add(%1, %0)\nreturn %5, %1, %5") +
            ", carried=0, sequences=1, length=3, reverse=7, keeps=1}",
        {8, 10, 10, 12, 12, 14});
  gives("%4: float32[2, 3] strides [1, 2] = permute(%2) {dims=[1, 0]}\n%9: float32[2] = scan(%4) {body=" +
            in_region("%0: float32[3] = argument 0\n%1: float32[] = sum(%0) {dims=[0], keepdim=0}\nreturn %1") +
            ", carried=0, sequences=1, length=2, reverse=1, keeps=0}",
        {9, 12});
  std::string deep = "%0: bool[] = argument 0\n%1: float32[2] = argument 1\n%2: float32[2] = exp(%1)\nreturn %2";
  for (int i = 0; i < 31; ++i)
    deep = "%0: bool[] = argument 0\n%1: float32[2] = argument 1\n%2: float32[2] = cond(%0, %0, %1) {then=" +
           in_region(deep) + ", otherwise=" + in_region("%0: float32[2] = argument 1\nreturn %0") + "}\nreturn %2";
  gives("%4: float32[2] = neg(%1)\n%9: float32[2] = cond(%0, %0, %4) {then=" + in_region(deep) +
            ", otherwise=" + in_region("%0: float32[2] = argument 1\nreturn %0") + "}",
        exp(-arguments[1]).to_vector<float>());
}

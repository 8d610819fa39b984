// The report as one page that needs nothing else: pictures, table, explanation, graphs and generated source.
#include <cmath>
#include <fstream>

#include "lab/format.h"
#include "lab/svg.h"

namespace tandem {

namespace {

using namespace lab;

// Each rung has its colour and its dashes, so that neither alone carries the meaning.
constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --panel: #f6f8fa; --rule: #d0d7de;
        --c0: #6e7781; --c1: #0969da; --c2: #b35900; --c3: #1a7f37; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --paper: #0d1117; --panel: #161b22; --rule: #30363d;
          --c0: #8b949e; --c1: #58a6ff; --c2: #e3963e; --c3: #3fb950; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 66rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 0 0 .5rem; }
.soft { color: var(--soft); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }
figure { margin: 0; padding: 1rem; background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; }
svg { width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif; fill: var(--ink); } svg .tick { fill: var(--soft); }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.line { fill: none; stroke-width: 2.5; } .l0 { stroke: var(--c0); } .l1 { stroke: var(--c1); stroke-dasharray: 8 4; }
.l2 { stroke: var(--c2); stroke-dasharray: 2 4; } .l3 { stroke: var(--c3); stroke-dasharray: 12 3 2 3; }
.grid { stroke: var(--rule); stroke-width: .7; } .axis, .whisker { stroke: var(--ink); stroke-width: 1.2; }
.mark { fill: none; stroke: var(--ink); stroke-width: 2; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
details { margin: .5rem 0; border: 1px solid var(--rule); border-radius: 6px; padding: .4rem .8rem; }
summary { cursor: pointer; } pre { overflow: auto; max-height: 40rem; font: 12px/1.45 ui-monospace, monospace; background: var(--panel); padding: .8rem; }
)";

void figure(std::ostream& out, const char* title, const std::string& picture, const std::string& caption) {
  out << "<figure><h3>" << title << "</h3>\n"
      << picture << "<figcaption class=\"soft\">" << caption << "</figcaption></figure>\n";
}

void folded(std::ostream& out, const std::string& title, const std::string& text) {
  if (!text.empty())
    out << "<details><summary>" << escaped(title) << "</summary><pre>" << escaped(text) << "</pre></details>\n";
}

void table(std::ostream& out, const Comparison& comparison) {
  out << "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"All numbers\"><table><thead><tr>";
  for (const char* head :
       {"", "step", "quartiles", "ratio to eager (95%)", "kernels", "generated", "trace", "passes", "emit", "compiler",
        "once", "cached", "break-even step", "peak MiB", "arena / bound", "error", "error of gradients"})
    out << "<th scope=\"col\">" << head << "</th>";
  out << "</tr></thead><tbody>\n";
  for (const Rung& rung : comparison.rungs) {
    const bool eager = &rung == &comparison.rungs.front();
    const auto cell = [&](const std::string& words) { out << "<td>" << escaped(words) << "</td>"; };
    const auto graph_cell = [&](const std::string& words) { cell(eager ? "-" : words); };
    out << "<tr><th scope=\"row\">" << escaped(rung.name) << "</th>";
    cell(duration(rung.step_seconds.median));
    cell(duration(rung.step_seconds.lower_quartile) + " - " + duration(rung.step_seconds.upper_quartile));
    cell(eager ? "1" : ratio_text(rung.to_eager));
    cell(std::to_string(rung.kernels));
    graph_cell(std::to_string(rung.fused_kernels));
    graph_cell(duration(rung.cold.trace));
    graph_cell(duration(rung.cold.passes));
    graph_cell(duration(rung.cold.emit));
    graph_cell(duration(rung.cold.compiler));
    graph_cell(duration(rung.cold.total()));
    graph_cell(duration(rung.warm.total()));
    graph_cell(step_count(comparison.break_even_steps(rung.name)));
    cell(mebibytes(rung.peak_bytes));
    graph_cell(rung.lower_bound_bytes > 0 && rung.arena_bytes > 0
                   ? format("%.2f", static_cast<double>(rung.arena_bytes) / static_cast<double>(rung.lower_bound_bytes))
                   : "-");
    cell(error_text(rung.error));
    cell(error_text(rung.gradient_error));
    out << "</tr>\n";
  }
  out << "</tbody></table></div>\n";
}

void section(std::ostream& out, const Comparison& comparison) {
  out << "<section>\n<h2>" << escaped(comparison.name) << "(";
  for (size_t i = 0; i < comparison.arguments.size(); ++i) out << (i ? ", " : "") << escaped(comparison.arguments[i]);
  out << ")</h2>\n<p>" << escaped(verdict(comparison)) << "</p>\n<p>" << escaped(agreement(comparison)) << "</p>\n";
  out << "<p class=\"soft\">" << escaped(comparison.machine) << "; " << comparison.steps
      << " steps of each, in turn; state " << mebibytes(comparison.state_bytes)
      << " MiB.</p>\n<div class=\"pictures\">\n";
  figure(out, "Time of a step", step_time_chart(comparison), "Median, with the quartiles.");
  figure(out, "Time since the start", break_even_chart(comparison),
         "What is paid once, then the median step over and over.");
  figure(out, "Peak memory of a step", memory_chart(comparison), "Beyond the state and the arguments.");
  figure(out, "Result of each step", loss_chart(comparison),
         "From the same start, on the same arguments. Lines that agree lie on one another.");
  out << "</div>\n<h3>All numbers</h3>\n";
  table(out, comparison);
  out << "<p class=\"soft\">once: with an empty cache of kernels; cached: with the kernels found on disk. error: the "
         "largest difference from "
         "the same step in float64, over the largest number there.</p>\n<dl>";
  for (const Rung& rung : comparison.rungs) {
    out << "<dt><b>" << escaped(rung.name) << "</b></dt><dd>" << escaped(rung.meaning) << "; " << escaped(rung.tier);
    if (!rung.note.empty()) out << "; " << escaped(rung.note);
    out << "</dd>\n";
  }
  out << "</dl>\n";
  if (!comparison.float64_note.empty())
    out << "<p>No reference in float64: " << escaped(comparison.float64_note) << "</p>\n";
  for (const Rung& rung : comparison.rungs) folded(out, rung.name + ": what was done and why", rung.explain);
  const Rung& compiled = comparison.rung("compiled");
  for (const StageText& stage : compiled.stages)
    folded(out,
           (stage.name == "traced" ? "the graph as traced, " : "the graph after " + stage.name + ", ") +
               std::to_string(stage.nodes) + " nodes",
           stage.text);
  folded(out, "generated source", compiled.source);
  out << "</section>\n";
}

std::string page(std::span<const Comparison> comparisons) {
  tandem::detail::TextStream out;
  out << "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Tandem: ";
  for (const Comparison& each : comparisons) out << (&each == comparisons.data() ? "" : ", ") << escaped(each.name);
  out << "</title>\n<style>" << kStyle
      << "</style>\n</head>\n<body>\n<main>\n<h1>Eager, replayed and compiled, side by side</h1>\n";
  for (const Comparison& each : comparisons) section(out, each);
  out << "</main>\n</body>\n</html>\n";
  return out.str();
}

void write(const std::string& path, const std::string& text, Where where) {
  std::ofstream file(path);
  file << text;
  if (!file.flush())
    throw FileError("write_html: can't write " + path + "; check that its directory exists and has room", where);
}

}  // namespace

std::string Comparison::to_html() const { return page({this, 1}); }

void Comparison::write_html(const std::string& path, Where where) const { write(path, page({this, 1}), where); }

void write_html(const std::string& path, std::span<const Comparison> comparisons, Where where) {
  write(path, page(comparisons), where);
}

}  // namespace tandem

// The report as JSON: all that was measured, in seconds and bytes.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lab/compare.h"

namespace tandem {

namespace {

using Json = nlohmann::ordered_json;

/// JSON has no infinity and no NaN: they are null.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json to_object(const OneOffCost& cost) {
  return {{"trace", cost.trace},
          {"passes", cost.passes},
          {"emit", cost.emit},
          {"compiler", cost.compiler},
          {"total", cost.total()}};
}

Json to_object(const Rung& rung) {
  Json losses = Json::array();
  for (const double loss : rung.losses) losses.push_back(number(loss));
  Json stages = Json::array();
  for (const StageText& stage : rung.stages) stages.push_back({{"pass", stage.name}, {"nodes", stage.nodes}});
  const Spread& step = rung.step_seconds;
  return {{"name", rung.name},
          {"meaning", rung.meaning},
          {"step_seconds",
           {{"median", number(step.median)},
            {"lower_quartile", number(step.lower_quartile)},
            {"upper_quartile", number(step.upper_quartile)},
            {"least", number(step.least)},
            {"count", step.count}}},
          {"ratio_to_eager",
           {{"value", number(rung.to_eager.value)},
            {"low", number(rung.to_eager.low)},
            {"high", number(rung.to_eager.high)}}},
          {"kernels", rung.kernels},
          {"fused_kernels", rung.fused_kernels},
          {"one_off_seconds", {{"cold", to_object(rung.cold)}, {"warm", to_object(rung.warm)}}},
          {"peak_bytes", rung.peak_bytes},
          {"arena_bytes", rung.arena_bytes},
          {"arena_lower_bound_bytes", rung.lower_bound_bytes},
          {"error_against_float64", number(rung.error)},
          {"gradient_error_against_float64", number(rung.gradient_error)},
          {"losses", losses},
          {"first_difference_from_eager", rung.first_difference < 0 ? Json(nullptr) : Json(rung.first_difference)},
          {"largest_difference_from_eager", number(rung.largest_difference)},
          {"tier", rung.tier},
          {"note", rung.note},
          {"stages", stages}};
}

Json to_object(const Comparison& comparison) {
  Json rungs = Json::array(), break_even = Json::object();
  for (const Rung& rung : comparison.rungs) {
    rungs.push_back(to_object(rung));
    if (&rung != &comparison.rungs.front())
      break_even[rung.name] = {{"cold", number(comparison.break_even_steps(rung.name))},
                               {"warm", number(comparison.warm_break_even_steps(rung.name))}};
  }
  return {{"name", comparison.name},
          {"machine", comparison.machine},
          {"arguments", comparison.arguments},
          {"steps", comparison.steps},
          {"state_bytes", comparison.state_bytes},
          {"break_even_steps", break_even},
          {"float64_note", comparison.float64_note},
          {"rungs", rungs}};
}

void write(const std::string& path, const Json& json, Where where) {
  std::ofstream file(path);
  file << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
  if (!file.flush())
    throw FileError("write_json: can't write " + path + "; check that its directory exists and has room", where);
}

}  // namespace

std::string Comparison::to_json() const { return to_object(*this).dump(2, ' ', false, Json::error_handler_t::replace); }

void Comparison::write_json(const std::string& path, Where where) const { write(path, to_object(*this), where); }

void write_json(const std::string& path, std::span<const Comparison> comparisons, Where where) {
  Json all = Json::array();
  for (const Comparison& each : comparisons) all.push_back(to_object(each));
  write(path, all, where);
}

}  // namespace tandem

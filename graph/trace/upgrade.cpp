// Compiling beside the calls.
#include "graph/trace/upgrade.h"

#include <chrono>

#include "core/error.h"
#include "graph/native/background.h"
#include "graph/run/program.h"

namespace tandem::graph {

struct Upgrade::State {
  explicit State(std::shared_ptr<Result> result)
      : result(std::move(result)), job([shared = this->result] { compile(*shared); }) {}

  static void compile(Result& result) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      result.compiled = true;
      for (Program* each : {result.program.get(), result.gradient.get()})
        result.compiled = result.compiled && (!each || each->compile(&result.failure));
    } catch (const std::exception& error) {
      result.compiled = false;
      result.refused = true;
      const auto* const refusal = dynamic_cast<const CompileError*>(&error);
      result.failure = refusal ? refusal->message() : error.what();
    }
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  std::shared_ptr<Result> result;  ///< the job's, until it is done
  BackgroundJob job;
};

Upgrade::Upgrade(std::shared_ptr<Program> program, std::shared_ptr<Program> gradient, int64_t lowered)
    : state_(std::make_unique<State>(
          std::make_shared<Result>(Result{.program = std::move(program), .gradient = std::move(gradient)}))),
      lowered_(lowered) {}
Upgrade::~Upgrade() = default;

bool Upgrade::settled() const { return state_->job.done() || state_->job.lost(); }
bool Upgrade::lost() const { return state_->job.lost(); }
void Upgrade::wait() const { state_->job.wait(); }
const Upgrade::Result& Upgrade::result() const { return *state_->result; }
void Upgrade::programs(const Program*& program, const Program*& gradient) const {
  if (state_->result->program) program = state_->result->program.get();
  if (state_->result->gradient) gradient = state_->result->gradient.get();
}

}  // namespace tandem::graph

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
      for (Program* each : {result.program.get(), result.gradient.get()})
        if (each && !each->compile(&result.failure) && result.failure.empty())
          result.failure = "nothing compiles it here";
    } catch (const CompileError& error) {
      result.failure = error.message();
      result.refused = true;
    } catch (const std::exception& error) {
      result.failure = error.what();
      result.refused = true;
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

// What fails for want of memory, disk, descriptors or processes fails with a typed error, leaves old files whole and no others,
// holds on to nothing, and the next call gives what it would have given: for the n-th such failure, for every n.
//
//   TANDEM_TEST_EVERY=1  all n; else all small ones, and fewer and fewer of the others
//   TANDEM_TEST_FROM=n   from there on
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>

#include "core/random.h"
#include "core/warning.h"
#include "faults/inject.h"
#include "files.h"
#include "graph/native/system_compiler.h"
#include "kernels/cpu/support/gemm.h"
#include "samples/case.h"
#include "support.h"
#include "tandem.h"

using namespace tandem;
using faults::Call, faults::Fault, faults::Injection;
using file_tests::TemporaryFolder, file_tests::Variable;
namespace fs = std::filesystem;
namespace nn = tandem::nn;

namespace {

/// oneDNN's own code doesn't survive a failed allocation: our kernels are under test.
const bool own_kernels = (set_matmul_library(MatmulLibrary::own), true);

using Bits = std::vector<std::string>;  // the elements of some tensors
using Files = std::map<std::string, std::string>;

std::string bits_of(const Tensor& tensor) {
  const Tensor rows = tensor.detach().contiguous();
  return {static_cast<const char*>(rows.impl()->data), static_cast<size_t>(rows.numel() * size_of(rows.dtype()))};
}
Bits bits_of(const Tensors& tensors) {
  Bits bits;
  for (const Tensor& tensor : tensors) bits.push_back(bits_of(tensor));
  return bits;
}

/// All that lies in a folder, with what it holds.
Files files_in(const std::string& folder) {
  Files files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    const file_tests::Bytes bytes = entry.is_regular_file() ? file_tests::bytes_of(entry.path()) : file_tests::Bytes();
    files[fs::relative(entry.path(), folder).string()] = std::string(bytes.begin(), bytes.end());
  }
  return files;
}
bool has_temporary_files(const std::string& folder) {
  for (const auto& [name, bytes] : files_in(folder))
    if (contains(name, ".tmp-")) return true;
  return false;
}

/// As CHECK, which would take a fault's error for its own.
void expect(bool condition) {
  if (!condition) throw std::logic_error("it gave something else");
}

int64_t next_after(int64_t n) {
  const char* const every = std::getenv("TANDEM_TEST_EVERY");
  return n + 1 + (every && std::atoi(every) == 1 ? 0 : n / 40);
}

/// Whether f ended well. Errors of the engine and std::bad_alloc may be thrown, and nothing else; `error` says which.
bool ends_well(const std::function<void()>& f, std::string* error = nullptr) {
  std::string text;
  try {
    f();
    return true;
  } catch (const Error& e) { text = e.what(); } catch (const std::bad_alloc& e) {
    text = e.what();
  } catch (const std::exception& e) { FAIL_CHECK("neither an Error nor bad_alloc: " << e.what()); }
  if (error) *error = text;
  return false;
}

/// Calls f(inject) with one fault more at each time, until it meets none. f calls `inject`, which runs what it is given with
/// the fault, and says whether that ended well.
using Inject = std::function<bool(const std::function<void()>&)>;
int64_t for_each_fault(Call call, Fault fault, const std::function<void(const Inject&)>& f) {
  int64_t count = 0;
  const char* const from = std::getenv("TANDEM_TEST_FROM");
  for (int64_t n = from ? std::atoll(from) : 0;; n = next_after(n), ++count) {
    CAPTURE(std::string(faults::name_of(call)));
    CAPTURE(n);
    bool met = false;
    f([&](const std::function<void()>& run) {
      std::string error;
      const bool well = ends_well(
          [&] {
            struct Armed {  // until what is thrown is looked at
              Injection injection;
              bool& met;
              ~Armed() { met |= injection.end(); }
            } const armed{{call, n, fault}, met};
            run();
          },
          &error);
      if (!well && !met) FAIL_CHECK("an error without a fault: " << error);
      return well;
    });
    if (!met) return count;
  }
}

struct Net {
  nn::Conv2d conv{1, 4, 3};
  nn::BatchNorm2d batch{4};
  nn::Linear hidden{36, 16};
  nn::LayerNorm norm{16};
  nn::Dropout dropout{0.25};
  nn::Linear output{16, 5};
  Tensor operator()(const Tensor& x) const {
    const Tensor h = relu(batch(conv(x))).flatten(1);
    return output(dropout(norm(gelu(hidden(h)))));
  }
};

/// A small training: three steps, then the model and the optimiser are saved.
struct Training {
  explicit Training(Mode mode) {
    manual_seed(7);
    net = std::make_unique<Net>();
    optimizer = std::make_unique<nn::optim::AdamW>(nn::parameters(*net), nn::optim::AdamWOptions{.lr = 0.01});
    for (int i = 0; i < 3; ++i) {
      xs.push_back(randn({6, 1, 5, 5}));
      ys.push_back(randint(0, 5, {6}));
    }
    const auto f = [this](const Tensor& x, const Tensor& y) {
      optimizer->zero_grad();
      const Tensor loss = cross_entropy((*net)(x), y);
      loss.backward();
      nn::clip_grad_norm(nn::parameters(*net), 1.0);
      optimizer->step();
      return loss.detach();
    };
    const auto compiled = std::make_shared<decltype(compile(f, CompileOptions()))>(compile(f, {.mode = mode}));
    step = [compiled](const Tensor& x, const Tensor& y) { return (*compiled)(x, y); };
    for (const Tensor& each : state()) start.push_back(each.clone());
  }

  Tensors state() const {
    Tensors all = nn::parameters(*net);
    for (const nn::NamedTensor& named : nn::named_buffers(*net)) all.push_back(named.tensor);
    for (const nn::NamedTensor& named : optimizer->state()) all.push_back(named.tensor);
    return all;
  }
  /// As it was at first.
  void restore() {
    NoGrad guard;
    const Tensors now = state();
    for (size_t i = 0; i < now.size(); ++i) Tensor(now[i]).assign(start[i]);
    optimizer->zero_grad();
  }
  void run(const std::string& folder = "") {
    manual_seed(9);
    losses.clear();
    for (size_t i = 0; i < xs.size(); ++i) losses.push_back(step(xs[i], ys[i]));
    if (folder.empty()) return;
    nn::save(*net, folder + "/model");
    io::save_safetensors(folder + "/optimizer", optimizer->state());
  }
  Bits bits() const {
    Tensors all = state();
    all.insert(all.end(), losses.begin(), losses.end());
    return bits_of(all);
  }

  std::unique_ptr<Net> net;
  std::unique_ptr<nn::optim::AdamW> optimizer;
  Tensors xs, ys, losses, start;
  std::function<Tensor(const Tensor&, const Tensor&)> step;
};

/// The training with each fault of that kind. What a fault ended starts again from the state of before.
int64_t train_with_faults(Mode mode, Call call, Fault fault, bool with_files) {
  const TemporaryFolder right_folder;
  Bits right;
  {
    Training training(mode);
    training.run(right_folder.string());
    right = training.bits();
  }
  const Files right_files = files_in(right_folder.string());
  return for_each_fault(call, fault, [&](const Inject& inject) {
    const TemporaryFolder folder;
    Files old;
    for (const auto& [name, bytes] : right_files) {
      old[name] = "old " + name;
      std::ofstream(folder / name) << old[name];
    }
    graph::testing::forget_loaded_libraries();
    const int64_t before = memory_stats().in_use;
    {
      Training training(mode);
      const bool well = inject([&] { training.run(with_files ? folder.string() : ""); });
      CHECK(default_generator().draws() <= 100);
      for (const auto& [name, bytes] : files_in(folder.string())) {
        CHECK(right_files.contains(name));
        CHECK((bytes == right_files.at(name) || bytes == old[name]));
        if (well && with_files) CHECK(bytes == right_files.at(name));
      }
      if (well) CHECK(training.bits() == right);
      CHECK(grad_enabled());
      for (int again = 0; again < 2; ++again) {
        training.restore();
        REQUIRE(ends_well([&] { training.run(); }));
        CHECK(training.bits() == right);
      }
    }
    CHECK(memory_stats().in_use == before);
  });
}

}  // namespace

TEST_CASE("faults: a training loop with saves goes on rightly after any allocation has failed") {
  for (const Mode mode : kModes)
    for (const Fault fault : {Fault::fails, Fault::all_fail}) {
      CAPTURE(name_of(mode));
      const int64_t count = train_with_faults(mode, Call::allocate, fault, true);
      CHECK(count > 100);
      MESSAGE(name_of(mode) << ": " << count << " allocations failed");
    }
}

TEST_CASE("faults: a save that fails leaves the old file, and no other") {
  for (const Call call : {Call::open, Call::write, Call::fsync, Call::rename})
    for (const Fault fault : {Fault::fails, Fault::all_fail, Fault::interrupted}) {
      const int64_t count = train_with_faults(Mode::eager, call, fault, true);
      CHECK(count > 0);
      MESSAGE(std::string(faults::name_of(call)) << ": " << count << " calls failed");
    }
}

TEST_CASE("faults: a load that fails leaves the model as it was") {
  const TemporaryFolder folder;
  manual_seed(1);
  const Net saved;
  nn::save(saved, folder / "model");
  for (const Call call : {Call::open, Call::read, Call::allocate})
    for (const Fault fault : {Fault::fails, Fault::all_fail, Fault::interrupted}) {
      const auto bits = [](const Net& net) {
        Tensors all = nn::parameters(net);
        for (const nn::NamedTensor& named : nn::named_buffers(net)) all.push_back(named.tensor);
        return bits_of(all);
      };
      const Bits right = bits(saved);
      CHECK(for_each_fault(call, fault, [&](const Inject& inject) {
              Net net;
              const Bits before = bits(net);
              const bool well = inject([&] { nn::load(net, folder / "model"); });
              CHECK(bits(net) == (well ? right : before));
              nn::load(net, folder / "model");
              CHECK(bits(net) == right);
            }) > 0);
    }
}

TEST_CASE("faults: readers say what they couldn't do") {
  const TemporaryFolder folder;
  file_tests::write(folder / "text", file_tests::Bytes(500, 'a'));
  file_tests::write(folder / "cifar", file_tests::Bytes(2 * 3073, 1));
  file_tests::write(folder / "idx", {0, 0, 8, 1, 0, 0, 0, 2, 5, 6});
  const std::function<void()> readers[] = {
      [&] { expect(io::ByteText(folder / "text", {.context = 8}).get(3).first.numel() == 8); },
      [&] {
        expect(io::ByteText(folder / "text", {.context = 8, .reading = io::Reading::mapped}).get(3).first.numel() == 8);
      },
      [&] { expect(io::Cifar10(folder / "cifar").size() == 2); },
      [&] { expect(io::read_idx(folder / "idx", 1).values.size() == 2); },
  };
  for (const Call call : {Call::open, Call::read, Call::map, Call::allocate})
    for (const Fault fault : {Fault::fails, Fault::all_fail, Fault::interrupted}) {
      int64_t count = 0;
      for (const auto& reader : readers)
        count += for_each_fault(call, fault, [&](const Inject& inject) {
          inject(reader);
          reader();
        });
      CHECK(count > 0);
    }
}

TEST_CASE("faults: the kernel cache, the compiler and the loader may fail in any call, and results are right") {
  const auto handler = set_warning_handler({});
  const Tensor x = randn({37});
  const auto f = [](const Tensor& a) { return exp(a) * 2 + a; };
  const std::string right = bits_of(compile(f)(x));
  for (const Call call :
       {Call::open, Call::read, Call::write, Call::rename, Call::link, Call::make_directory, Call::spawn, Call::load})
    for (const Fault fault : {Fault::fails, Fault::all_fail}) {
      const int64_t count = for_each_fault(call, fault, [&](const Inject& inject) {
        const TemporaryFolder folder;
        const Variable cache("TANDEM_CACHE_DIR", folder.string());
        graph::testing::forget_loaded_libraries();
        std::string bits, note;
        {
          auto compiled = compile(f);
          const bool well = inject([&] { bits = bits_of(compiled(x)); });
          CHECK(well);  // a tier below, if nothing else
          CHECK(bits == right);
          note = compiled.stats().note;
          CHECK((note != "" || compiled.stats().tier == "generated C"));
        }
        CAPTURE(note);
        CHECK_FALSE(has_temporary_files(folder.string()));
        graph::testing::forget_loaded_libraries();
        auto next = compile(f);
        CHECK(bits_of(next(x)) == right);
        CHECK(next.stats().note == "");
        CHECK(next.stats().tier == "generated C");
      });
      CHECK(count > 0);
      MESSAGE(std::string(faults::name_of(call)) << ": " << count << " calls failed");
    }
  set_warning_handler(handler);
}

TEST_CASE("faults: a verification, of a function with a branch and a loop, that fails gives its specialisation up") {
  const auto handler = set_warning_handler({});
  const Tensor x = randn({3, 4});
  int64_t given_up = 0;
  const int64_t count = for_each_fault(Call::allocate, Fault::fails, [&](const Inject& inject) {
    double factor = 2;
    const auto walk = [&](const Tensor& in) {
      const Tensor start = cond(
          in.sum() > 0, [&] { return in.sum({0}); }, [&] { return in.select(0, 0) * 2; });
      const auto step = [](const Tensor& carry, const Tensor& row) { return std::pair(carry + row, carry.sum()); };
      return scan(step, start * factor, in).first;
    };
    auto f = compile(walk, {.mode = Mode::replay, .verify = Verify::every});
    CHECK(bits_of(f(x)) == bits_of(walk(x)));
    factor = 3;  // the verification makes it a number of the run
    std::string bits;
    const bool well = inject([&] { bits = bits_of(f(x)); });
    const std::string right = bits_of(walk(x));
    if (well) CHECK(bits == right);
    for (int again = 0; again < 2; ++again) CHECK(bits_of(f(x)) == right);
    CHECK(f.stats().traces <= (well ? 1 : 2));
    given_up += f.stats().traces == 2;
  });
  CHECK(count > 50);
  CHECK(given_up > 0);
  CHECK(given_up < count);
  set_warning_handler(handler);
}

TEST_CASE("faults: threads that can't be started") {
  const Tensor x = arange(0, 100), y = arange(0, 100);
  const io::TensorDataset data(x, y);
  for (const Call call : {Call::thread, Call::allocate})
    for (const Fault fault : {Fault::fails, Fault::all_fail})
      CHECK(for_each_fault(call, fault, [&](const Inject& inject) {
              io::Loader loader(data, {.batch_size = 8, .workers = 3});
              const auto pass = [&] {
                double sum = 0;
                for (const auto& [a, b] : loader) sum += a.sum().item<double>();
                expect(sum == 4950);
              };
              inject(pass);
              pass();
            }) > 0);
}

TEST_CASE("faults: code is compiled at once where no thread can do it beside the calls") {
  const Tensor x = arange(0, 100) / 100;
  const auto function = [](const Tensor& a) { return exp(a * -0.5f) + a * 3; };
  const std::string right = bits_of(function(x));
  const Variable uncached{"TANDEM_CACHE", "0"};
  int64_t n = 0;
  CHECK(for_each_fault(Call::thread, Fault::fails, [&](const Inject& inject) {
          graph::testing::forget_loaded_libraries();
          auto f = compile(function, {.wait = false});
          bool ready = false;
          CHECK(inject([&] {
            f(x);
            ready = f.ready();
          }));
          if (n++ == 0) CHECK(ready);
          f.wait();
          CHECK(bits_of(f(x)) == right);
          CHECK(f.stats().compiling == 0);
        }) > 0);
}

TEST_CASE("faults: each op, and its gradient, with each of its allocations failing") {
  int64_t faults = 0;
  for (const samples::Sample& sample : samples::all_samples()) {
    CAPTURE(sample.op);
    CAPTURE(sample.label);
    const samples::Case each(sample, sample.dtypes.at(0), samples::LayoutChoice(sample.operands.size()), cpu());
    const auto run = [&] {
      manual_seed(3);
      Tensors bases, all;
      for (const Tensor& base : each.bases()) bases.push_back(base.detach());
      if (sample.gradients != samples::Gradients::none)
        for (Tensor& base : bases)
          if (is_floating(base.dtype())) base.requires_grad(true);
      all = each.call(bases);
      for (size_t i = 0, count = all.size(); i < count; ++i)
        if (all[i].requires_grad()) all[i].sum().backward({.retain_graph = true});
      for (const Tensor& base : bases)
        if (base.grad().defined()) all.push_back(base.grad());
      return bits_of(all);
    };
    const Bits right = run();
    const int64_t before = memory_stats().in_use;
    faults += for_each_fault(Call::allocate, Fault::fails, [&](const Inject& inject) {
      Bits bits;
      if (inject([&] { bits = run(); })) CHECK(bits == right);
      CHECK(memory_stats().in_use == before);
    });
    CHECK(run() == right);
  }
  CHECK(faults > 1000);
  MESSAGE(faults << " allocations failed");
}

// From source to loaded library: first the libraries in memory, then the cache on disk, then the compiler.
#include "graph/native/system_compiler.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "graph/native/c_compiler.h"
#include "graph/native/disk_cache.h"
#include "graph/native/sha256.h"
#include "graph/native/shared_object.h"
#include "kernels/cpu/support/isa.h"

namespace tandem::graph {

namespace {

using detail::str;

constexpr size_t kLibrariesHeld = 16;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The first lines of a compiler's message, indented.
std::string quoted(const std::string& message) {
  std::string text;
  size_t begin = 0;
  for (int line = 0; line < 20 && begin < message.size(); ++line) {
    const size_t end = std::min(message.find('\n', begin), message.size());
    text += "\n    " + message.substr(begin, std::min<size_t>(end - begin, 400));
    begin = end + 1;
  }
  if (begin < message.size()) text += "\n    ...";
  return text.empty() ? "\n    (it said nothing)" : text;
}

// Libraries in memory --------------------------------------------------------------------------------

struct Slot {
  std::mutex building;  // a second thread that wants the same source waits for the first
  std::weak_ptr<KernelLibrary> library;
};

std::mutex table_mutex;
std::map<Digest, std::shared_ptr<Slot>> table;
std::deque<std::shared_ptr<KernelLibrary>> held;  // the last ones loaded

std::shared_ptr<Slot> slot_of(const Digest& key) {
  const std::lock_guard lock(table_mutex);
  std::erase_if(table,
                [](const auto& entry) { return entry.second.use_count() == 1 && entry.second->library.expired(); });
  std::shared_ptr<Slot>& slot = table[key];
  if (!slot) slot = std::make_shared<Slot>();
  return slot;
}

void hold(const std::shared_ptr<KernelLibrary>& library) {
  std::shared_ptr<KernelLibrary> dropped;  // unloaded outside of the lock
  const std::lock_guard lock(table_mutex);
  held.push_back(library);
  if (held.size() <= kLibrariesHeld) return;
  dropped = std::move(held.front());
  held.pop_front();
}

// What other threads were building is begun anew in a child of fork: nobody goes on with it there.
[[maybe_unused]] const int registered = pthread_atfork([] { table_mutex.lock(); }, [] { table_mutex.unlock(); },
                                                       [] {
                                                         for (auto& [key, slot] : table) {
                                                           if (slot->building.try_lock()) slot->building.unlock();
                                                           else slot = std::make_shared<Slot>();
                                                         }
                                                         table_mutex.unlock();
                                                       });

// Parts of a source -----------------------------------------------------------------------------------

// A compiler takes some 10 ms for each KB of loops, and 30 ms to begin and to read what each part begins with.
constexpr size_t kPartBytes = 16 * 1024;
std::atomic<size_t> part_bytes = kPartBytes;
std::atomic<size_t> most_parts = 0;  // 0: as many as there are processors, up to 8

size_t processors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<size_t>(CPU_COUNT(&set)) : 1;
}

// The source, or parts of about the same size.
std::vector<std::string> parts_of(const std::string& source, const std::vector<size_t>& cuts) {
  const size_t most = most_parts ? most_parts.load() : std::clamp<size_t>(processors(), 1, 8);
  const size_t head = cuts.empty() ? source.size() : cuts.front(), all = source.size() - head;
  const size_t wanted = std::min({most, all / part_bytes, cuts.size()});
  if (wanted < 2) return {source};
  std::vector<std::string> parts;
  size_t begin = head;
  for (size_t i = 1; i <= wanted; ++i) {
    const auto next = std::lower_bound(cuts.begin(), cuts.end(), head + all * i / wanted);
    const size_t end = i == wanted || next == cuts.end() ? source.size() : *next;
    if (end > begin) parts.push_back(source.substr(0, head) + source.substr(begin, end - begin));
    begin = end;
  }
  return parts;
}

void join(std::string& notes, const std::string& note) {
  if (note.empty()) return;
  if (!notes.empty()) notes += "; ";
  notes += note;
}

}  // namespace

// Building and loading --------------------------------------------------------------------------------

struct LibraryLoader {
  const std::string& source;
  const FoundCompiler& compiler;
  Isa isa;
  Digest key;
  Where where;
  const std::vector<std::string>& symbols;
  std::vector<size_t> cuts;
  std::string name = hex(key);
  std::string notes = {};
  std::string problem = {};  // why nothing could be built anywhere

  static Digest key_for(const std::string& source, const FoundCompiler& compiler, Isa isa) {
    std::string text = str("tandem ", TANDEM_VERSION, "\n", name_of(isa), "\n", compiler.status.version, "\n",
                           compiler.stamp, "\n", command_line(command_for(compiler.status, isa, "in", "out")), "\n");
    return sha256(text + source);
  }

  static std::shared_ptr<KernelLibrary> join_parts(std::vector<std::shared_ptr<KernelLibrary>> parts) {
    auto all = std::make_shared<KernelLibrary>();
    all->from_cache = true;
    for (const auto& part : parts) {
      all->from_cache &= part->from_cache;
      join(all->source_path, part->source_path);
      if (all->note.find(part->note) == std::string::npos) join(all->note, part->note);
    }
    all->parts_ = std::move(parts);
    return all;
  }

  // Loads the file that was checked, by its descriptor: another one may stand at its path by now. The loader knows what
  // it has loaded by name, and descriptors' numbers come again, so each name is spelled like no other.
  static void* load(const SealedFile& file, const std::string& path) {
    static std::atomic<uint64_t> count{0};
    std::string name = "/proc/self/fd/";
    for (uint64_t bits = count++; bits; bits >>= 1) name += bits & 1 ? "/./" : "/";
    name += std::to_string(file.descriptor.get());
    struct stat info;
    const bool has_proc = stat(name.c_str(), &info) == 0;  // else its folder, which only this user may write, must do
    return dlopen((has_proc ? name : path).c_str(), RTLD_NOW | RTLD_LOCAL);
  }

  std::shared_ptr<KernelLibrary> open(const SealedFile& file, const std::string& path, std::string& error) const {
    error = library_damage(file.contents);
    if (!error.empty()) return nullptr;
    auto library = std::make_shared<KernelLibrary>();
    library->handle_ = load(file, path);
    if (!library->handle_) {
      const char* text = dlerror();
      error = text ? text : "dlopen failed";
      return nullptr;
    }
    return library;
  }

  std::string lacks(const KernelLibrary& library) const {
    for (const std::string& symbol : symbols)
      if (!library.symbol(symbol.c_str())) return "lacks the function " + symbol;
    return "";
  }

  std::shared_ptr<KernelLibrary> find(const std::string& directory) {
    const std::string path = directory + "/" + name + ".so", source_path = directory + "/" + name + ".c";
    std::string wrong;
    SealedFile file;
    const Entry entry = check_sealed(path, key, wrong, file);
    if (entry == Entry::absent) return nullptr;
    if (entry == Entry::whole) {
      auto library = open(file, path, wrong);
      if (library) wrong = lacks(*library);
      if (library && wrong.empty()) {
        library->from_cache = true;
        library->source_path = source_path;
        if (access(source_path.c_str(), F_OK) != 0) write_file(source_path, source);
        return library;
      }
    }
    join(notes, "damaged cache entry, built again: " + wrong);
    return nullptr;
  }

  // Builds a large source in parts. Nothing if it isn't, or doesn't build so: then all of it at once says what is wrong, and
  // in which line. `command` becomes that of a part that took too long.
  std::optional<ProcessResult> build_in_parts(const Workplace& work, const std::string& output,
                                              std::vector<std::string>& command) const {
    const std::vector<std::string> parts = parts_of(source, cuts);
    if (parts.size() < 2) return {};
    std::vector<std::vector<std::string>> commands;
    std::vector<std::string> objects;
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string path = str(work.path(), "/part", i);
      if (!write_file(path + ".c", parts[i]).empty()) return {};
      objects.push_back(path + ".o");
      commands.push_back(command_for_part(compiler.status, isa, path + ".c", path + ".o"));
    }
    const auto begin = std::chrono::steady_clock::now();
    std::vector<ProcessResult> results = run_compilers(commands, work.path());
    const bool late = seconds_since(begin) >= compile_time_limit();
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i].succeeded) continue;
      if (!late) return {};
      command = commands[i];
      return std::move(results[i]);
    }
    ProcessResult linked = run_compiler(command_to_link(compiler.status, isa, objects, output), work.path());
    std::string bytes;
    if (linked.succeeded && read_own_file(output, bytes).empty() && library_damage(bytes).empty()) return linked;
    unlink(output.c_str());
    return {};
  }

  // Null: not in this directory, for the reason `wrong`; `problem` is set as well where the compiler is no use.
  std::shared_ptr<KernelLibrary> build(const std::string& directory, bool is_private, std::string& wrong) {
    const std::string path = directory + "/" + name + ".so", source_path = directory + "/" + name + ".c";
    wrong = write_file(source_path, source);
    if (!wrong.empty()) return nullptr;
    const Workplace work(path);
    wrong = work.problem();
    if (!wrong.empty()) return nullptr;

    const std::string output = work.path() + "/built.so";
    std::vector<std::string> command = command_for(compiler.status, isa, source_path, output);
    const auto begin = std::chrono::steady_clock::now();
    const std::optional<ProcessResult> in_parts = build_in_parts(work, output, command);
    const ProcessResult result = in_parts ? *in_parts : run_compiler(command, work.path());
    const double seconds = seconds_since(begin);
    std::string bytes, unread;
    if (result.succeeded) unread = read_own_file(output, bytes);
    const bool wrote = result.succeeded && unread.empty();
    const std::string damage = wrote ? library_damage(bytes) : "";
    if (!wrote || !damage.empty()) {
      const std::string outcome = !result.succeeded ? result.outcome
                                  : wrote           ? "what it wrote can't be loaded: " + damage
                                                    : "it wrote no file";
      const bool full = result.output.find(std::strerror(ENOSPC)) != std::string::npos;
      const bool late = !result.succeeded && seconds >= compile_time_limit();
      if (full) {
        wrong = str("no space left in ", directory);
        return nullptr;
      }
      // Too many processes or files, or too little memory: that says nothing of the compiler.
      if (!result.problem.empty()) wrong = "the C compiler can't be started: " + result.problem;
      else if (!unread.empty() && access(output.c_str(), F_OK) == 0) wrong = unread;
      if (!wrong.empty()) return nullptr;
      // Is it the source, or can nothing be built here?
      if (wrote || (!late && !can_build_anything(compiler.status, isa, directory))) {
        wrong = problem = str("the C compiler can't build a library in ", directory, " (", outcome,
                              "): ", command_line(command), quoted(result.output));
        return nullptr;
      }
      const std::string kept = is_private ? keep_private_file(source_path) : source_path;
      throw CompileError(
          str(late ? "compile: the C compiler took too long over a generated source: "
                   : "compile: the C compiler refused a generated source: ",
              outcome, "\n  command: ", command_line(command), "\n  its message:", quoted(result.output),
              "\n  The source is kept in ", kept,
              ". Generated source should always build: this is a fault of Tandem or of the compiler (",
              compiler.status.version,
              "), not of your program. Try another compiler (CC=clang or CC=gcc), or mode replay, and please "
              "report it with that file."),
          where);
    }
    // Stored whole and sealed before it is loaded, so that what runs is what later runs will find.
    wrong = store_sealed(path, bytes, key);
    if (!wrong.empty()) return nullptr;
    SealedFile file;
    if (check_sealed(path, key, wrong, file) != Entry::whole) {
      if (wrong.empty()) wrong = "what was built there is gone: " + path;
      return nullptr;
    }
    auto library = open(file, path, wrong);
    if (!library) {
      wrong = "what was built there can't be loaded: " + wrong;
      return nullptr;
    }
    if (const std::string lacking = lacks(*library); !lacking.empty()) {
      unlink(path.c_str());
      wrong = problem = "what the C compiler built " + lacking + ": " + command_line(command);
      return nullptr;
    }
    library->compile_seconds = seconds;
    library->source_path = source_path;
    limit_cache(directory, name);
    return library;
  }

  std::shared_ptr<KernelLibrary> find_or_build() {
    std::string wrong;
    const CacheDirectory cache = cache_directory();
    if (cache.problem.empty()) {
      auto library = find(cache.path);
      if (!library) library = build(cache.path, false, wrong);
      if (library) return library;
    } else {
      wrong = cache.problem;
    }
    join(notes, "kernels are not cached on disk: " + wrong);
    for (size_t i = 0;; ++i) {
      const CacheDirectory place = private_directory(i);
      if (place.path.empty() && place.problem.empty()) {
        problem = "no place to build kernels in: " + notes;
        return nullptr;
      }
      wrong = place.problem;
      problem.clear();
      if (wrong.empty()) {
        if (auto library = build(place.path, true, wrong)) return library;
      }
      if (!problem.empty()) {  // here and in the cache's directory: not the directory's fault
        problem += std::string("\n  ") + kInstallCompiler;
        condemn(compiler, problem);
        return nullptr;
      }
      join(notes, wrong);
    }
  }
};

KernelLibrary::~KernelLibrary() {
  if (handle_) dlclose(handle_);
}

void* KernelLibrary::symbol(const char* name) const {
  if (handle_) return dlsym(handle_, name);
  for (const auto& part : parts_)
    if (void* address = part->symbol(name)) return address;
  return nullptr;
}

std::shared_ptr<KernelLibrary> load_c_source(const std::string& source, Where where, std::string* reason,
                                             const std::vector<std::string>& symbols, const std::vector<size_t>& cuts) {
  if (reason) reason->clear();
  const FoundCompiler compiler = current_compiler();
  if (!compiler.status.problem.empty()) {
    if (reason) *reason = compiler.status.problem;
    return nullptr;
  }
  const Isa isa = current_isa();
  const Digest key = LibraryLoader::key_for(source, compiler, isa);
  const std::shared_ptr<Slot> slot = slot_of(key);
  const std::lock_guard lock(slot->building);
  if (auto library = slot->library.lock()) return library;
  LibraryLoader loader{
      .source = source, .compiler = compiler, .isa = isa, .key = key, .where = where, .symbols = symbols, .cuts = cuts};
  auto library = loader.find_or_build();
  if (!library) {
    if (reason) *reason = loader.problem;
    return nullptr;
  }
  library->note = loader.notes;
  slot->library = library;
  hold(library);
  return library;
}

std::shared_ptr<KernelLibrary> find_c_source(const std::string& source, const std::vector<std::string>& symbols) {
  const FoundCompiler compiler = current_compiler();
  if (!compiler.status.problem.empty()) return nullptr;
  const Isa isa = current_isa();
  const Digest key = LibraryLoader::key_for(source, compiler, isa);
  const std::shared_ptr<Slot> slot = slot_of(key);
  const std::unique_lock lock(slot->building, std::try_to_lock);
  if (!lock) return nullptr;
  if (auto library = slot->library.lock()) return library;
  const CacheDirectory cache = cache_directory();
  if (!cache.problem.empty()) return nullptr;
  LibraryLoader loader{
      .source = source, .compiler = compiler, .isa = isa, .key = key, .where = {}, .symbols = symbols, .cuts = {}};
  auto library = loader.find(cache.path);
  if (!library) return nullptr;
  slot->library = library;
  hold(library);
  return library;
}

std::shared_ptr<KernelLibrary> load_c_sources(const std::vector<std::string>& sources, Where where,
                                              std::string* reason) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::shared_ptr<KernelLibrary>> parts(sources.size());
  std::vector<std::string> reasons(sources.size());
  std::vector<std::exception_ptr> errors(sources.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next++) < sources.size();) {
      try {
        parts[i] = load_c_source(sources[i], where, &reasons[i]);
      } catch (...) { errors[i] = std::current_exception(); }
    }
  };
  std::thread second;
  try {
    if (sources.size() > 1) second = std::thread(work);
  } catch (const std::system_error&) {}  // then this thread does it all
  work();
  if (second.joinable()) second.join();

  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  if (reason) reason->clear();
  for (size_t i = 0; i < parts.size(); ++i)
    if (!parts[i]) {
      if (reason) *reason = reasons[i];
      return nullptr;
    }
  if (parts.size() == 1) return parts[0];
  auto all = LibraryLoader::join_parts(std::move(parts));
  if (!all->from_cache) all->compile_seconds = seconds_since(begin);
  return all;
}

namespace testing {

void forget_loaded_libraries() {
  std::deque<std::shared_ptr<KernelLibrary>> dropped;
  const std::lock_guard lock(table_mutex);
  dropped.swap(held);
  table.clear();
}

void set_compiler_parts(size_t bytes, size_t most) {
  part_bytes = bytes ? bytes : kPartBytes;
  most_parts = most;
}

void set_compile_time_limit(double seconds) { compile_time_limit() = seconds; }

}  // namespace testing

}  // namespace tandem::graph

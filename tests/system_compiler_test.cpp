// The system compiler and the kernel cache: found, built, loaded, kept, and every way in which that goes
// wrong.
#include "graph/native/system_compiler.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "files.h"
#include "graph/native/disk_cache.h"
#include "graph/native/process.h"
#include "graph/native/sha256.h"
#include "graph/native/shared_object.h"
#include "kernel_cache.h"
#include "kernels/cpu/support/isa.h"

using namespace tandem;
using namespace tandem::graph;
using tandem::detail::str;
namespace fs = std::filesystem;
using file_tests::Variable;
using namespace kernel_cache;

TEST_CASE("sha256: the standard's examples, and lengths around a block") {
  CHECK(hex(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex(sha256(std::string(1000000, 'a'))) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("split_arguments reads what a shell would, command_line writes it") {
  CHECK(split_arguments("  ccache  gcc -m64 ") == std::vector<std::string>{"ccache", "gcc", "-m64"});
  CHECK(split_arguments("'/a b/cc' -D\"x y\" a\\ b ''") == std::vector<std::string>{"/a b/cc", "-Dx y", "a b", ""});
  CHECK(split_arguments("") == std::vector<std::string>{});
  const std::vector<std::string> odd = {"a b", "it's", "$(x)", "", "-O3"};
  CHECK(split_arguments(command_line(odd)) == odd);
}

TEST_CASE("run_process: output, status, signals, time limit, input at its end") {
  const auto shell = [](const std::string& line, double limit = 10) {
    return run_process({"/bin/sh", "-c", line}, {{"TANDEM_TEST", "set"}}, limit);
  };
  CHECK(shell("echo out; echo err >&2; echo $TANDEM_TEST").output == "out\nerr\nset\n");
  CHECK(shell("exit 3").outcome == "exit status 3");
  CHECK(shell("true").succeeded);
  CHECK(shell("kill -9 $$").outcome == "killed by signal 9 (Killed)");
  CHECK(shell("cat").succeeded);
  CHECK(shell("yes | head -c 1000000").output.size() == 256 * 1024);
  CHECK(run_process({"/nonexistent"}, {}, 1).problem == "/nonexistent: No such file or directory");

  const auto begin = std::chrono::steady_clock::now();
  CHECK(shell("sleep 30 & sleep 30", 0.2).outcome == "stopped after 0.2 s");
  CHECK(shell("sleep 30 & echo done").output == "done\n");  // the one left behind is not waited for
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
}

TEST_CASE("load_c_source: built once, then from memory, then from disk") {
  Fresh fresh;
  const auto first = load_c_source(adds(1), Where::current());
  CHECK(call(first, 1) == 2);
  CHECK_FALSE(first->from_cache);
  CHECK(first->compile_seconds > 0);
  CHECK(first->note == "");
  CHECK(text_of(first->source_path) == adds(1));
  CHECK(first->symbol("no_such_function") == nullptr);
  CHECK(load_c_source(adds(1), Where::current()) == first);
  CHECK(load_c_source(adds(2), Where::current()) != first);

  testing::forget_loaded_libraries();
  const auto second = load_c_source(adds(1), Where::current());
  CHECK(second != first);
  CHECK(call(second, 1) == 2);
  CHECK(second->from_cache);
  CHECK(second->compile_seconds == 0);
  CHECK(second->note == "");

  struct stat info;
  REQUIRE(stat(fresh.cache.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0700);
  CHECK(temporaries(fresh.cache) == 0);
}

TEST_CASE("load_c_source: the flags keep one rounding per operation, and use the kernels' instruction set") {
  Fresh fresh;
  const std::string source =
      "float fused(float a, float b, float c) { return a * b + c; }\n"
      "float root(float x) { return __builtin_sqrtf(x); }\n"
      "double power(double x, double y) { return __builtin_pow(x, y); }\n"
      "int level(void) {\n"
      "#if defined(__AVX512F__)\n  return 2;\n#elif defined(__AVX2__)\n  return 1;\n#else\n  return "
      "0;\n#endif\n}\n";
  const Isa before = current_isa();
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    if (!set_isa(isa)) continue;
    const auto library = load_c_source(source, Where::current());
    REQUIRE(library);
    CHECK_FALSE(library->from_cache);  // the instruction set is part of the key
    CHECK(reinterpret_cast<int (*)()>(library->symbol("level"))() == static_cast<int>(isa));
    volatile float a = 1 + 0x1p-12f, c = -(1 + 0x1p-11f);
    const float product = a * a;  // rounded: 1 + 2^-11
    CHECK(reinterpret_cast<float (*)(float, float, float)>(library->symbol("fused"))(a, a, c) == product + c);
    CHECK(reinterpret_cast<float (*)(float)>(library->symbol("root"))(9) == 3);
    CHECK(reinterpret_cast<double (*)(double, double)>(library->symbol("power"))(2, 10) == 1024);
  }
  set_isa(before);
}

TEST_CASE("load_c_source: a damaged entry is noticed, said, and built again") {
  Fresh fresh;
  load_c_source(adds(1), Where::current());
  const std::string path = file_with(fresh.cache, ".so"), whole = text_of(path);
  const auto damaged = [&](const std::string& contents, const std::string& reason) {
    testing::forget_loaded_libraries();
    fs::remove(path);  // a new file: the old one may be mapped
    std::ofstream(path, std::ios::binary) << contents;
    const auto library = load_c_source(adds(1), Where::current());
    CHECK(call(library, 1) == 2);
    CHECK_FALSE(library->from_cache);
    has(library->note, "damaged cache entry, built again");
    has(library->note, reason);
    testing::forget_loaded_libraries();
    CHECK(load_c_source(adds(1), Where::current())->from_cache);
  };
  SUBCASE("empty") { damaged("", "cut short (0 bytes"); }
  SUBCASE("truncated") { damaged(whole.substr(0, whole.size() / 2), "cut short"); }
  SUBCASE("one bit changed") {
    std::string changed = whole;
    changed[changed.size() / 2] ^= 1;
    damaged(changed, "checksum");
  }
  SUBCASE("the end of the seal changed") {
    std::string changed = whole;
    changed.back() ^= 1;
    damaged(changed, "checksum");
  }
  SUBCASE("another source's entry") {
    load_c_source(adds(2), Where::current());
    std::string other;
    for (const auto& entry : fs::directory_iterator(fresh.cache))
      if (entry.path().extension() == ".so" && entry.path() != path) other = text_of(entry.path());
    damaged(other, "checksum");
  }
  SUBCASE("a directory in its place") {
    testing::forget_loaded_libraries();
    fs::remove(path);
    fs::create_directory(path);
    const auto library = load_c_source(adds(1), Where::current());
    CHECK(call(library, 1) == 2);
    has(library->note, path);
  }
}

TEST_CASE("load_c_source: without a usable cache directory it runs, and says why") {
  Fresh fresh;
  const auto runs = [&](const std::string& reason) {
    const auto library = load_c_source(adds(1), Where::current());
    CHECK(call(library, 1) == 2);
    has(library->note, "kernels are not cached on disk");
    has(library->note, reason);
    CHECK(library->source_path.find(fresh.cache) == std::string::npos);
    CHECK(text_of(library->source_path) == adds(1));
  };
  SUBCASE("below a file") {
    std::ofstream(fresh.folder + "/file") << "x";
    fresh.directory.set(fresh.folder + "/file/cache");
    runs("can't make " + fresh.folder + "/file/cache: Not a directory");
  }
  SUBCASE("a file") {
    std::ofstream(fresh.folder + "/file") << "x";
    fresh.directory.set(fresh.folder + "/file");
    runs("file is not a directory");
  }
  SUBCASE("a device without files") {
    fresh.directory.set("/proc/tandem");
    runs("can't make /proc/tandem");
  }
  SUBCASE("writable by others") {
    fs::create_directory(fresh.cache);
    fs::permissions(fresh.cache, fs::perms::all);
    runs(fresh.cache + " is writable by other users (mode 0777), who may have put code there: remove it");
    CHECK(fs::is_empty(fresh.cache));
  }
  SUBCASE("somebody else's") {
    fs::create_directory(fresh.cache);
    if (chown(fresh.cache.c_str(), 12345, 12345) == 0) runs(fresh.cache + " belongs to another user (12345)");
    else MESSAGE("not root: can't give a directory away");
  }
  SUBCASE("not writable") {
    fs::create_directory(fresh.cache);
    fs::permissions(fresh.cache, fs::perms::owner_read | fs::perms::owner_exec);
    if (access(fresh.cache.c_str(), W_OK) != 0) runs("can't write to " + fresh.cache + ": Permission denied");
    else MESSAGE("root may write anywhere");
  }
  SUBCASE("switched off") {
    fresh.on.set("0");
    runs("switched off by TANDEM_CACHE=0");
    CHECK_FALSE(fs::exists(fresh.cache));
  }
  SUBCASE("disk full") {
    // /dev/full can't be a directory; a compiler that meets a full disk says this.
    const std::string cc =
        fresh.script("full_cc", "case \"$*\" in *" + fresh.cache +
                                    "*) echo 'as: out.o: No space left on device' >&2; exit 1;; esac\n"
                                    "exec cc \"$@\"");
    fresh.cc.set(cc);
    runs("no space left in " + fresh.cache);
  }
}

TEST_CASE("cache_directory: TANDEM_CACHE_DIR, else XDG_CACHE_HOME, else HOME") {
  Fresh fresh;
  Variable xdg("XDG_CACHE_HOME", fresh.folder + "/xdg"), home("HOME", fresh.folder + "/home");
  CHECK(cache_directory().path == fresh.cache);
  fresh.directory.set(std::nullopt);
  CHECK(cache_directory().path == fresh.folder + "/xdg/tandem");
  xdg.set("relative");
  CHECK(cache_directory().path == fresh.folder + "/home/.cache/tandem");
  CHECK(cache_directory().problem == "");
  CHECK(fs::is_directory(fresh.folder + "/home/.cache/tandem"));
}

TEST_CASE("load_c_source: without a compiler it gives nothing and the reason") {
  Fresh fresh;
  std::string reason;
  const auto none = [&](const std::string& text) {
    CHECK(load_c_source(adds(1), Where::current(), &reason) == nullptr);
    has(reason, text);
    has(reason, "install a C compiler");
    CHECK(system_compiler().problem == reason);
  };
  SUBCASE("CC is no file") {
    fresh.cc.set("/nonexistent");
    none("no C compiler: CC is '/nonexistent', and /nonexistent is not a program");
  }
  SUBCASE("CC is not in PATH") {
    fresh.cc.set("no-such-compiler -x");
    none("no C compiler: CC is 'no-such-compiler -x', and no-such-compiler is not in PATH");
  }
  SUBCASE("no cc in PATH") {
    Variable path("PATH", fresh.folder);
    none("no C compiler: cc is not in PATH (" + fresh.folder + ")");
  }
  SUBCASE("CC fails") {
    fresh.cc.set("false");
    none("--version: exit status 1");
  }
  SUBCASE("CC only answers") {
    fresh.cc.set(fresh.script("talker", "[ $# = 1 ] && echo 'talker 1.0' && exit 0; echo 'no cc1' >&2; exit 1"));
    CHECK(system_compiler().problem == "");
    CHECK(system_compiler().version == "talker 1.0");
    none("the C compiler can't build a library");
    has(reason, "    no cc1");
  }
  SUBCASE("CC makes nothing") {
    fresh.cc.set("true");
    none("it wrote no file");
  }
  // A compiler that comes back is found again.
  fresh.cc.set(std::nullopt);
  CHECK(call(load_c_source(adds(1), Where::current(), &reason), 1) == 2);
  CHECK(reason == "");
}

TEST_CASE("load_c_source: CC may hold arguments, and another compiler is another entry") {
  Fresh fresh;
  const std::string source =
      "#ifndef N\n#define N 1\n#endif\n"
      "float add(float x) { return x + N; }\n";
  CHECK(call(load_c_source(source, Where::current()), 1) == 2);
  fresh.cc.set("cc -DN=5");
  CHECK(call(load_c_source(source, Where::current()), 1) == 6);
  CHECK(count(fresh.cache, ".so") == 2);

  // The same path with another file behind it.
  const std::string path = fresh.script("changing", "exec cc -DN=6 \"$@\"");
  fresh.cc.set(path);
  CHECK(call(load_c_source(source, Where::current()), 1) == 7);
  fresh.script("changing", "exec cc -DN=60 \"$@\"");
  CHECK(call(load_c_source(source, Where::current()), 1) == 61);
}

TEST_CASE("load_c_source: gcc and clang both build it") {
  for (const char* name : {"gcc", "clang", "clang-14"}) {
    Fresh fresh;
    fresh.cc.set(name);
    if (!system_compiler().problem.empty()) {
      MESSAGE(name << " is not here");
      continue;
    }
    const auto library = load_c_source(
        "void axpy(long n, float a, const float* restrict x, float* restrict y) {\n"
        "#pragma omp simd\n  for (long i = 0; i < n; ++i) y[i] += a * __builtin_sqrtf(x[i]);\n}\n",
        Where::current());
    REQUIRE(library);
    std::vector<float> x(37, 4), y(37, 1);
    reinterpret_cast<void (*)(long, float, const float*, float*)>(library->symbol("axpy"))(37, 3, x.data(), y.data());
    CHECK(y == std::vector<float>(37, 7));
  }
}

TEST_CASE("load_c_source: a source that doesn't build is a CompileError with the compiler's words") {
  Fresh fresh;
  const auto message = [&](const std::string& source) -> std::string {
    try {
      load_c_source(source, Where::current());
    } catch (const CompileError& error) {
      CHECK(std::string(error.code()) == "E023");
      CHECK(to_string(error.where()).starts_with("system_compiler_test.cpp:"));
      return error.what();
    }
    FAIL("it built");
    return "";
  };
  SUBCASE("syntax") {
    const std::string text = message("int f(void) { return 1 }\n");
    const std::string path = file_with(fresh.cache, ".c");
    has(text, "tandem::CompileError: compile: the C compiler refused a generated source: exit status 1");
    has(text, path + ":1:");
    has(text, "error: expected ");
    has(text, "command: " + system_compiler().compiler + " -O3 ");
    has(text, "The source is kept in " + path);
    CHECK(text_of(path) == "int f(void) { return 1 }\n");
    CHECK(temporaries(fresh.cache) == 0);
    CHECK(count(fresh.cache, ".so") == 0);
    has(message("int f(void) { return 1 }\n"), "error: expected ");  // asked again, told again
  }
  SUBCASE("a function that nobody defines") {
    has(message("int g(int); int f(int x) { return g(x); }\n"), "undefined reference to `g'");
  }
  SUBCASE("it takes too long") {
    fresh.cc.set(fresh.script("slow", "[ $# = 1 ] && exec cc --version; exec sleep 30"));
    testing::set_compile_time_limit(0.2);
    const std::string text = message(adds(1));
    has(text, "the C compiler took too long over a generated source: stopped after 0.2 s");
  }
}

TEST_CASE("load_c_source: in a program that ignores the end of its children") {
  Fresh fresh;
  void (*before)(int) = std::signal(SIGCHLD, SIG_IGN);
  const auto library = load_c_source(adds(1), Where::current());
  CHECK_THROWS_AS(load_c_source("broken", Where::current()), CompileError);
  std::signal(SIGCHLD, before);
  CHECK(call(library, 1) == 2);
}

TEST_CASE("load_c_source: the source is kept also where there is no cache") {
  Fresh fresh;
  Variable temporary("TMPDIR", fresh.folder);
  fresh.on.set("0");
  // In a child, since its private directories are kept from then on.
  std::fflush(nullptr);  // exit in the child would write again what is buffered here
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int status = 1;
    try {
      load_c_source("broken", Where::current());
    } catch (const CompileError& error) { status = 0; }
    std::exit(status);
  }
  int status;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  int kept = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fresh.folder))
    if (entry.path().extension() == ".c") kept += text_of(entry.path()) == "broken";
  CHECK(kept == 1);
}

TEST_CASE("load_c_source: processes that build the same at once all succeed") {
  Fresh fresh;
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      bool good = true;
      for (int n = 0; n < 3; ++n) {
        const auto library = load_c_source(adds(n), Where::current());
        good = good && library && library->note.empty() &&
               reinterpret_cast<float (*)(float)>(library->symbol("add"))(1) == 1 + n;
      }
      _exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  CHECK(count(fresh.cache, ".so") == 3);
  CHECK(temporaries(fresh.cache) == 0);
  CHECK(load_c_source(adds(2), Where::current())->from_cache);
}

TEST_CASE("load_c_source: threads that ask for the same share one build") {
  Fresh fresh;
  std::vector<std::shared_ptr<KernelLibrary>> libraries(4);
  std::vector<std::thread> threads;
  for (auto& library : libraries) threads.emplace_back([&] { library = load_c_source(adds(1), Where::current()); });
  for (auto& thread : threads) thread.join();
  for (const auto& library : libraries) CHECK(library == libraries[0]);
  CHECK(call(libraries[0], 1) == 2);
}

TEST_CASE("load_c_sources: parts built side by side act as one library") {
  Fresh fresh;
  const std::vector<std::string> sources = {"float one(float x) { return x + 1; }\n",
                                            "float two(float x) { return x + 2; }\n",
                                            "float three(float x) { return x + 3; }\n"};
  const auto all = load_c_sources(sources, Where::current());
  CHECK(call(all, 1, "one") == 2);
  CHECK(call(all, 1, "two") == 3);
  CHECK(call(all, 1, "three") == 4);
  CHECK(all->symbol("four") == nullptr);
  CHECK_FALSE(all->from_cache);
  CHECK(all->compile_seconds > 0);
  testing::forget_loaded_libraries();
  CHECK(load_c_sources(sources, Where::current())->from_cache);
  CHECK_THROWS_AS(load_c_sources({sources[0], "broken"}, Where::current()), CompileError);
  std::string reason;
  fresh.cc.set("/nonexistent");
  CHECK(load_c_sources(sources, Where::current(), &reason) == nullptr);
  has(reason, "no C compiler");
}

TEST_CASE("limit_cache: the entries used longest ago go, other files stay") {
  Fresh fresh;
  REQUIRE(cache_directory().problem == "");
  const auto make = [&](char digit, const std::string& ending, int minutes_ago) {
    const std::string path = fresh.cache + "/" + std::string(64, digit) + ending;
    std::ofstream(path) << std::string(600 * 1024, 'x');
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::minutes(minutes_ago));
    return path;
  };
  const std::string oldest = make('a', ".so", 30), its_source = make('a', ".c", 30), middle = make('b', ".so", 20),
                    newest = make('c', ".so", 40), left_behind = make('d', ".so.tmp-4194304-0000abcd-1", 0),
                    being_written = make('e', str(".so.tmp-", getpid(), "-0000abcd-1").c_str(), 0),
                    of_a_killed_compiler = fresh.cache + "/ccA1b2C3.o",
                    of_a_running_one = fresh.cache + "/ccX9y8Z7.res";
  std::ofstream(of_a_killed_compiler) << "x";
  std::ofstream(of_a_running_one) << "x";
  fs::last_write_time(of_a_killed_compiler, fs::file_time_type::clock::now() - std::chrono::hours(2));
  const std::string a_terabyte = make('f', ".so", 0);
  fs::resize_file(a_terabyte, uintmax_t{1} << 40);
  fs::create_directory(fresh.cache + "/" + std::string(64, 'd') + ".so.tmp-4194304-0000abcd-2");
  std::ofstream(fresh.cache + "/notes.txt") << std::string(5 << 20, 'x');
  fresh.limit.set("2");
  limit_cache(fresh.cache, std::string(64, 'c'));
  CHECK_FALSE(fs::exists(oldest));
  CHECK_FALSE(fs::exists(its_source));
  CHECK_FALSE(fs::exists(left_behind));
  CHECK(fs::exists(middle));
  CHECK(fs::exists(newest));  // just stored, whatever its time says
  CHECK(fs::exists(being_written));
  CHECK(fs::exists(fresh.cache + "/notes.txt"));
  CHECK_FALSE(fs::exists(of_a_killed_compiler));
  CHECK(fs::exists(of_a_running_one));
  CHECK_FALSE(fs::exists(a_terabyte));
  CHECK_FALSE(fs::exists(fresh.cache + "/" + std::string(64, 'd') + ".so.tmp-4194304-0000abcd-2"));
}

TEST_CASE("hmac_sha256: RFC 4231's second example, its key padded with zeros as the standard does") {
  Digest key{};
  std::copy_n("Jefe", 4, key.begin());
  CHECK(hex(hmac_sha256(key, "what do ya want for nothing?")) ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST_CASE("load_c_source: what others put into the cache is not loaded, but replaced") {
  Fresh fresh;
  load_c_source(adds(1), Where::current());
  const std::string path = file_with(fresh.cache, ".so"), secret = fresh.cache + "/secret";
  struct stat info;
  REQUIRE(stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
  REQUIRE(stat(secret.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
  const auto replaced = [&](const std::string& reason) {
    testing::forget_loaded_libraries();
    const auto library = load_c_source(adds(1), Where::current());
    CHECK(call(library, 1) == 2);
    CHECK_FALSE(library->from_cache);
    has(library->note, "damaged cache entry, built again");
    has(library->note, reason);
    testing::forget_loaded_libraries();
    const auto again = load_c_source(adds(1), Where::current());
    CHECK(again->from_cache);
    CHECK(again->note == "");
    CHECK(fs::is_regular_file(path));
  };
  SUBCASE("an entry that others may write") {
    fs::permissions(path, fs::perms::all);
    replaced("is writable by other users (mode 0777)");
  }
  SUBCASE("an entry of another user") {
    if (chown(path.c_str(), 12345, 12345) == 0) replaced("belongs to another user (12345)");
    else MESSAGE("not root: can't give a file away");
  }
  SUBCASE("an entry sealed elsewhere, with another secret") {
    const std::string planted = text_of(path);
    fs::remove_all(fresh.cache);
    load_c_source(adds(2), Where::current());
    std::ofstream(path, std::ios::binary) << planted;
    replaced("checksum that it was written with by this user");
  }
  SUBCASE("a secret that others may read") {
    fs::permissions(secret, fs::perms::owner_all | fs::perms::others_read);
    replaced("checksum that it was written with by this user");
  }
  SUBCASE("a secret cut short") {
    fs::resize_file(secret, 8);
    replaced("checksum that it was written with by this user");
  }
  SUBCASE("a secret that is a folder") {
    fs::remove(secret);
    fs::create_directories(secret + "/below");
    replaced("checksum that it was written with by this user");
  }
  SUBCASE("a link") {
    fs::rename(path, fresh.folder + "/elsewhere.so");
    fs::create_symlink(fresh.folder + "/elsewhere.so", path);
    replaced("is a link");
  }
  SUBCASE("a FIFO") {
    fs::remove(path);
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    replaced("is no regular file");
  }
  SUBCASE("a terabyte of nothing") {
    fs::resize_file(path, uintmax_t{1} << 40);
    replaced("is larger than kernels are (1099511627776 bytes)");
  }
  SUBCASE("a folder with files") {
    fs::remove(path);
    fs::create_directories(path + "/below");
    replaced("is no regular file");
  }
}

TEST_CASE("load_c_source: a cache below a folder in which anybody may replace it is not used") {
  Fresh fresh;
  const std::string shared = fresh.folder + "/shared";
  fs::create_directory(shared);
  fresh.directory.set(shared + "/mine/cache");
  fs::permissions(shared, fs::perms::all);
  testing::forget_loaded_libraries();
  auto library = load_c_source(adds(1), Where::current());
  CHECK(call(library, 1) == 2);
  has(library->note, shared + "/mine/cache lies below " + shared + " (mode 0777)");
  fs::permissions(shared, fs::perms::all | fs::perms::sticky_bit);
  testing::forget_loaded_libraries();
  library = load_c_source(adds(1), Where::current());
  CHECK(call(library, 1) == 2);
  CHECK(library->note == "");
}

TEST_CASE("load_c_source: a compiler whose libraries can't be used is as good as none") {
  Fresh fresh;
  Variable temporary("TMPDIR", fresh.folder);
  std::string reason;
  const auto none = [&](const std::string& what_it_does, const std::string& text) {
    fresh.cc.set(fresh.script("half_cc",
                              "[ $# = 1 ] && exec cc --version\n"
                              "for a; do [ \"$before\" = -o ] && out=$a; before=$a; done\n" +
                                  what_it_does));
    CHECK(load_c_source(adds(1), Where::current(), &reason, {"add"}) == nullptr);
    has(reason, text);
    has(reason, "install a C compiler");
    CHECK(count(fresh.cache, ".so") == 0);
    fresh.cc.set(std::nullopt);
    CHECK(call(load_c_source(adds(1), Where::current(), &reason, {"add"}), 1) == 2);
  };
  SUBCASE("half a library, and all is well, it says") {
    none("cc \"$@\" && s=$(stat -c %s \"$out\") && truncate -s $((s / 2)) \"$out\"", "it is cut short");
  }
  SUBCASE("a few bytes") { none("cc \"$@\" && truncate -s 100 \"$out\"", "it is cut short"); }
  SUBCASE("zeros") { none("truncate -s 10000 \"$out\"", "it is no shared library"); }
  SUBCASE("an executable's object file") { none("cc \"$@\" -r -nostdlib -fno-pic", "C compiler"); }
  SUBCASE("without the functions") {
    none("echo 'int other;' | cc -shared -fPIC -x c -o \"$out\" -", "lacks the function add");
  }
}

TEST_CASE("library_damage: a library cut anywhere, or with any byte of its headers changed, is refused or loads") {
  Fresh fresh;
  load_c_source(adds(1), Where::current());
  const std::string sealed = text_of(file_with(fresh.cache, ".so")), whole = sealed.substr(0, sealed.size() - 80);
  CHECK(library_damage(whole) == "");
  for (size_t size = 0; size < whole.size(); size += size < 4096 ? 1 : 97)
    CHECK(library_damage(whole.substr(0, size)) != "");
  for (size_t i = 0; i < 1024; ++i)
    for (const char byte : {'\x00', '\x7f', '\xff'}) {
      std::string changed = whole;
      changed[i] = byte;
      library_damage(changed);  // reads nothing beyond
    }
}

TEST_CASE("load_c_source: a process that is killed while it compiles leaves nothing for long") {
  Fresh fresh;
  load_c_source(adds(0), Where::current());
  fresh.cc.set(fresh.script("slow", "[ $# = 1 ] && exec cc --version\ntouch $TMPDIR/ccAbCdEf.o; exec sleep 30"));
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      load_c_source(adds(i + 1), Where::current());
      _exit(0);
    }
    const auto is_compiling = [&] {
      for (const auto& entry : fs::recursive_directory_iterator(fresh.cache))
        if (entry.path().extension() == ".o") return true;
      return false;
    };
    while (!is_compiling()) usleep(1000);
    kill(child, SIGKILL);
    REQUIRE(waitpid(child, nullptr, 0) == child);
    CHECK(is_compiling());
    fresh.cc.set(std::nullopt);
    load_c_source(adds(100 + i), Where::current());
    CHECK_FALSE(is_compiling());
    CHECK(temporaries(fresh.cache) == 0);
    fresh.cc.set(fresh.folder + "/slow");
  }
}

TEST_CASE("a library outlives the caches that dropped it") {
  Fresh fresh;
  const auto library = load_c_source(adds(1), Where::current());
  for (int n = 2; n < 19; ++n) load_c_source(adds(n), Where::current());
  fs::remove_all(fresh.cache);
  testing::forget_loaded_libraries();
  CHECK(call(library, 1) == 2);
}

// Errors: a class with a stable code, what went wrong and what to do, and the user's own line.
#pragma once

#include <cstdint>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

namespace tandem {

/// A line of the user's program. As std::source_location, which clang 14 lacks: a parameter
/// `Where where = Where::current()` holds the line of the call.
class Where {
 public:
  constexpr Where() = default;
  static constexpr Where current(const char* file = __builtin_FILE(), uint32_t line = __builtin_LINE()) {
    Where where;
    where.file_ = file;
    where.line_ = line;
    return where;
  }
  constexpr const char* file_name() const { return file_; }
  constexpr uint32_t line() const { return line_; }
  constexpr bool operator==(const Where&) const = default;

 private:
  const char* file_ = "";
  uint32_t line_ = 0;
};

std::string to_string(const Where& where);  ///< "train.cpp:41"

/// Base of every error that Tandem throws. docs/errors.md has a paragraph for each code.
class Error : public std::runtime_error {
 public:
  /// `what()` reads "tandem::ShapeError: message\n  at train.cpp:41".
  Error(const char* class_name, const char* code, const std::string& message, Where where);
  const char* code() const { return code_; }
  /// The line of the user's program that asked for what failed.
  const Where& where() const { return where_; }
  /// The message alone, without class name and location.
  const std::string& message() const { return message_; }

 private:
  const char* code_;
  std::string message_;
  Where where_;
};

#define TANDEM_ERROR_CLASS(Class, code)                                                              \
  class Class : public Error {                                                                       \
   public:                                                                                           \
    static constexpr const char* kCode = code;                                                       \
    explicit Class(const std::string& message, Where where) : Error(#Class, code, message, where) {} \
  };
// code, class: when it is thrown
TANDEM_ERROR_CLASS(ValueError, "E001")        // an argument outside its range
TANDEM_ERROR_CLASS(ShapeError, "E002")        // shapes that don't fit the op
TANDEM_ERROR_CLASS(DTypeError, "E003")        // a dtype that the op doesn't take
TANDEM_ERROR_CLASS(DeviceError, "E004")       // operands on different devices, or no such device
TANDEM_ERROR_CLASS(DimensionError, "E005")    // a dimension or index out of range
TANDEM_ERROR_CLASS(UndefinedError, "E006")    // an empty Tensor handle where a value is needed
TANDEM_ERROR_CLASS(OutOfMemoryError, "E007")  // the device or the set limit has no room
TANDEM_ERROR_CLASS(LinAlgError, "E008")       // a matrix that has no such decomposition: singular, say
TANDEM_ERROR_CLASS(AutogradError, "E010")     // backward where there is nothing to differentiate, or twice
TANDEM_ERROR_CLASS(InPlaceError, "E011")      // a tensor saved for backward was assigned to, or may not be
TANDEM_ERROR_CLASS(GradCheckError, "E012")    // analytic and numeric gradients differ
TANDEM_ERROR_CLASS(AnomalyError, "E013")      // a gradient that is not finite, under AnomalyMode
TANDEM_ERROR_CLASS(TraceError, "E020")        // a value that graph mode can't know, or that outlived its trace
TANDEM_ERROR_CLASS(RetraceError, "E021")      // more specialisations than the limit allows
TANDEM_ERROR_CLASS(GraphError, "E022")        // a graph that doesn't verify or parse
TANDEM_ERROR_CLASS(CompileError, "E023")      // generated source that the system compiler refused
TANDEM_ERROR_CLASS(KernelError, "E030")       // no kernel for this op on this device, or one that failed
TANDEM_ERROR_CLASS(FileError, "E040")         // a file missing, truncated, corrupted or not writable
#undef TANDEM_ERROR_CLASS

namespace detail {
/// Where text is written: a stream that throws std::bad_alloc where there is no memory for it, instead of ending early in
/// silence, and that writes numbers in one way under any locale.
class TextStream : public std::ostringstream {
 public:
  TextStream() {
    exceptions(std::ios::badbit);
    imbue(std::locale::classic());
  }
};

/// Builds a message from parts: `str("got ", shape, ", need rank ", 2)`.
template <class... Parts> std::string str(const Parts&... parts) {
  TextStream out;
  (out << ... << parts);
  return out.str();
}
/// In a catch block: an error that knows no line of the user's (a device's library's, an allocator's) goes on with the name of
/// what was run, and its line; any other as it is.
[[noreturn]] void rethrow_named(const char* name, Where where);
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line, const std::string& why);
}  // namespace detail

}  // namespace tandem

/// For the engine's own invariants; a user can't cause it to fail.
#define TANDEM_ASSERT(condition, ...)                                               \
  ((condition) ? void(0)                                                            \
               : ::tandem::detail::assertion_failed(#condition, __FILE__, __LINE__, \
                                                    ::tandem::detail::str("" __VA_OPT__(, ) __VA_ARGS__)))

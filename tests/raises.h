// RAISES: a statement that must raise an error, of which tests see what a user sees: class, code, text and line.
#pragma once

#include <doctest/doctest.h>

#include <initializer_list>
#include <string>

#include "core/error.h"

inline void check_error(const tandem::Error& error, const char* name, const char* code, const std::string& file,
                        int line, std::initializer_list<const char*> parts) {
  const std::string text = error.what();
  CAPTURE(text);
  CHECK(std::string(error.code()) == code);
  CHECK(text.rfind("tandem::" + std::string(name) + ": ", 0) == 0);
  for (const char* part : parts)
    CHECK_MESSAGE(text.find(part) != std::string::npos, "no \"" << std::string(part) << "\"");
  const std::string place = "\n  at " + file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(line);
  CHECK_MESSAGE(text.size() >= place.size(), text);
  CHECK_MESSAGE((text.size() >= place.size() && text.compare(text.size() - place.size(), place.size(), place) == 0),
                "line " << line << " is not named");
}

// The statement must raise Class, put down to the line of the macro, in a text with all of these parts.
#define RAISES(Class, statement, ...)                                                  \
  do {                                                                                 \
    const int line = __LINE__;                                                         \
    try {                                                                              \
      statement;                                                                       \
      FAIL_CHECK("no error from " #statement);                                         \
    } catch (const tandem::Class& error) {                                             \
      check_error(error, #Class, tandem::Class::kCode, __FILE__, line, {__VA_ARGS__}); \
    } catch (const std::exception& error) {                                            \
      FAIL_CHECK("another error from " #statement ": " << std::string(error.what()));  \
    }                                                                                  \
  } while (false)

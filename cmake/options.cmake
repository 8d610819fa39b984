# How everything here is compiled: language, build type, warnings, sanitizers, ccache.

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
  endif()
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
endif()

# The launcher is a cache entry so that a user's own choice, also an empty one, stands.
find_program(TANDEM_CCACHE ccache)
mark_as_advanced(TANDEM_CCACHE)
foreach(language CXX CUDA)
  if(TANDEM_CCACHE AND PROJECT_IS_TOP_LEVEL AND NOT DEFINED CMAKE_${language}_COMPILER_LAUNCHER)
    set(CMAKE_${language}_COMPILER_LAUNCHER ${TANDEM_CCACHE} CACHE STRING "Prefix of every compiler call")
  endif()
endforeach()

string(REPLACE "," ";" tandem_sanitizers "${TANDEM_SANITIZE}")
set(tandem_sanitizer_flags)
set(tandem_sanitized FALSE)
if(tandem_sanitizers)
  set(tandem_sanitizer_flags -fsanitize=${TANDEM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  if(TANDEM_SANITIZE MATCHES implicit)
    list(APPEND tandem_sanitizer_flags -fsanitize-ignorelist=${CMAKE_CURRENT_LIST_DIR}/sanitize-ignore.txt)
  endif()
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${tandem_sanitizer_flags}>")
  set(tandem_sanitized TRUE)
  add_link_options(${tandem_sanitizer_flags})
endif()

# What every target of this project gets; nothing of it reaches a user's own targets.
add_library(tandem_flags INTERFACE)
target_compile_features(tandem_flags INTERFACE cxx_std_20)
target_compile_options(tandem_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic>"
  # g++ 12 takes the copies inside operator+(const char*, std::string) for overlapping ones (GCC bug 105651).
  "$<$<AND:$<COMPILE_LANG_AND_ID:CXX,GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>"
  # One operation of the source is one rounding, so that eager, replayed and compiled runs agree bit for bit.
  "$<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>"
  "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${TANDEM_WARNINGS_AS_ERRORS}>>:-Werror>"
  # g++ 12 also suspects the empty state of std::optional and the inline arrays of Shape; the sanitizers and clang
  # know better.
  "$<$<AND:$<COMPILE_LANG_AND_ID:CXX,GNU>,$<BOOL:${TANDEM_WARNINGS_AS_ERRORS}>>:-Wno-error=maybe-uninitialized;-Wno-error=array-bounds;-Wno-error=stringop-overread;-Wno-error=stringop-overflow>")

function(tandem_configure target)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:tandem_flags>)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
endfunction()

# The same for targets that hold CUDA sources. scripts/check-cuda-compile reads these flags from the configured preset.
function(tandem_configure_cuda target)
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--extended-lambda;-Xcompiler=-Wall,-Wextra,-ffp-contract=off;-fmad=false>")
  if(DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set_target_properties(${target} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF)
  else()  # CMake 3.25 doesn't know that nvcc has C++20, and would leave the property out without a word
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>")
  endif()
endfunction()

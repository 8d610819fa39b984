# The loops of math_test.cpp: C++ once per instruction set, and C11 by each C compiler found. Included by
# tests/CMakeLists.txt once tandem_tests exists; tandem_isas and their flags are from cmake/library.cmake.

set(math_flags -O3 -fno-math-errno -fno-trapping-math)
foreach(isa IN LISTS tandem_isas)
  add_library(tandem_math_${isa} OBJECT math/${isa}.cpp)
  tandem_configure(tandem_math_${isa})
  target_include_directories(tandem_math_${isa} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(tandem_math_${isa} PRIVATE ${math_flags} ${tandem_isa_flags_${isa}})
  target_sources(tandem_tests PRIVATE $<TARGET_OBJECTS:tandem_math_${isa}>)
  string(TOUPPER ${isa} upper)
  set_property(SOURCE math_test.cpp philox_test.cpp APPEND PROPERTY COMPILE_DEFINITIONS MATH_WITH_${upper}=1)
endforeach()

# By hand rather than as a language of the project: two C compilers, whatever the C++ one is.
foreach(compiler gcc clang)
  find_program(TANDEM_C_${compiler} ${compiler})
  mark_as_advanced(TANDEM_C_${compiler})
  if(NOT TANDEM_C_${compiler})
    continue()
  endif()
  string(TOUPPER ${compiler} upper)
  target_compile_definitions(tandem_tests PRIVATE MATH_WITH_C_${upper}=1)
  foreach(isa IN LISTS tandem_isas)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/math_c_${compiler}_${isa}.o)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${TANDEM_C_${compiler}} -std=c11 -Wall -Wextra -Wpedantic -fPIC -ffp-contract=off ${math_flags}
              ${tandem_isa_flags_${isa}} -I${PROJECT_SOURCE_DIR} -DMATH_NAME=c_${compiler}_${isa}
              -MD -MF ${object}.d -c ${CMAKE_CURRENT_SOURCE_DIR}/math/functions.c -o ${object}
      MAIN_DEPENDENCY ${CMAKE_CURRENT_SOURCE_DIR}/math/functions.c
      DEPFILE ${object}.d
      COMMENT "Compiling the shared mathematics as C with ${compiler} for ${isa}"
      VERBATIM)
    target_sources(tandem_tests PRIVATE ${object})
    set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  endforeach()
endforeach()

# Tests of the package: installed to a folder of the build tree, then used as a stranger's project would.

set(package ${PROJECT_BINARY_DIR}/package)
set(consumer ${CMAKE_CURRENT_SOURCE_DIR}/consumer)

add_test(NAME package.install
  COMMAND ${CMAKE_COMMAND} -DBUILD=${PROJECT_BINARY_DIR} -DPREFIX=${package} -P ${CMAKE_CURRENT_SOURCE_DIR}/install_package.cmake)
set_tests_properties(package.install PROPERTIES FIXTURES_SETUP package)

function(tandem_add_package_test name)
  add_test(NAME package.${name} COMMAND ${ARGN})
  set_tests_properties(package.${name} PROPERTIES FIXTURES_REQUIRED package LABELS package TIMEOUT 1200)
endfunction()

# The same project three ways. add_subdirectory builds the library again. A compiler cache has all of it, if what it looks at is the
# same: so this is for the same instruction sets, and without the empty locale that CMake leaves behind when it has looked at the
# compiler. Without a cache it is for the portable set alone, which builds sooner.
set(isas)
set(launcher ${CMAKE_CXX_COMPILER_LAUNCHER})
if(launcher MATCHES ccache)
  set(isas ${TANDEM_ISAS})
  list(PREPEND launcher env --unset=LC_ALL --unset=LC_MESSAGES)
endif()
string(REPLACE ";" "$<SEMICOLON>" isas "${isas}")
string(REPLACE ";" "$<SEMICOLON>" launcher "${launcher}")
foreach(way find_package add_subdirectory)
  tandem_add_package_test(${way} ${CMAKE_CTEST_COMMAND}
    --build-and-test ${consumer} ${PROJECT_BINARY_DIR}/consumer/${way}
    --build-generator ${CMAKE_GENERATOR} --build-makeprogram ${CMAKE_MAKE_PROGRAM}
    --build-options -DTANDEM_WAY=${way} -DTANDEM_SOURCE=${PROJECT_SOURCE_DIR} -DTANDEM_PACKAGE=${package}
      -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_BUILD_TYPE=${CMAKE_BUILD_TYPE}
      -DCMAKE_CXX_FLAGS=${CMAKE_CXX_FLAGS} -DTANDEM_WARNINGS_AS_ERRORS=${TANDEM_WARNINGS_AS_ERRORS}
      -DCMAKE_CXX_COMPILER_LAUNCHER=${launcher}
      -DTANDEM_ISAS=${isas} -DTANDEM_WITH_ONEDNN=${TANDEM_WITH_ONEDNN} -DTANDEM_WITH_CUDA=${TANDEM_WITH_CUDA}
    --test-command consumer)
endforeach()
tandem_add_package_test(pkg_config ${CMAKE_CURRENT_SOURCE_DIR}/package_pkg_config.sh
  ${CMAKE_CXX_COMPILER} ${package} ${consumer} ${PROJECT_BINARY_DIR}/consumer/pkg_config)

tandem_add_package_test(headers ${CMAKE_CURRENT_SOURCE_DIR}/package_headers.sh ${CMAKE_CXX_COMPILER} ${package}/include ${PROJECT_SOURCE_DIR})

# A vector kernel's object must not offer the linker an inline function compiled for a newer machine.
foreach(part IN LISTS tandem_vector_targets)
  if(NOT part STREQUAL tandem_vector_portable)
    string(REPLACE "tandem_vector_" "" isa ${part})
    add_test(NAME package.${isa}_stays_apart COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/package_isa_apart.sh
      ${CMAKE_NM} ${isa} $<TARGET_OBJECTS:${part}> COMMAND_EXPAND_LISTS)
  endif()
endforeach()

# Programs beside the library: a file each. tools/NAME.cpp may have further files in tools/NAME/; those that are
# called like an instruction set (avx2.cpp) are compiled for it, as the library's vector kernels are.

# tandem_add_program(TARGET LIBRARY FOLDER NAME [PACKAGE...]): FOLDER/NAME.cpp and its parts, with LIBRARY.
function(tandem_add_program target library folder name)
  file(GLOB parts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/${name}/*.cpp)
  foreach(isa IN LISTS tandem_isas)
    set_property(SOURCE ${PROJECT_SOURCE_DIR}/${folder}/${name}/${isa}.cpp PROPERTY
      COMPILE_OPTIONS ${tandem_isa_flags_${isa}} -O3 -fno-math-errno -fno-trapping-math)
  endforeach()
  add_executable(${target} ${PROJECT_SOURCE_DIR}/${folder}/${name}.cpp ${parts})
  tandem_configure(${target})
  target_link_libraries(${target} PRIVATE ${library} ${ARGN})
  if(NOT folder STREQUAL examples)  # which see what users see
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  endif()
  set_target_properties(${target} PROPERTIES
    OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/${folder})
endfunction()

function(tandem_add_programs folder)
  file(GLOB mains CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cpp)
  foreach(main IN LISTS mains)
    get_filename_component(name ${main} NAME_WE)
    set(target ${folder}_${name})  # a prefix: the command is called like the library
    tandem_add_program(${target} tandem::tandem ${folder} ${name} ${ARGN})
    set_property(GLOBAL APPEND PROPERTY tandem_${folder} ${target})
  endforeach()
  if(PROJECT_IS_TOP_LEVEL)
    get_property(programs GLOBAL PROPERTY tandem_${folder})
    add_custom_target(${folder} DEPENDS ${programs})
  endif()
endfunction()

if(TANDEM_BUILD_TOOLS)
  tandem_add_programs(tools CLI11::CLI11 nlohmann_json::nlohmann_json)
  get_property(tools GLOBAL PROPERTY tandem_tools)
  if(TANDEM_INSTALL AND tools)
    install(TARGETS ${tools} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endif()
if(TANDEM_BUILD_EXAMPLES)
  tandem_add_programs(examples CLI11::CLI11)
endif()
if(TANDEM_BUILD_BENCH)
  if(benchmark_FOUND)
    tandem_add_programs(bench benchmark::benchmark)
  else()
    message(STATUS "Google Benchmark was not found: no benchmarks (Debian: apt-get install libbenchmark-dev)")
  endif()
endif()

# The library. Sources are found by their folders, so that a new op, pass or kernel is added to no list:
#   assemble.cpp, ROOM/**/*.cpp  compiled once, for the baseline of the architecture
#   kernels/cpu/vector/*.cpp     compiled once per instruction set, each in a namespace of its own
#   kernels/cuda/*.{cu,cpp}      with CUDA; without it kernels/no_cuda.cpp stands in

set(sources_root ${CMAKE_CURRENT_SOURCE_DIR})
set(tandem_rooms core autograd kernels nn graph formats data lab)
set(tandem_sources)
foreach(room IN LISTS tandem_rooms)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${sources_root}/${room}/*.cpp)
  list(APPEND tandem_sources ${sources})
endforeach()
list(FILTER tandem_sources EXCLUDE REGEX "/kernels/(cpu/vector|cuda)/|/kernels/no_cuda\\.cpp$")
list(APPEND tandem_sources ${sources_root}/assemble.cpp)
file(GLOB tandem_vector_sources CONFIGURE_DEPENDS ${sources_root}/kernels/cpu/vector/*.cpp)
file(GLOB tandem_cuda_sources CONFIGURE_DEPENDS ${sources_root}/kernels/cuda/*.cu ${sources_root}/kernels/cuda/*.cpp)

# The families that have kernels for CUDA are those with a file there: a family without one needs no stub.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${sources_root}/core/families.def)
file(STRINGS ${sources_root}/core/families.def tandem_families REGEX "^TANDEM_FAMILY")
list(TRANSFORM tandem_families REPLACE "TANDEM_FAMILY\\((.*)\\)" "\\1")
set(declarations)
set(calls)
foreach(family IN LISTS tandem_families)
  if(EXISTS ${sources_root}/kernels/cuda/${family}.cu)
    string(APPEND declarations "void add_cuda_${family}(Kernels kernels);\n")
    string(APPEND calls "  add_cuda_${family}(kernels);\n")
  endif()
endforeach()
set(tandem_cuda_families ${CMAKE_CURRENT_BINARY_DIR}/generated/cuda_families.cpp)
file(CONFIGURE OUTPUT ${tandem_cuda_families} CONTENT "#include \"core/op.h\"
namespace tandem {
${declarations}void add_cuda_families(Kernels kernels) {
${calls}}
}  // namespace tandem
")

set(tandem_definitions TANDEM_VERSION="${PROJECT_VERSION}")

# Objects ------------------------------------------------------------------------------------------------------

# Eigen and nlohmann-json are headers that only our own files see: they are given as include paths rather
# than linked, so that no installed target asks a user for them.
function(tandem_configure_objects target)
  tandem_configure(${target})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE OpenMP::OpenMP_CXX)
  target_compile_definitions(${target} PRIVATE ${tandem_definitions})
  # errno and traps keep the compiler from vectorising square roots and selections. Nothing reads them.
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno;-fno-trapping-math>")
endfunction()

add_library(tandem_objects OBJECT ${tandem_sources} ${tandem_embedded_cpp})
tandem_configure_objects(tandem_objects)
target_link_libraries(tandem_objects PRIVATE Eigen3::Eigen nlohmann_json::nlohmann_json ZLIB::ZLIB Threads::Threads)
if(tandem_onednn)
  target_link_libraries(tandem_objects PRIVATE OneDNN::OneDNN)
endif()

# Vector kernels -------------------------------------------------------------------------------------------------

# TANDEM_ISA is the name of the namespace. The instruction sets that exist are told to the rest of the library
# as TANDEM_WITH_AVX2 and TANDEM_WITH_AVX512, which choose among them when the program starts.
set(tandem_isas portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(TANDEM_ISAS "avx2;avx512" CACHE STRING "Instruction sets beside the portable one; fewer build sooner")
  list(APPEND tandem_isas ${TANDEM_ISAS})
endif()
set(tandem_isa_flags_portable)
set(tandem_isa_flags_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
set(tandem_isa_flags_avx512 ${tandem_isa_flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)

set(tandem_vector_targets)
if(tandem_vector_sources)
  foreach(isa IN LISTS tandem_isas)
    add_library(tandem_vector_${isa} OBJECT ${tandem_vector_sources})
    tandem_configure_objects(tandem_vector_${isa})
    target_compile_definitions(tandem_vector_${isa} PRIVATE TANDEM_ISA=${isa})
    # Optimised in every build type: else these loops are slower by ten times and more. Under sanitizers, whose checks keep
    # most of them from being vectorised, -O1 has all of the gain.
    target_compile_options(tandem_vector_${isa} PRIVATE ${tandem_isa_flags_${isa}} $<IF:$<BOOL:${tandem_sanitized}>,-O1,-O3>
      # clang warns of `omp simd` loops that have no vector form, such as pow on integers. They run as they are.
      $<$<CXX_COMPILER_ID:Clang,AppleClang>:-Wno-pass-failed>)
    list(APPEND tandem_vector_targets tandem_vector_${isa})
  endforeach()
endif()

# Which optional parts exist is told to the files that choose between them, so that switching one of them
# compiles few files again: kernels for oneDNN and the instruction sets, and everything that may name CUDA.
set(tandem_part_definitions)
if(tandem_onednn)
  list(APPEND tandem_part_definitions TANDEM_WITH_ONEDNN=1)
endif()
if("avx2" IN_LIST tandem_isas)
  list(APPEND tandem_part_definitions TANDEM_WITH_AVX2=1)
endif()
if("avx512" IN_LIST tandem_isas)
  list(APPEND tandem_part_definitions TANDEM_WITH_AVX512=1)
endif()
target_compile_definitions(tandem_objects PRIVATE ${tandem_part_definitions})

# CUDA -----------------------------------------------------------------------------------------------------------

set(tandem_device_targets)
if(tandem_cuda AND tandem_cuda_sources)
  target_compile_definitions(tandem_objects PRIVATE TANDEM_WITH_CUDA=1)
  target_link_libraries(tandem_objects PRIVATE CUDA::toolkit)
  add_library(tandem_cuda OBJECT ${tandem_cuda_sources} ${tandem_cuda_families})
  tandem_configure_objects(tandem_cuda)
  target_compile_definitions(tandem_cuda PRIVATE TANDEM_WITH_CUDA=1)
  tandem_configure_cuda(tandem_cuda)
  target_link_libraries(tandem_cuda PRIVATE CUDA::toolkit)
  if(CuDNN_FOUND)
    target_compile_definitions(tandem_cuda PRIVATE TANDEM_WITH_CUDNN=1)
    target_link_libraries(tandem_cuda PRIVATE CuDNN::CuDNN)
  endif()
  list(APPEND tandem_device_targets tandem_cuda)
elseif(EXISTS ${sources_root}/kernels/no_cuda.cpp)
  add_library(tandem_no_cuda OBJECT ${sources_root}/kernels/no_cuda.cpp)
  tandem_configure_objects(tandem_no_cuda)
  list(APPEND tandem_device_targets tandem_no_cuda)
endif()

# The library ----------------------------------------------------------------------------------------------------

set(tandem_host_objects $<TARGET_OBJECTS:tandem_objects>)
foreach(part IN LISTS tandem_vector_targets)
  list(APPEND tandem_host_objects $<TARGET_OBJECTS:${part}>)
endforeach()
set(tandem_device_objects)
foreach(part IN LISTS tandem_device_targets)
  list(APPEND tandem_device_objects $<TARGET_OBJECTS:${part}>)
endforeach()

# Programs include <tandem/tandem.h>. Installed, that is a folder of its own; here, a folder of links to the rooms.
# Our own sources don't go through it: diagnostics and dependencies then name the files where they are.
set(tandem_links ${CMAKE_CURRENT_BINARY_DIR}/include)
file(MAKE_DIRECTORY ${tandem_links}/tandem)
foreach(link IN LISTS tandem_rooms ITEMS tandem.h)
  file(CREATE_LINK ${sources_root}/${link} ${tandem_links}/tandem/${link} SYMBOLIC)
endforeach()

# What a program that links the objects must link and see.
function(tandem_configure_library target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${tandem_links}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} PRIVATE OpenMP::OpenMP_CXX ZLIB::ZLIB Threads::Threads ${CMAKE_DL_LIBS})
  if(tandem_onednn)
    target_link_libraries(${target} PRIVATE OneDNN::OneDNN)
  endif()
endfunction()

add_library(tandem ${tandem_host_objects} ${tandem_device_objects})
add_library(tandem::tandem ALIAS tandem)
tandem_configure_library(tandem)
set_target_properties(tandem PROPERTIES
  LINKER_LANGUAGE CXX VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
if(tandem_cuda)
  target_link_libraries(tandem PRIVATE CUDA::cudart_static CUDA::cublasLt CUDA::nvrtc)
  if(CuDNN_FOUND)
    target_link_libraries(tandem PRIVATE CuDNN::CuDNN)
  endif()
endif()

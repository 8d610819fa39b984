# Puts source files into the library, for the code generators to paste into what they emit.
# They are asked for by tandem::embedded::source (graph/codegen/embedded.h).

file(GLOB tandem_embedded CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}
  ${CMAKE_CURRENT_SOURCE_DIR}/core/scalar/*.h
  ${CMAKE_CURRENT_SOURCE_DIR}/core/pointwise.def
  ${CMAKE_CURRENT_SOURCE_DIR}/kernels/cuda/range_note.cuh)
set(tandem_embedded_cpp ${CMAKE_CURRENT_BINARY_DIR}/generated/embedded_sources.cpp)

add_custom_command(
  OUTPUT ${tandem_embedded_cpp}
  COMMAND ${CMAKE_COMMAND} "-DFILES=${tandem_embedded}" -DROOT=${CMAKE_CURRENT_SOURCE_DIR}
          -DOUTPUT=${tandem_embedded_cpp} -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/embed_script.cmake
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
  DEPENDS ${tandem_embedded} cmake/embed_script.cmake
  COMMENT "Embedding sources for the code generators"
  VERBATIM)

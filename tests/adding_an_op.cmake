# The test that docs/adding-an-op.md is true. It links the objects of this build with those that the page changes,
# so it needs a static library, with symbols that one object can take over from another.
if(BUILD_SHARED_LIBS OR NOT TARGET tandem_tests)
  return()
endif()
set(work ${CMAKE_CURRENT_BINARY_DIR}/adding_an_op)
set(libraries)
if(tandem_onednn)
  list(APPEND libraries ${OneDNN_LIBRARY})
endif()
if(tandem_cuda)
  list(APPEND libraries -L${CUDAToolkit_LIBRARY_DIR} cudart cublasLt nvrtc cuda ${CuDNN_LIBRARY})
endif()
# Of the tests: their main, the generated ones, and the samples that the page doesn't touch.
set(objects "$<FILTER:$<TARGET_OBJECTS:tandem_samples>,EXCLUDE,/samples/(pointwise|reduce)[.]>")
file(GENERATE OUTPUT ${work}/settings.cmake CONTENT "set(TREE ${work}/tree)
set(LIBRARY $<TARGET_FILE:tandem>)
set(TEST_OBJECTS $<TARGET_OBJECTS:tandem_test_main>;${objects})
set(LIBRARIES ${libraries})
set(SOURCE ${PROJECT_SOURCE_DIR})
set(EMULATOR ${CMAKE_CURRENT_SOURCE_DIR}/emulator/include)
set(FLAGS ${tandem_sanitizer_flags})
")
add_test(NAME adding_an_op COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DWORK=${work} -DSETTINGS=${work}/settings.cmake
  -DGENERATOR=${CMAKE_GENERATOR} -DCOMPILER=${CMAKE_CXX_COMPILER} -DLAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER}
  -P ${CMAKE_CURRENT_SOURCE_DIR}/adding_an_op/run.cmake)
set_tests_properties(adding_an_op PROPERTIES TIMEOUT 600)

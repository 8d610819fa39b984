# Each example on cuda(0), eagerly, replayed and compiled, against itself on the CPU: the same losses, so the same random draws,
# and the same output (cuda/example_runs.cpp). The sizes are such that the emulator needs seconds; a GPU runs the same. The third step
# of a compiled function is the first that is one launch of a captured graph.

add_executable(tandem_example_runs cuda/example_runs.cpp)
tandem_configure(tandem_example_runs)

# tandem_add_example_on_cuda(NAME BOUND ARGUMENT...)
function(tandem_add_example_on_cuda name bound)
  if(NOT TARGET examples_${name})
    return()
  endif()
  set(program examples_${name})
  set(entry cuda.example.${name})
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/examples_cuda/${name})
  if(TARGET tandem_emulated)
    set(program tandem_emulated_examples_${name})
    set(entry emulator.example.${name})
    if(NOT TARGET ${program})  # else it is packed as well
      tandem_add_program(${program} tandem_emulated examples ${name} CLI11::CLI11)
      set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${folder})
    endif()
    set_target_properties(${program} PROPERTIES EXCLUDE_FROM_ALL FALSE)
  endif()
  file(MAKE_DIRECTORY ${folder})
  add_test(NAME ${entry} COMMAND tandem_example_runs ${bound} $<TARGET_FILE:${program}> ${ARGN} WORKING_DIRECTORY ${folder})
  set_tests_properties(${entry} PROPERTIES LABELS example TIMEOUT 900
    ENVIRONMENT "${tandem_test_environment};TANDEM_CACHE_DIR=${folder}/kernels")
endfunction()

tandem_add_example_on_cuda(quickstart 1e-5)
tandem_add_example_on_cuda(linear_regression 1e-5 --steps 4 --losses RUN.losses)
tandem_add_example_on_cuda(mnist 1e-5 --model lenet --steps 4 --batch 4 --held-out 8 --losses RUN.losses)
tandem_add_example_on_cuda(cifar 1e-5 --width 8 --steps 3 --batch 4 --held-out 4 --losses RUN.losses --save RUN.safetensors)
tandem_add_example_on_cuda(gpt 1e-5 --layers 2 --width 32 --heads 2 --context 16 --dropout 0.1 --steps 4 --batch 2 --length 4
  --held-out 2 --losses RUN.losses --save RUN.safetensors)
tandem_add_example_on_cuda(char_rnn 1e-5 --layers 2 --width 32 --context 8 --dropout 0.1 --steps 4 --batch 2 --length 4
  --held-out 2 --losses RUN.losses --save RUN.safetensors)
tandem_add_example_on_cuda(vae 1e-5 --steps 4 --batch 4 --held-out 4 --losses RUN.losses --save RUN.safetensors --picture RUN.pgm)
tandem_add_example_on_cuda(dcgan 1e-5 --steps 3 --batch 2 --losses RUN.losses --save RUN.safetensors --picture NONE)
tandem_add_example_on_cuda(tree_lstm 1e-5 --steps 4 --leaves 3 --batch 4 --losses RUN.losses --save RUN.safetensors)

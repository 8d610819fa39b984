# Short runs of the examples on data that they make themselves, in each mode. They train on real data where
# TANDEM_DATA (MNIST), TANDEM_CIFAR or TANDEM_TEXT name it, as the examples do anywhere. What an example prints last
# must show that it has learned something. cifar would need minutes for that: it must leave the same weights in each mode.

# tandem_add_example_test(NAME PATTERN ARGUMENT...)
function(tandem_add_example_test name pattern)
  if(NOT TARGET examples_${name})
    return()
  endif()
  set(modes eager replay compiled)
  if(TANDEM_SANITIZE)
    set(modes eager)
  endif()
  foreach(mode IN LISTS modes)
    string(REPLACE "MODE" "${mode}" arguments "${ARGN}")  # files of its own
    add_test(NAME example.${name}.${mode} COMMAND examples_${name} --mode ${mode} ${arguments} WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
    set_tests_properties(example.${name}.${mode} PROPERTIES LABELS example TIMEOUT 900 PASS_REGULAR_EXPRESSION "${pattern}"
      ENVIRONMENT "${tandem_test_environment}")
  endforeach()
endfunction()

tandem_add_example_test(linear_regression "largest error of a weight 0\\.0" --steps 200)
tandem_add_example_test(mnist "accuracy (0\\.[7-9]|1)" --model mlp --steps 80)
tandem_add_example_test(cifar "accuracy 0\\.[0-9]+" --width 8 --batch 32 --steps 20 --save cifar_MODE.safetensors)
tandem_add_example_test(gpt "held-out [0-2]\\." --layers 1 --width 32 --context 32 --steps 80 --lr 0.01 --length 20 --save gpt_MODE.safetensors)
tandem_add_example_test(char_rnn "held-out [0-2]\\." --layers 1 --width 64 --context 32 --steps 60 --lr 0.01 --length 20 --save char_rnn_MODE.safetensors)
tandem_add_example_test(vae "held-out bound [1-3]?[0-9]?[0-9]\\." --steps 60 --save vae_MODE.safetensors --picture vae_MODE.pgm)
tandem_add_example_test(dcgan "loss of judging 0\\.[0-9]+ .* of drawing [1-9]" --steps 4 --batch 16 --save dcgan_MODE.safetensors --picture dcgan_MODE.pgm)
tandem_add_example_test(tree_lstm "right 0\\.[2-9]" --steps 80 --leaves 3 --save tree_lstm_MODE.safetensors)

if(TEST example.cifar.compiled)
  foreach(mode replay compiled)
    add_test(NAME example.cifar.eager_and_${mode}
      COMMAND ${CMAKE_COMMAND} -E compare_files cifar_eager.safetensors cifar_${mode}.safetensors WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
    set_tests_properties(example.cifar.eager_and_${mode} PROPERTIES LABELS example FIXTURES_REQUIRED "cifar_eager;cifar_${mode}")
  endforeach()
  foreach(mode eager replay compiled)
    set_tests_properties(example.cifar.${mode} PROPERTIES FIXTURES_SETUP cifar_${mode})
  endforeach()
endif()

# What is drawn from a language model is drawn: another seed writes something else, the same seed the same, and a low
# temperature repeats itself.
foreach(name gpt char_rnn)
  if(TARGET examples_${name})
    add_test(NAME example.${name}.draws COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:examples_${name}>
      -DWORK=${CMAKE_CURRENT_BINARY_DIR}/draws_${name} -P ${CMAKE_CURRENT_SOURCE_DIR}/examples_draw.cmake)
    set_tests_properties(example.${name}.draws PROPERTIES LABELS example TIMEOUT 900 ENVIRONMENT "${tandem_test_environment}")
  endif()
endforeach()

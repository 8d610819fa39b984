# Copies the tree to WORK, applies docs/adding-an-op.md, builds what that changes and tests the new ops.
include(${SOURCE}/tests/adding_an_op/apply.cmake)
apply_page(docs/adding-an-op.md 10 core kernels autograd tests/samples tests/emulator)
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/adding_an_op -B ${WORK}/build -G ${GENERATOR} -DSETTINGS=${SETTINGS}
    -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER})
run(${CMAKE_COMMAND} --build ${WORK}/build --parallel 2)
set(ENV{TANDEM_ISA} portable)
set(ENV{OMP_NUM_THREADS} 2)
foreach(op squareplus running_mean)
  set(ENV{TANDEM_TEST_OP} ${op})
  run(${WORK}/build/new_ops --source-file=*generated_test.cpp --test-case=every*)
endforeach()

# Copies the tree to WORK, applies docs/adding-a-pass.md, builds what that changes and runs the new test.
include(${SOURCE}/tests/adding_an_op/apply.cmake)
apply_page(docs/adding-a-pass.md 4 core autograd nn graph formats data lab tandem.h)
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/adding_a_pass -B ${WORK}/build -G ${GENERATOR} -DSETTINGS=${SETTINGS} -DTREE=${tree}
    -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER})
run(${CMAKE_COMMAND} --build ${WORK}/build --parallel 2)
run(${WORK}/build/new_pass)

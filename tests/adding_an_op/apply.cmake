# For scripts that make a page of docs/ come true in a copy of the tree. Given: SOURCE, WORK.
set(tree ${WORK}/tree)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${output}\nfailed: ${ARGN}")
  endif()
  message(STATUS "${output}")
endfunction()

# apply_page(PAGE CHANGES FOLDER...): copies the folders to the tree, and makes at least so many changes of the page.
function(apply_page page changes)
  file(REMOVE_RECURSE ${tree})
  file(MAKE_DIRECTORY ${tree}/tests)
  foreach(folder IN LISTS ARGN)
    get_filename_component(parent ${tree}/${folder} DIRECTORY)
    file(COPY ${SOURCE}/${folder} DESTINATION ${parent})
  endforeach()
  run(sh ${SOURCE}/tests/adding_an_op/apply.sh ${SOURCE}/${page} ${tree} ${changes})
endfunction()

# Installs the library, its public headers, and what find_package(tandem) and pkg-config read.
include(CMakePackageConfigHelpers)

# Kernels, passes, code generators and the runner are ours alone: their headers may include Eigen, oneDNN or CUDA.
# Public headers include one another relatively, so that they clash with nobody's wherever they are put.
set(tandem_include ${CMAKE_INSTALL_INCLUDEDIR}/tandem)
install(FILES tandem.h DESTINATION ${tandem_include})
install(DIRECTORY core autograd nn formats data lab DESTINATION ${tandem_include}
  FILES_MATCHING PATTERN "*.h" PATTERN "*.def")
install(DIRECTORY graph/ir graph/trace DESTINATION ${tandem_include}/graph FILES_MATCHING PATTERN "*.h")
install(TARGETS tandem EXPORT tandem
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

set(tandem_config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/tandem)
install(EXPORT tandem NAMESPACE tandem:: FILE tandemTargets.cmake DESTINATION ${tandem_config_folder})
configure_package_config_file(cmake/tandemConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/generated/tandemConfig.cmake
  INSTALL_DESTINATION ${tandem_config_folder} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/generated/tandemConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/generated/tandemConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/generated/tandemConfigVersion.cmake
  cmake/FindOneDNN.cmake cmake/FindCuDNN.cmake
  DESTINATION ${tandem_config_folder})

# pkg-config shows private needs only when asked with --static. A static libtandem always has them, so that there
# they are public.
set(tandem_pc_libs ${OpenMP_CXX_FLAGS} -pthread)
foreach(library IN LISTS CMAKE_DL_LIBS)
  list(APPEND tandem_pc_libs -l${library})
endforeach()
if(tandem_onednn)
  list(APPEND tandem_pc_libs ${OneDNN_LIBRARY})
endif()
if(tandem_cuda)
  list(APPEND tandem_pc_libs -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lrt -lcublasLt -lnvrtc)
  if(CuDNN_FOUND)
    list(APPEND tandem_pc_libs ${CuDNN_LIBRARY})
  endif()
endif()
list(JOIN tandem_pc_libs " " tandem_pc_libs)
set(tandem_pc_public "")
set(tandem_pc_private "")
set(tandem_pc_requires "")
if(BUILD_SHARED_LIBS)
  set(tandem_pc_private "${tandem_pc_libs}")
else()
  set(tandem_pc_public "${tandem_pc_libs}")
  set(tandem_pc_requires zlib)
endif()
file(RELATIVE_PATH tandem_pc_up ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/tandem.pc.in ${CMAKE_CURRENT_BINARY_DIR}/generated/tandem.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/generated/tandem.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

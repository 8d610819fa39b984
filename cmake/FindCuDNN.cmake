# Finds cuDNN, beside the CUDA toolkit or on the system's paths.
find_path(CuDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(CuDNN_LIBRARY NAMES cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
mark_as_advanced(CuDNN_INCLUDE_DIR CuDNN_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CuDNN REQUIRED_VARS CuDNN_LIBRARY CuDNN_INCLUDE_DIR)

if(CuDNN_FOUND AND NOT TARGET CuDNN::CuDNN)
  add_library(CuDNN::CuDNN UNKNOWN IMPORTED)
  set_target_properties(CuDNN::CuDNN PROPERTIES
    IMPORTED_LOCATION ${CuDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${CuDNN_INCLUDE_DIR})
endif()

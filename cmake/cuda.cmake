# torch::cuda, libtorch's CUDA half, and the CUDA language. The compiler is CUDACXX or
# CMAKE_CUDA_COMPILER where one is given, else the one that scripts/setup --cuda has unpacked.

if(NOT EXISTS "${PRICER_DEPS}/cuda/torch/lib/libtorch_cuda.so")
  message(FATAL_ERROR "No CUDA half of libtorch below ${PRICER_DEPS}/cuda; run scripts/setup --cuda first")
endif()
file(REAL_PATH "${PRICER_DEPS}/cuda" cuda_wheels)
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(CMAKE_CUDA_COMPILER "${cuda_wheels}/nvidia/cu13/bin/nvcc")
endif()
# Ampere, Ada, Hopper and Blackwell; the last one's PTX is for what comes after.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100)
endif()
# The wheel's libraries are in lib, where nvcc looks in lib64. libtorch loads the shared runtime; a
# second one would not know its streams.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
get_filename_component(cuda_home "${cuda_wheels}/nvidia/cu13" ABSOLUTE)
set(CMAKE_CUDA_FLAGS_INIT "-L${cuda_home}/lib")
enable_language(CUDA)

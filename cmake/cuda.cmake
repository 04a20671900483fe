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
# The wheel's libraries are in lib, where nvcc looks in lib64.
get_filename_component(cuda_home "${cuda_wheels}/nvidia/cu13" ABSOLUTE)
set(CMAKE_CUDA_FLAGS_INIT "-L${cuda_home}/lib")
enable_language(CUDA)
# torch::cudart below: the runtime that libtorch loads, since a second one would not know its streams.
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
# Which CMake 3.25 does not know of this compiler.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)

# --expt-relaxed-constexpr: constexpr functions, such as those of model/philox.h, run on both sides.
add_library(pricer_cuda_flags INTERFACE)
target_compile_options(pricer_cuda_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>
  $<$<COMPILE_LANGUAGE:CUDA>:$<$<BOOL:${PRICER_WERROR}>:-Werror all-warnings -Xptxas --warn-on-spills -Xcompiler -Wall,-Wextra>>)

foreach(name c10_cuda torch_cuda)
  add_library(torch::${name} SHARED IMPORTED)
  set_target_properties(torch::${name} PROPERTIES
    IMPORTED_LOCATION "${cuda_wheels}/torch/lib/lib${name}.so")
endforeach()
add_library(torch::cudart SHARED IMPORTED)
set_target_properties(torch::cudart PROPERTIES
  IMPORTED_LOCATION "${cuda_home}/lib/libcudart.so.13")

add_library(torch::cuda INTERFACE IMPORTED)
target_link_libraries(torch::cuda INTERFACE torch::torch_cuda torch::c10_cuda torch::cudart torch::cpu)
target_compile_options(torch::cuda INTERFACE "SHELL:-idirafter ${cuda_home}/include")
# libtorch_cuda.so registers its operators when it is loaded, which nothing asks for by name; the
# libraries that it needs in turn are there where a GPU is.
target_link_options(torch::cuda INTERFACE -Wl,--no-as-needed
  -Wl,--unresolved-symbols=ignore-in-shared-libs)

# torch::cpu, the CPU half of libtorch as scripts/setup has unpacked it from the wheel.
# The wheel's own TorchConfig.cmake demands a CUDA toolkit, so the targets are declared here.

file(REAL_PATH "${PRICER_DEPS}/wheels" wheels)
set(torch_lib "${wheels}/torch/lib")
if(NOT EXISTS "${torch_lib}/libtorch_cpu.so")
  message(FATAL_ERROR "No libtorch below ${PRICER_DEPS}/wheels; run scripts/setup first")
endif()

foreach(name c10 torch_cpu)
  add_library(torch::${name} SHARED IMPORTED)
  set_target_properties(torch::${name} PROPERTIES IMPORTED_LOCATION "${torch_lib}/lib${name}.so")
endforeach()
add_library(torch::gomp SHARED IMPORTED)
set_target_properties(torch::gomp PROPERTIES IMPORTED_LOCATION "${torch_lib}/libgomp.so.1")

add_library(torch::cpu INTERFACE IMPORTED)
target_link_libraries(torch::cpu INTERFACE torch::torch_cpu torch::c10 torch::gomp)
# -idirafter: the wheel carries google/protobuf headers of another version than the system's.
# -fopenmp: at::parallel_for is an inline function and serial without it. The OpenMP runtime is the
# one that libtorch itself uses.
target_compile_options(torch::cpu INTERFACE "SHELL:-idirafter ${wheels}/torch/include" -fopenmp)
# libtorch_cpu.so needs the CUDA runtime and profiler libraries to load, whether or not there is a
# device. It finds them by its own rpath; the linker has to be told.
target_link_options(torch::cpu INTERFACE "-Wl,-rpath-link,${wheels}/nvidia/cu13/lib")

# c10d with Gloo, which is inside libtorch_cpu. Its headers include those of the C++ frontend, and
# gloo's own, which are Debian's.
add_library(torch::c10d INTERFACE IMPORTED)
target_link_libraries(torch::c10d INTERFACE torch::cpu)
target_compile_definitions(torch::c10d INTERFACE USE_C10D_GLOO)
target_compile_options(torch::c10d INTERFACE
  "SHELL:-idirafter ${wheels}/torch/include/torch/csrc/api/include")

# What every file that computes with tensors includes, compiled once.
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/torch_headers.cc" CONTENT "")
add_library(pricer_torch_headers OBJECT "${CMAKE_BINARY_DIR}/torch_headers.cc")
target_link_libraries(pricer_torch_headers PRIVATE torch::cpu pricer_flags)
target_precompile_headers(pricer_torch_headers PRIVATE <ATen/ATen.h>)

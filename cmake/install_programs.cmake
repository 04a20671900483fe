# cmake --install BUILD --prefix PREFIX --component server (pricer-server, pricer) or trainer
# (pricer-trainer): programs, and beside them the libraries that come out of wheels. Those of Debian's
# packages are not installed: the Dockerfile lists the packages.

set(pricer_library_folder lib/pricer)
set(wheel_libraries
  "${wheels}/torch/lib/libtorch_cpu.so" "${wheels}/torch/lib/libc10.so" "${wheels}/torch/lib/libgomp.so.1"
  "${wheels}/nvidia/cu13/lib/libcudart.so.13" "${wheels}/nvidia/cu13/lib/libcupti.so.13"
  "${arrow_wheel}/libarrow.so.${arrow_so_version}" "${arrow_wheel}/libparquet.so.${arrow_so_version}"
  "${arrow_wheel}/libarrow_s3.so.${arrow_so_version}")

if(PRICER_CUDA)
  # libtorch_cuda.so looks for what it loads beside itself.
  file(GLOB cuda_run_libraries "${PRICER_DEPS}/cuda-run/torch/lib/*.so" "${PRICER_DEPS}/cuda-run/nvidia/*/lib/*.so*")
  list(APPEND wheel_libraries ${cuda_run_libraries}
    "${cuda_wheels}/torch/lib/libtorch_cuda.so" "${cuda_wheels}/torch/lib/libc10_cuda.so")
endif()

foreach(component_and_programs "server;pricer-server;pricer" "trainer;pricer-trainer")
  list(POP_FRONT component_and_programs component)
  foreach(program ${component_and_programs})
    set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/../${pricer_library_folder}")
  endforeach()
  install(TARGETS ${component_and_programs} RUNTIME DESTINATION bin COMPONENT ${component})
  install(PROGRAMS ${wheel_libraries} DESTINATION ${pricer_library_folder} COMPONENT ${component})
endforeach()

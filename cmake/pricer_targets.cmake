# The functions that every folder declares its targets with. DEPS are what the headers need (public),
# PRIVATE_DEPS what only the .cc files need. A target that depends on something this configuration
# leaves out is left out too, so the link lists need no conditions.

# pricer_unavailable(TARGET...): this configuration leaves these targets out.
function(pricer_unavailable)
  set_property(GLOBAL APPEND PROPERTY pricer_unavailable ${ARGN})
endfunction()

# Sets OUT to those of the targets that this configuration leaves out. Where a part is switched off,
# a target that was never declared counts as left out with it.
function(pricer_missing out)
  get_property(unavailable GLOBAL PROPERTY pricer_unavailable)
  if(PRICER_TORCH AND PRICER_SERVER AND PRICER_CLIENT)
    set(complete TRUE)
  endif()
  set(missing "")
  foreach(dep ${ARGN})
    if(dep IN_LIST unavailable OR NOT (complete OR TARGET ${dep}))
      list(APPEND missing ${dep})
    endif()
  endforeach()
  set(${out} "${missing}" PARENT_SCOPE)
endfunction()

# Lets a target that sees libtorch's headers share one precompiled <ATen/ATen.h> (cmake/libtorch.cmake):
# it is three quarters of the time that such a file takes to compile.
function(pricer_share_torch_headers name)
  get_property(with_torch GLOBAL PROPERTY pricer_with_torch)
  foreach(dep torch::cpu ${with_torch})
    if(dep IN_LIST ARGN)
      set_property(GLOBAL APPEND PROPERTY pricer_with_torch ${name})
      if(TARGET pricer_torch_headers)
        target_precompile_headers(${name} REUSE_FROM pricer_torch_headers)
      endif()
      return()
    endif()
  endforeach()
endfunction()

# pricer_library(NAME SRCS file... DEPS target... [PRIVATE_DEPS target...]); no SRCS: headers only.
function(pricer_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS;PRIVATE_DEPS")
  pricer_missing(missing ${arg_DEPS} ${arg_PRIVATE_DEPS})
  if(missing)
    pricer_unavailable(${name})
    return()
  endif()
  if(arg_SRCS)
    add_library(${name} STATIC ${arg_SRCS})
    target_include_directories(${name} PUBLIC "${CMAKE_SOURCE_DIR}")
    target_link_libraries(${name} PUBLIC ${arg_DEPS} PRIVATE ${arg_PRIVATE_DEPS} pricer_flags)
    pricer_share_torch_headers(${name} ${arg_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE "${CMAKE_SOURCE_DIR}")
    target_link_libraries(${name} INTERFACE ${arg_DEPS})
  endif()
endfunction()

# pricer_executable(NAME SRCS file... DEPS target...)
function(pricer_executable name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS;PRIVATE_DEPS")
  pricer_missing(missing ${arg_DEPS} ${arg_PRIVATE_DEPS})
  if(missing)
    pricer_unavailable(${name})
    return()
  endif()
  add_executable(${name} ${arg_SRCS})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${arg_DEPS} ${arg_PRIVATE_DEPS} pricer_flags)
  pricer_share_torch_headers(${name} ${arg_DEPS})
endfunction()

# pricer_test(NAME SRCS file... DEPS target... [LABELS label...] [TSAN] [TIMEOUT seconds])
# One program and one ctest entry, run in the source root with PRICER_TEST_DATA=<root>/tests/data.
# TSAN: also built under the thread sanitizer; such a test links neither torch nor gRPC.
function(pricer_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TSAN" "TIMEOUT" "SRCS;DEPS;PRIVATE_DEPS;LABELS")
  if(PRICER_SANITIZE STREQUAL "thread" AND NOT arg_TSAN)
    return()
  endif()
  pricer_missing(missing ${arg_DEPS} ${arg_PRIVATE_DEPS})
  if(missing)
    if(PRICER_SANITIZE STREQUAL "thread")
      message(FATAL_ERROR "${name} is a TSAN test but needs ${missing}")
    endif()
    message(STATUS "${name} is left out: this configuration has no ${missing}")
    return()
  endif()
  pricer_executable(${name} SRCS ${arg_SRCS}
    DEPS ${arg_DEPS} ${arg_PRIVATE_DEPS} GTest::gmock GTest::gtest GTest::gmock_main)
  # Relative, so that objects are the same in every checkout; ctest gives the absolute path.
  target_compile_definitions(${name} PRIVATE PRICER_TEST_DATA="tests/data")
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests/bin")
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
    ENVIRONMENT "PRICER_TEST_DATA=${CMAKE_SOURCE_DIR}/tests/data;${PRICER_TEST_ENVIRONMENT}")
  if("integration" IN_LIST arg_LABELS)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

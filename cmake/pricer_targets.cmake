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
  if(PRICER_TORCH AND PRICER_SERVER AND PRICER_CLIENT AND PRICER_ARROW)
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

# Lets a target share what is compiled once: WITH_TORCH where it sees libtorch's headers, of which
# <ATen/ATen.h> is three quarters of the time that such a file takes to compile, else WITHOUT_TORCH.
# Either may name no target.
function(pricer_share_headers name with_torch without_torch)
  set(headers ${without_torch})
  get_property(torch_targets GLOBAL PROPERTY pricer_with_torch)
  foreach(dep torch::cpu torch::cuda ${torch_targets})
    if(dep IN_LIST ARGN)
      set_property(GLOBAL APPEND PROPERTY pricer_with_torch ${name})
      set(headers ${with_torch})
      break()
    endif()
  endforeach()
  if(TARGET "${headers}")
    target_precompile_headers(${name} REUSE_FROM ${headers})
  endif()
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
    pricer_share_headers(${name} pricer_torch_headers "" ${arg_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE "${CMAKE_SOURCE_DIR}")
    target_link_libraries(${name} INTERFACE ${arg_DEPS})
  endif()
endfunction()

# pricer_executable(NAME SRCS file... DEPS target... [TEST])
# TEST: compiled like the headers that tests share (tests/CMakeLists.txt), where there are any.
function(pricer_executable name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TEST" "" "SRCS;DEPS;PRIVATE_DEPS")
  pricer_missing(missing ${arg_DEPS} ${arg_PRIVATE_DEPS})
  if(missing)
    pricer_unavailable(${name})
    return()
  endif()
  add_executable(${name} ${arg_SRCS})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${arg_DEPS} ${arg_PRIVATE_DEPS} pricer_flags)
  if(arg_TEST AND TARGET pricer_test_headers)
    target_compile_options(${name} PRIVATE -O0)
    pricer_share_headers(${name} pricer_torch_test_headers pricer_test_headers ${arg_DEPS})
  else()
    # A program's own files read its flags, which is slow to compile and need not be fast.
    target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
    pricer_share_headers(${name} pricer_torch_headers "" ${arg_DEPS})
  endif()
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
  pricer_executable(${name} TEST SRCS ${arg_SRCS}
    DEPS ${arg_DEPS} ${arg_PRIVATE_DEPS} GTest::gmock GTest::gtest GTest::gmock_main)
  # Relative, so that objects are the same in every checkout; ctest gives the absolute path.
  target_compile_definitions(${name} PRIVATE PRICER_TEST_DATA="tests/data")
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests/bin")
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 900)
  endif()
  # Tests run side by side: threads that wait must not take the processor from the others.
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
    ENVIRONMENT "PRICER_TEST_DATA=${CMAKE_SOURCE_DIR}/tests/data;OMP_WAIT_POLICY=PASSIVE;${PRICER_TEST_ENVIRONMENT}")
  if("integration" IN_LIST arg_LABELS)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

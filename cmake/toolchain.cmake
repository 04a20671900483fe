# Compiler flags for our own code, the compiler cache and the sanitizers.

add_library(pricer_flags INTERFACE)
target_compile_options(pricer_flags INTERFACE -Wall -Wextra $<$<BOOL:${PRICER_WERROR}>:-Werror>)

# Everywhere, since what shares a precompiled header must agree on it.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-pthread>)

# The cache folder is shared by every checkout on a machine (scripts/setup makes it).
if(DEFINED ENV{PRICER_CACHE})
  set(PRICER_CACHE "$ENV{PRICER_CACHE}")
else()
  set(PRICER_CACHE "$ENV{HOME}/.cache/pricer")
endif()

# Paths below the source root are hashed relative to it, so that a fresh checkout elsewhere finds
# the objects of the last one. The sloppiness is what ccache demands for precompiled headers.
find_program(PRICER_CCACHE ccache)
if(PRICER_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER
    "${CMAKE_COMMAND};-E;env;CCACHE_BASEDIR=${CMAKE_SOURCE_DIR};CCACHE_NOHASHDIR=1;CCACHE_SLOPPINESS=pch_defines,time_macros;CCACHE_DIR=${PRICER_CACHE}/ccache;${PRICER_CCACHE}")
endif()

# A program that links libtorch takes mold 1 s and GNU ld 10 s.
find_program(PRICER_MOLD mold)
if(PRICER_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# What a program does not reach is left out of it.
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffunction-sections>)
  add_link_options(-Wl,--gc-sections)
endif()

# Code that fuzz targets run counts what of it was reached.
if(PRICER_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# What every test gets; a sanitizer may add to it.
set(PRICER_TEST_ENVIRONMENT "")
if(PRICER_SANITIZE STREQUAL "address")
  # g++ 12 has false -Wmaybe-uninitialized in instrumented std::regex.
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all
    -fno-omit-frame-pointer $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  add_link_options(-fsanitize=address,undefined)
  # Leaks are looked for too, with no suppressions: neither libtorch, gRPC nor the crate needs one.
  # strict_string_checks: read arguments of string functions to their terminating zero.
  # print_stacktrace: without it an undefined-behaviour report is one line.
  # TORCH_FR_BUFFER_SIZE: c10d's record of past collectives, which loses one entry where the ranks
  # are threads of one process, as in tests.
  list(APPEND PRICER_TEST_ENVIRONMENT "ASAN_OPTIONS=strict_string_checks=1"
    "UBSAN_OPTIONS=print_stacktrace=1" "TORCH_FR_BUFFER_SIZE=0")
elseif(PRICER_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
  # halt_on_error: the first race ends the test, so that its report is the last thing in the log.
  list(APPEND PRICER_TEST_ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
elseif(PRICER_SANITIZE)
  message(FATAL_ERROR "PRICER_SANITIZE is '${PRICER_SANITIZE}'; it can be empty, address or thread")
endif()

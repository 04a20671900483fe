# tokenizers::tokenizers, the Rust crate in model/tokenizer_ffi as one static library.

set(crate "${CMAKE_SOURCE_DIR}/model/tokenizer_ffi")
file(GLOB_RECURSE crate_sources CONFIGURE_DEPENDS "${crate}/src/*.rs")
set(tokenizers_library "${CMAKE_BINARY_DIR}/tokenizers/libpricer_tokenizers.a")
add_custom_command(
  OUTPUT "${tokenizers_library}"
  COMMAND "${CMAKE_COMMAND}" -E env "PRICER_CACHE=${PRICER_CACHE}"
          "${CMAKE_SOURCE_DIR}/scripts/lib/build-tokenizers" "${tokenizers_library}"
  DEPENDS ${crate_sources} "${crate}/Cargo.toml" "${crate}/Cargo.lock"
          "${CMAKE_SOURCE_DIR}/scripts/lib/build-tokenizers"
  COMMENT "Building the tokenizers crate"
  VERBATIM)
add_custom_target(pricer_tokenizers_build DEPENDS "${tokenizers_library}")

add_library(tokenizers::tokenizers STATIC IMPORTED GLOBAL)
set_target_properties(tokenizers::tokenizers PROPERTIES IMPORTED_LOCATION "${tokenizers_library}")
add_dependencies(tokenizers::tokenizers pricer_tokenizers_build)
target_link_libraries(tokenizers::tokenizers INTERFACE Threads::Threads ${CMAKE_DL_LIBS} m)

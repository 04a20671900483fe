# pricer_embed(OUTPUT FILE FUNCTION): sets OUTPUT to a source that defines `absl::string_view FUNCTION()` of namespace
# pricer, the contents of a text file.
function(pricer_embed output file function)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  file(READ "${file}" contents)
  set(source "${CMAKE_CURRENT_BINARY_DIR}/embedded_${function}.cc")
  configure_file("${CMAKE_SOURCE_DIR}/cmake/embedded.cc.in" "${source}" @ONLY)
  set(${output} "${source}" PARENT_SCOPE)
endfunction()

# arrow::parquet, Arrow and its Parquet reader as scripts/setup has unpacked them from the wheel.

if(NOT EXISTS "${PRICER_DEPS}/arrow")
  message(FATAL_ERROR "No Arrow below ${PRICER_DEPS}; run scripts/setup first, or set PRICER_ARROW to OFF")
endif()
file(REAL_PATH "${PRICER_DEPS}/arrow/pyarrow" arrow_wheel)
set(arrow_so_version 2600)

# Only programs that read tables get the libraries, not all that use pricer_catalog.
set(CMAKE_LINK_LIBRARY_USING_pricer_as_needed
  "LINKER:--push-state,--as-needed" "<LINK_ITEM>" "LINKER:--pop-state")
set(CMAKE_LINK_LIBRARY_USING_pricer_as_needed_SUPPORTED TRUE)

foreach(name arrow parquet)
  add_library(arrow::lib${name} SHARED IMPORTED)
  set_target_properties(arrow::lib${name} PROPERTIES
    IMPORTED_LOCATION "${arrow_wheel}/lib${name}.so.${arrow_so_version}"
    INTERFACE_INCLUDE_DIRECTORIES "${arrow_wheel}/include")
endforeach()
add_library(arrow::parquet INTERFACE IMPORTED)
target_link_libraries(arrow::parquet INTERFACE
  $<LINK_LIBRARY:pricer_as_needed,arrow::libparquet> $<LINK_LIBRARY:pricer_as_needed,arrow::libarrow>)
# libparquet exports the whole of an OpenSSL of its own (for encrypted files, which we do not read).
# The system's must come before it wherever both are loaded, or gRPC and we would call the other one;
# options stand before all libraries on the linker's command line.
target_link_options(arrow::parquet INTERFACE
  "LINKER:--push-state,--no-as-needed" "${OPENSSL_CRYPTO_LIBRARY}" "LINKER:--pop-state")

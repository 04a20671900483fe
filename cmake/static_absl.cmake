# Links Abseil's archives, which Debian installs beside its shared libraries and its CMake files do not
# name: for programs that go to machines without it.
get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target ${targets})
  get_target_property(shared ${target} IMPORTED_LOCATION_NONE)
  if(target MATCHES "^absl::" AND shared MATCHES "\\.so")
    string(REGEX REPLACE "\\.so.*$" ".a" archive "${shared}")
    set_target_properties(${target} PROPERTIES IMPORTED_LOCATION_NONE "${archive}")
  endif()
endforeach()

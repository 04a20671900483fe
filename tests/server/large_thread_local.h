#pragma once

namespace pricer::testing {

// The first of so many bytes that each thread has of its own from its start, as threads have where
// a GPU's libraries are loaded: from a library that is loaded with the program.
char* LargeThreadLocal();

}  // namespace pricer::testing

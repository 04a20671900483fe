#pragma once

#include <cstdint>

namespace pricer {

// Lets this process, and what it starts, have as many files and connections open at once as the
// system allows it, where the limit that it was started with is lower; returns that number. Not for
// programs that use select(), which takes none above 1,023.
int64_t RaiseOpenFileLimit();

}  // namespace pricer

#pragma once

#include <unistd.h>

#include <cstdint>
#include <fstream>

namespace pricer {

// Of this process.
inline double ResidentMiB() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  statm >> size >> resident;
  return static_cast<double>(resident * sysconf(_SC_PAGESIZE)) / (1 << 20);
}

}  // namespace pricer

#include "tests/server/large_thread_local.h"

namespace pricer::testing {

char* LargeThreadLocal() {
  static thread_local char bytes[256 << 10];
  return bytes;
}

}  // namespace pricer::testing

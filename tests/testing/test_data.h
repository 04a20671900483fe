#pragma once

#include <cstdlib>
#include <string>

namespace pricer::testing {

// Path of a file of tests/data.
inline std::string DataPath(const std::string& relative) {
  const char* root = std::getenv("PRICER_TEST_DATA");
  return std::string(root == nullptr ? PRICER_TEST_DATA : root) + "/" + relative;
}

}  // namespace pricer::testing

#pragma once

#include <cstdint>
#include <string>

namespace pricer {

// The adapter version that prices a job.
struct BatchVersion {
  std::string adapter;
  int64_t version = 0;
  std::string digest;

  bool operator==(const BatchVersion&) const = default;
};

}  // namespace pricer

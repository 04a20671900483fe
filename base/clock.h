#pragma once

#include "absl/time/time.h"

namespace pricer {

// Time as a dependency, so that tests decide what time it is. Implementations are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;

  // The machine's clock; lives for ever.
  static const Clock* System();
};

}  // namespace pricer

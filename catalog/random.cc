#include "catalog/random.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "base/check.h"

namespace pricer {

size_t Random::Index(size_t n) {
  PRICER_CHECK(n > 0);
  // The last, incomplete run of n values would make the first remainders likelier.
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  const uint64_t limit = kMax - kMax % n;
  uint64_t value = engine_();
  while (value >= limit) value = engine_();
  return value % n;
}

double Random::Normal() {
  const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
  return radius * std::cos(2 * std::numbers::pi * Uniform());
}

}  // namespace pricer

#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace pricer {

// Random numbers that are the same for a seed with every compiler and standard library: the engine
// is fixed by the C++ standard, the distributions, which are not, are our own. One thread.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  // Uniform in [0, 1), 53 random bits.
  double Uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

  // True with probability `p`.
  bool Chance(double p) { return Uniform() < p; }

  // Uniform in [0, n), n >= 1.
  size_t Index(size_t n);

  // Standard normal, by Box and Muller's transform.
  double Normal();

 private:
  std::mt19937_64 engine_;
};

}  // namespace pricer

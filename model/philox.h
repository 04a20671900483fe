#pragma once

#include <array>
#include <cstdint>

namespace pricer {

// Philox4x32-10: 128 random bits as a pure function of a counter and a key, so that any element of
// a random tensor can be made alone, in any order, on any machine. Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011, section 3.3; constants and test vectors from Random123
// (random123/philox.h, tests/kat_vectors).
using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

inline constexpr int kPhiloxRounds = 10;
inline constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53;
inline constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57;

// The key of the next round.
constexpr PhiloxKey NextPhiloxKey(const PhiloxKey& key) {
  return {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
}

constexpr PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key = NextPhiloxKey(key);
  }
  return counter;
}

// The upper 24 bits as a float in [0, 1): every value is exact.
constexpr float UniformFloat(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

}  // namespace pricer

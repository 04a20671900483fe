#pragma once

#include <cstdint>
#include <cstring>

// IEEE half precision as CUDA's header has it; see README.md.

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) {
  const _Float16 half = [&] {
    _Float16 same;
    std::memcpy(&same, &value.bits, sizeof(same));
    return same;
  }();
  return static_cast<float>(half);
}

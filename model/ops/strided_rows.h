#pragma once

#include <cstdint>

namespace pricer {

// Row t is at data + t * stride.
template <typename T>
struct StridedRows {
  T* data = nullptr;
  int64_t stride = 0;
  T* operator[](int64_t t) const { return data + t * stride; }
};

}  // namespace pricer

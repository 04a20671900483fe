#pragma once

#include <cstdint>
#include <initializer_list>

namespace pricer::cuda {

// Whether rows of `columns` elements of type T can be moved 16 bytes at a time: every row of every
// pointer, which may be null, starts on a multiple of 16 bytes.
template <typename T>
bool Fits16Bytes(int64_t columns, std::initializer_list<const void*> pointers) {
  if (columns % static_cast<int64_t>(16 / sizeof(T)) != 0) return false;
  for (const void* pointer : pointers) {
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  }
  return true;
}

}  // namespace pricer::cuda

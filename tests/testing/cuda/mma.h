#pragma once

#include <array>
#include <cstdint>

#include "tests/testing/cuda/cuda_bf16.h"
#include "tests/testing/cuda/grid.h"

// Products of 16 by 16 matrices by a warp, as <mma.h> has them; see README.md. Fragments are
// opaque there; here the first thread of the warp holds all of one and does all of the work.

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int kM, int kN, int kK, typename T, typename Layout = void>
struct fragment {
  static_assert(kM == 16 && kN == 16 && kK == 16);
  std::array<float, 256> value;  // row-major
};

namespace internal {
// Threads of a warp call these functions together; a caller who is out of step is found here.
inline bool IsLeader() {
  pricer::emulated::SyncWarp();
  return pricer::emulated::threadIdx.x % 32 == 0;
}
void CheckAddress(const void* address, size_t row_bytes);
}  // namespace internal

template <typename Fragment>
void fill_fragment(Fragment& to, float value) {
  to.value.fill(value);
}

template <typename Use, typename Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, __nv_bfloat16, Layout>& to,
                      const __nv_bfloat16* from, unsigned pitch) {
  if (!internal::IsLeader()) return;
  internal::CheckAddress(from, pitch * sizeof(__nv_bfloat16));
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 16; ++column) {
      const bool straight = std::is_same_v<Layout, row_major>;
      const unsigned at = straight ? row * pitch + column : column * pitch + row;
      to.value[row * 16 + column] = __bfloat162float(from[at]);
    }
  }
}

template <typename A, typename B, typename Sum>
void mma_sync(Sum& to, const A& a, const B& b, const Sum& sum) {
  if (!internal::IsLeader()) return;
  std::array<float, 256> result = sum.value;
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      const float left = a.value[row * 16 + k];
      for (int column = 0; column < 16; ++column) {
        result[row * 16 + column] += left * b.value[k * 16 + column];
      }
    }
  }
  to.value = result;
}

template <typename Sum>
void store_matrix_sync(float* to, const Sum& from, unsigned pitch, layout_t layout) {
  if (!internal::IsLeader()) return;
  internal::CheckAddress(to, pitch * sizeof(float));
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 16; ++column) {
      const unsigned at = layout == mem_row_major ? row * pitch + column : column * pitch + row;
      to[at] = from.value[row * 16 + column];
    }
  }
}

}  // namespace nvcuda::wmma

#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <cstdint>
#include <type_traits>

#include "model/cuda/device/values.cuh"

// Tiles of bf16 matrices in shared memory and their products on tensor cores, for blocks of
// kTileThreads threads: 4 warps.

namespace pricer::cuda {

inline constexpr int kTile = 64;
inline constexpr int kTileThreads = 128;
// From row to row: 16 bytes more than a tile's, so that rows start in different banks.
inline constexpr int kTilePitch = kTile + 8;
inline constexpr int kSumPitch = kTile + 4;
inline constexpr int kFragment = 16;

using TileRows = __nv_bfloat16[kTile][kTilePitch];
using TileSums = float[kTile][kSumPitch];

// A matrix in device memory whose first element is the tile's; what lies beyond `rows` and
// `columns` counts as zeros.
struct TileSource {
  const __nv_bfloat16* data;
  int64_t stride;
  int64_t rows;
  int64_t columns;
};

// Bits of DropoutMask from the tile's first row and column on, a multiple of 32; null: all are
// kept.
struct TileMask {
  const uint32_t* bits;
  int64_t stride;  // words from row to row

  // Bit j says whether column + j is kept, up to the next multiple of 32.
  __device__ uint32_t From(int row, int column) const {
    if (bits == nullptr) return 0xffffffffu;
    return bits[row * stride + column / 32] >> (column % 32);
  }
};

// Fills a tile by all threads, kWidth elements at a time: of these, columns and stride of `from`
// are multiples, and so is where it starts.
template <int kWidth>
__device__ inline void LoadTile(const TileSource& from, const TileMask& mask, TileRows& tile) {
  constexpr int kPacks = kTile / kWidth;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kPacks; i += kTileThreads) {
    const int row = i / kPacks;
    const int column = i % kPacks * kWidth;
    Pack<__nv_bfloat16, kWidth> pack;
    uint32_t kept = 0;
    if (row < from.rows && column < from.columns) {
      pack = LoadPack<kWidth>(from.data + row * from.stride + column);
      kept = mask.From(row, column);
    }
    for (int j = 0; j < kWidth; ++j) {
      if (((kept >> j) & 1u) == 0) pack.value[j] = FromFloat<__nv_bfloat16>(0.0f);
    }
    StorePack(&tile[row][column], pack);
  }
}

using RowMajor = nvcuda::wmma::row_major;
using ColumnMajor = nvcuda::wmma::col_major;
template <typename Layout>
using FragmentA = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, kFragment, kFragment, kFragment,
                                         __nv_bfloat16, Layout>;
template <typename Layout>
using FragmentB = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, kFragment, kFragment, kFragment,
                                         __nv_bfloat16, Layout>;
using FragmentSum =
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, kFragment, kFragment, kFragment, float>;

// One warp's share of a product of tiles: kFragments fragments of 16 rows and 16 columns.
template <int kFragments>
struct WarpSums {
  FragmentSum sum[kFragments];

  __device__ void Clear() {
    for (FragmentSum& part : sum) nvcuda::wmma::fill_fragment(part, 0.0f);
  }
};

// Where an operand's element (row, k) or (k, column) lies: in tile[row][k] and tile[k][column], or
// the other way round.
enum class TileOrder { kStraight, kTransposed };

// sums[f] += left[rows of the warp, depth] right[depth, columns 16 f ...]: warp w has rows 16 w to
// 16 w + 15.
template <TileOrder kRight, int kFragments>
__device__ inline void AddRowProducts(const TileRows& left, const TileRows& right, int depth,
                                      int fragments, WarpSums<kFragments>& sums) {
  namespace wmma = nvcuda::wmma;
  using RightLayout = std::conditional_t<kRight == TileOrder::kStraight, RowMajor, ColumnMajor>;
  const int row = static_cast<int>(threadIdx.x) / 32 * kFragment;
  for (int k = 0; k < depth; k += kFragment) {
    FragmentA<RowMajor> a;
    wmma::load_matrix_sync(a, &left[row][k], kTilePitch);
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      if (f >= fragments) break;
      FragmentB<RightLayout> b;
      const int column = f * kFragment;
      wmma::load_matrix_sync(
          b, kRight == TileOrder::kStraight ? &right[k][column] : &right[column][k], kTilePitch);
      wmma::mma_sync(sums.sum[f], a, b, sums.sum[f]);
    }
  }
}

// sums[f] += left^T[rows 16 f ..., depth] right[depth, columns of the warp]: left[k][row] and
// right[k][column]; warp w has columns 16 w to 16 w + 15.
template <int kFragments>
__device__ inline void AddColumnProducts(const TileRows& left, const TileRows& right, int fragments,
                                         WarpSums<kFragments>& sums) {
  namespace wmma = nvcuda::wmma;
  const int column = static_cast<int>(threadIdx.x) / 32 * kFragment;
  for (int k = 0; k < kTile; k += kFragment) {
    FragmentB<RowMajor> b;
    wmma::load_matrix_sync(b, &right[k][column], kTilePitch);
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      if (f >= fragments) break;
      FragmentA<ColumnMajor> a;
      wmma::load_matrix_sync(a, &left[k][f * kFragment], kTilePitch);
      wmma::mma_sync(sums.sum[f], a, b, sums.sum[f]);
    }
  }
}

}  // namespace pricer::cuda

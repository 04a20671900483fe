#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "model/cuda/device/tile.cuh"
#include "model/cuda/launch.h"
#include "model/cuda/row_width.h"
#include "model/ops/lora_kernel.h"

// What a block of lora_kernel.cu works on it finds in a table of parts that travels with the
// launch: no copy, nothing to wait for.

namespace pricer::cuda {

inline constexpr int kMaxFragments = kTile / kFragment;

// Parts of one launch and where their tiles begin; more parts take more launches.
template <int kMost>
struct PartTable {
  int count = 0;
  int64_t tile_begin[kMost + 1] = {};  // of each part; behind the last one the number of tiles
  LoraKernelPart part[kMost];
};
// Launch parameters may take 32,764 bytes from CUDA 12.1 on.
inline constexpr int kFewParts = 8;
inline constexpr int kMostParts = 200;
static_assert(sizeof(PartTable<kMostParts>) <= 32000);

// The part that the tile belongs to.
template <int kMost>
__device__ inline int FindPart(const PartTable<kMost>& table, int64_t tile) {
  int first = 0;
  int behind = table.count;
  while (behind - first > 1) {
    const int middle = (first + behind) / 2;
    if (table.tile_begin[middle] <= tile) {
      first = middle;
    } else {
      behind = middle;
    }
  }
  return first;
}

__device__ inline int64_t MaskWords(int64_t in) { return (in + 31) / 32; }

__device__ inline TileMask MaskFrom(const LoraKernelPart& part, int64_t in, int64_t row,
                                    int64_t column) {
  if (part.mask == nullptr) return {nullptr, 0};
  return {part.mask + row * MaskWords(in) + column / 32, MaskWords(in)};
}

__device__ inline int PaddedRank(const LoraKernelPart& part) {
  return (part.rank + kLoraRankTile - 1) / kLoraRankTile * kLoraRankTile;
}

__device__ inline int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls body(table) for the parts, as many at a time as a launch takes; parts of one segment that
// `whole_segments` wants together stay so where they fit. `tiles` says how many tiles a part has;
// `follows` is a part with the same segment as the one before.
template <typename Tiles, typename Body>
cudaError_t ForTables(const LoraBatch& batch, bool whole_segments, const Tiles& tiles,
                      const Body& body) {
  const auto run = [&]<int kMost>(int begin, int end, std::integral_constant<int, kMost>) {
    PartTable<kMost> table;
    table.count = end - begin;
    for (int p = begin; p < end; ++p) {
      const bool follows =
          whole_segments && p > begin && batch.parts[p].segment == batch.parts[p - 1].segment;
      table.part[p - begin] = batch.parts[p];
      table.tile_begin[p - begin + 1] =
          table.tile_begin[p - begin] + (follows ? 0 : tiles(batch.parts[p]));
    }
    return body(table);
  };
  for (int begin = 0; begin < batch.count;) {
    int end = batch.count < begin + kMostParts ? batch.count : begin + kMostParts;
    while (whole_segments && end < batch.count && end > begin + 1 &&
           batch.parts[end].segment == batch.parts[end - 1].segment) {
      --end;
    }
    const cudaError_t error = end - begin <= kFewParts
                                  ? run(begin, end, std::integral_constant<int, kFewParts>{})
                                  : run(begin, end, std::integral_constant<int, kMostParts>{});
    if (error != cudaSuccess) return error;
    begin = end;
  }
  return cudaSuccess;
}

inline int64_t RowTiles(const LoraKernelPart& part) { return Blocks(part.rows, kTile); }
inline int64_t RankTiles(const LoraKernelPart& part) { return Blocks(part.padded_rank(), kTile); }

template <typename Part>
int64_t Most(const LoraBatch& batch, const Part& of_part) {
  int64_t most = 0;
  for (int p = 0; p < batch.count; ++p) {
    const int64_t value = of_part(batch.parts[p]);
    most = value > most ? value : most;
  }
  return most;
}

// Whether everything can be moved 16 bytes at a time.
inline bool IsWide(const LoraBatch& batch, std::initializer_list<const void*> rows) {
  if (!Fits16Bytes<__nv_bfloat16>(batch.in, rows)) return false;
  if (!Fits16Bytes<__nv_bfloat16>(batch.out, {})) return false;
  for (int p = 0; p < batch.count; ++p) {
    const LoraKernelPart& part = batch.parts[p];
    const bool wide = Fits16Bytes<__nv_bfloat16>(part.out_begin, {part.a, part.b}) &&
                      part.out_size % 8 == 0 && part.rank % 8 == 0;
    if (!wide) return false;
  }
  return true;
}

// Calls body with a compile-time width.
template <typename Body>
cudaError_t WithWidth(bool wide, const Body& body) {
  return wide ? body(std::integral_constant<int, 8>{}) : body(std::integral_constant<int, 1>{});
}

}  // namespace pricer::cuda

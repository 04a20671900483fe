#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "model/ops/product_blocks.h"

// How attention's gradients are cut into blocks of queries, and the memory that takes. No torch.

namespace pricer {

// Queries of a block in the forward pass, and how many keys' values are summed at a time.
inline constexpr int64_t kAttentionRows = 64;
inline constexpr int64_t kAttentionDepth = 256;

// From row to row of a block's scores: few strides, so that few kernels are compiled, and none a
// power of two, which would let rows displace each other from the cache.
inline int64_t AttentionStride(int64_t keys) {
  const auto wanted = static_cast<uint64_t>(std::max(keys, kAttentionDepth));
  return static_cast<int64_t>(std::bit_ceil(wanted)) + kDepthTile;
}

// The most queries of one block where the first of them sees `keys` keys and its own; G query heads
// share a key head. The scores of a block stay in a core's cache.
inline int64_t AttentionBlockQueries(int64_t keys, int64_t group) {
  constexpr double kScores = 64 * 1024;
  const auto before = static_cast<double>(keys);
  // queries (keys + queries) group = kScores
  const double most =
      (std::sqrt(before * before + 4 * kScores / static_cast<double>(group)) - before) / 2;
  return std::max(static_cast<int64_t>(most) / kDepthTile * kDepthTile, kDepthTile);
}

// Bytes of tensors that one thread needs for the forward pass of sequences of up to so many keys.
// An element of the compute dtype has so many bytes.
inline int64_t AttentionForwardBytes(int64_t keys, int64_t head_dim, int64_t element_bytes) {
  constexpr int64_t kFloatBytes = 4;
  const int64_t width = RoundUp(kProductTile, head_dim);
  const int64_t columns = RoundUp(kDepthTile, keys);
  const int64_t packed_dim = RoundUp(kFloatBytes / element_bytes, head_dim);
  const int64_t stride = AttentionStride(keys);
  return element_bytes * (columns * (packed_dim + width) + kAttentionRows * (stride + packed_dim)) +
         kFloatBytes * kAttentionRows * (stride + width);
}

// What one thread needs for the gradients of sequences and key heads, one after the other; G query
// heads share a key head.
struct AttentionGradientSizes {
  int64_t keys = 0;     // the most, in multiples of kDepthTile
  int64_t columns = 0;  // of a block: its queries times G, in multiples of kPanelColumns
  int64_t scores = 0;   // of a block: keys times columns
  int64_t packed = 0;   // elements of a block's right operand

  void Include(int64_t queries, int64_t all_keys, int64_t group, int64_t head_dim) {
    const int64_t width = RoundUp(kProductTile, head_dim);
    keys = std::max(keys, RoundUp(kDepthTile, all_keys));
    for (int64_t seen = all_keys - queries; seen < all_keys;) {
      const int64_t block = std::min(all_keys - seen, AttentionBlockQueries(seen, group));
      seen += block;
      const int64_t of_block = RoundUp(kPanelColumns, block * group);
      const int64_t rows = RoundUp(kDepthTile, seen);
      columns = std::max(columns, of_block);
      scores = std::max(scores, of_block * rows);
      packed = std::max(packed, of_block * std::max(width, rows));
    }
  }

  // An element of the compute dtype has so many bytes.
  int64_t bytes(int64_t head_dim, int64_t element_bytes) const {
    constexpr int64_t kFloatBytes = 4;
    const int64_t width = RoundUp(kProductTile, head_dim);
    return element_bytes * ((3 * keys + 2 * columns) * width + 2 * scores + packed) +
           kFloatBytes * ((2 * keys + columns) * width + 2 * scores);
  }
};

}  // namespace pricer

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

// How attention's gradients are cut into blocks of queries, and the memory that takes. No torch.

namespace pricer {

// Rows of bf16 products come in multiples of this, so that few shapes are compiled.
inline constexpr int64_t kAttentionTile = 32;
// Columns of a panel of a bf16 product's right operand, the widest that oneDNN packs.
inline constexpr int64_t kAttentionPanel = 64;

inline int64_t RoundUpTo(int64_t step, int64_t value) { return (value + step - 1) / step * step; }

// The most queries of one block where the first of them sees `keys` keys and its own; G query heads
// share a key head. The scores of a block stay in a core's cache.
inline int64_t AttentionBlockQueries(int64_t keys, int64_t group) {
  constexpr double kScores = 64 * 1024;
  const auto before = static_cast<double>(keys);
  // queries (keys + queries) group = kScores
  const double most =
      (std::sqrt(before * before + 4 * kScores / static_cast<double>(group)) - before) / 2;
  return std::max(static_cast<int64_t>(most) / kAttentionTile * kAttentionTile, kAttentionTile);
}

// Whether bf16 products are made, where the processor has them.
inline bool HeadFitsBf16Products(int64_t head_dim) { return head_dim % kAttentionTile == 0; }

// Bytes of tensors that one thread needs for the gradients of one sequence and one key head: of
// the keys, and of the largest block.
inline int64_t AttentionGradientBytes(int64_t queries, int64_t keys, int64_t group,
                                      int64_t head_dim, bool bf16_products) {
  int64_t of_block = 0;
  for (int64_t seen = keys - queries; seen < keys;) {
    const int64_t block = std::min(keys - seen, AttentionBlockQueries(seen, group));
    seen += block;
    if (bf16_products) {
      const int64_t rows = RoundUpTo(kAttentionTile, seen);
      const int64_t columns = RoundUpTo(kAttentionPanel, block * group);
      of_block =
          std::max(of_block, columns * (8 * head_dim + 12 * rows + 2 * std::max(head_dim, rows)));
    } else {
      of_block = std::max(of_block, 4 * block * group * (3 * head_dim + 2 * seen));
    }
  }
  const int64_t of_keys = bf16_products ? 14 * RoundUpTo(kAttentionTile, keys) : 16 * keys;
  return of_keys * head_dim + of_block;
}

}  // namespace pricer

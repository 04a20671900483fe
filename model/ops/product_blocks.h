#pragma once

#include <cstdint>

// The sizes in which matrix products are made. No torch.

namespace pricer {

// Columns of a panel, the widest that oneDNN packs; the last panel of a matrix may be narrower.
inline constexpr int64_t kPanelColumns = 64;
// Rows and the columns of a panel come in multiples of this, so that few kernels are compiled.
inline constexpr int64_t kProductTile = 16;

// Sums over what is filled up with zeros anyway have a multiple of this many terms, as many as AMX
// takes at a time in bf16.
inline constexpr int64_t kDepthTile = 32;

inline int64_t RoundUp(int64_t step, int64_t value) { return (value + step - 1) / step * step; }

// Rows that a sum over rows takes at a time.
inline constexpr int64_t kPackedRows = 256;

// Columns of the low-rank states of so many rows, see lora_blocks.h: few numbers, so that few
// kernels are compiled, and none a power of two, which would let rows displace each other from the
// cache.
inline int64_t StateColumns(int64_t rows) { return RoundUp(kPackedRows, rows) + kDepthTile; }

}  // namespace pricer

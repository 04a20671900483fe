#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace pricer {

// How many rows a packed batch of so many tokens has in the network, in bf16. oneDNN, which
// multiplies there, makes machine code for every shape that it meets: milliseconds each, some forty
// for a step, and hundreds of KiB that are kept. So that batches of ever other lengths meet the
// same shapes, rows of zeros fill them up to sixteen sizes for each power of two: at most 1/16
// more. Products in fp32 are MKL's, which has code for all shapes: no rows are added.
inline int64_t PaddedRows(int64_t tokens, bool in_bf16) {
  if (!in_bf16) return tokens;
  const auto step = std::max<int64_t>(std::bit_floor(static_cast<uint64_t>(tokens)) / 16, 16);
  return (tokens + step - 1) / step * step;
}

}  // namespace pricer

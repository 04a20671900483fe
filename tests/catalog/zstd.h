#pragma once

#include <gtest/gtest.h>
#include <zstd.h>

#include <string>

#include "absl/strings/string_view.h"

namespace pricer::testing {

// One zstd frame that holds `bytes`, with a checksum.
inline std::string ZstdOf(absl::string_view bytes) {
  ZSTD_CCtx* const context = ZSTD_createCCtx();
  EXPECT_FALSE(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)));
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  const size_t size = ZSTD_compress2(context, out.data(), out.size(), bytes.data(), bytes.size());
  EXPECT_FALSE(ZSTD_isError(size));
  out.resize(size);
  ZSTD_freeCCtx(context);
  return out;
}

}  // namespace pricer::testing

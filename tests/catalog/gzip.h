#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

#include "absl/strings/string_view.h"

namespace pricer::testing {

// One gzip member that holds `bytes`.
inline std::string GzipOf(absl::string_view bytes) {
  constexpr int kGzip = 16;
  z_stream stream = {};
  EXPECT_EQ(
      deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, MAX_WBITS + kGzip, 8, Z_DEFAULT_STRATEGY),
      Z_OK);
  std::string out(deflateBound(&stream, bytes.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = bytes.size();
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = out.size();
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}

}  // namespace pricer::testing

#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/string_view.h"

namespace pricer::testing {

// For tests that write many files: WriteFile waits for the disk, and so do some file systems where
// a file is truncated.
inline void WriteScratchFile(const std::string& path, absl::string_view bytes) {
  std::filesystem::remove(path);
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  EXPECT_TRUE(file.good()) << path;
}

}  // namespace pricer::testing

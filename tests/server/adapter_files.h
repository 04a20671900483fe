#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

// Adapter folders for tests: files with nothing in them that a model could read.

namespace pricer::testing {

inline void WriteText(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
  ASSERT_TRUE(std::filesystem::exists(path)) << path;
}

// Makes <root>/<name>/<version>/ with a file and, where asked for, the marker.
inline std::filesystem::path MakeVersion(const std::string& root, const std::string& name,
                                         const std::string& version, bool ready = true) {
  const std::filesystem::path directory = std::filesystem::path(root) / name / version;
  std::filesystem::create_directories(directory);
  WriteText(directory / "adapter_config.json", "{}");
  if (ready) WriteText(directory / "_READY", "");
  return directory;
}

}  // namespace pricer::testing

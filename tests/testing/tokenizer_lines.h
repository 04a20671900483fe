#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "model/safetensors.h"
#include "tests/testing/test_data.h"

namespace pricer::testing {

// The mixed lines of tests/data/tokenizers. Empty, with a failure, where they cannot be read.
inline std::vector<std::string> TokenizerLines() {
  std::vector<std::string> lines;
  const auto file = ReadFile(DataPath("tokenizers/lines.jsonl"));
  EXPECT_TRUE(file.ok()) << file.status();
  if (!file.ok()) return lines;
  std::istringstream stream(*file);
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(nlohmann::json::parse(line).get<std::string>());
  }
  return lines;
}

// What AutoTokenizer makes of each of the lines with tests/data/tokenizers/<name>.
inline std::vector<std::vector<int32_t>> GoldenIds(const std::string& name) {
  std::vector<std::vector<int32_t>> rows;
  const auto file = SafetensorsFile::Open(DataPath("tokenizers/" + name + "/golden.safetensors"));
  EXPECT_TRUE(file.ok()) << file.status();
  if (!file.ok()) return rows;
  const TensorView& ids = (*file)->tensors().at("ids");
  const TensorView& offsets = (*file)->tensors().at("offsets");
  const auto offset = [&](int64_t i) {
    int64_t value;
    std::memcpy(&value, offsets.data.data() + i * sizeof(value), sizeof(value));
    return value;
  };
  for (int64_t row = 0; row + 1 < offsets.element_count(); ++row) {
    std::vector<int32_t> values;
    for (int64_t i = offset(row); i < offset(row + 1); ++i) {
      int16_t id;
      std::memcpy(&id, ids.data.data() + i * sizeof(id), sizeof(id));
      values.push_back(id);
    }
    rows.push_back(std::move(values));
  }
  return rows;
}

}  // namespace pricer::testing

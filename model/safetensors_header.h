#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/safetensors.h"

namespace pricer {

// One entry of a safetensors header, as it stands there.
struct SafetensorsEntry {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  // Relative to the end of the header.
  int64_t begin = 0;
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string, std::less<>> metadata;
};

// Parses the JSON of a header without building a document, so that memory stays within a few times
// its length. Checks names, types and dtypes; offsets are checked against each other by the caller.
// DataLoss names `source` and tensor.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         absl::string_view source);

}  // namespace pricer

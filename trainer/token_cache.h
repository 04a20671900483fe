#pragma once

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "trainer/dataset.h"

namespace pricer {

// Tokenized data sets as files, so that a second run over the same data starts in seconds. A file
// is <directory>/<key>.safetensors: ids, their offsets, prices, completions, row numbers and item
// ids as tensors, counts and the key as metadata, and what the reading rejected. Nothing depends on
// it: one that is broken or was removed is made again. Thread-compatible; several processes may
// share a directory.
class TokenCache {
 public:
  // `directory` is made when something is first saved.
  explicit TokenCache(std::string directory) : directory_(std::move(directory)) {}

  // The data set that was saved under `key`, its texts left out, and writes what was rejected then
  // to `rejects_path` (nothing where nothing was). Absent where there is none. DataLoss names the
  // file and what is wrong.
  absl::StatusOr<std::optional<Dataset>> Load(absl::string_view key,
                                              const std::string& rejects_path) const;

  // `rejects_path` is where the reading has written its rejects, if any. A crash leaves no half
  // file.
  absl::Status Save(absl::string_view key, const Dataset& dataset,
                    const std::string& rejects_path) const;

 private:
  std::string PathOf(absl::string_view key) const;

  std::string directory_;
};

// What decides the examples of a data set, as 64 hexadecimal digits: the file's bytes and name, the
// tokenizer's files in `base_directory`, prompt and options, and this program's version.
absl::StatusOr<std::string> TokenCacheKey(const std::string& path, absl::string_view file_digest,
                                          const std::string& base_directory,
                                          const PromptTemplate& prompt,
                                          const DatasetOptions& options);

}  // namespace pricer

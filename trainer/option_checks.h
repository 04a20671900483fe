#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

// Checks of single options, before anything is loaded. InvalidArgument names the option and its
// value.

namespace pricer {

// Above any count of items, tokens or steps.
inline constexpr int64_t kManyItems = int64_t{1} << 40;

template <typename T>
absl::Status CheckBounds(absl::string_view option, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(option, " is ", value, "; expected ", low, " to ", high));
}

// --memory-budget, bytes.
absl::Status CheckMemoryBudget(int64_t bytes);

// An existing file, or directory, that is to be read.
absl::Status CheckFile(absl::string_view option, const std::string& path);
absl::Status CheckDirectory(absl::string_view option, const std::string& path);

// A file that is read more than once, so not a pipe.
absl::Status CheckRegularFile(absl::string_view option, const std::string& path);

absl::Status CheckNotEmpty(absl::string_view option, absl::string_view value);

// Makes the directory and its parents where they are missing.
absl::Status MakeOutputDirectory(absl::string_view option, const std::string& path);

// A file to be written: the directory of its OutputPlace exists and can be written to, or it is a
// stream.
absl::Status CheckOutputFile(absl::string_view option, const std::string& path);

// Writing the first must not destroy the second, which may be empty: not given.
absl::Status CheckOtherFile(absl::string_view option, const std::string& path,
                            absl::string_view other_option, const std::string& other_path);

}  // namespace pricer

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "catalog/random.h"
#include "client/load_test.h"

namespace pricer {

// What the calls of a load test ask for. One thread.
class LoadCallSource {
 public:
  // REQUIRES: options.Validate() is OK.
  explicit LoadCallSource(const LoadTestOptions& options);

  LoadCall Next(absl::Time deadline);

 private:
  const std::string& DrawAdapter();
  std::string DrawText();

  const LoadTestOptions options_;
  Random random_;
  // Of the adapters up to each, in the order of the options; the last is 1.
  std::vector<double> shares_;
  // Synthetic products as shops describe them, end to end.
  std::string words_;
  int64_t items_ = 0;
};

}  // namespace pricer

#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "model/adapter_labels.h"
#include "server/loaded_adapter.h"

namespace pricer {

// What answers the items of one call: the versions that its adapter's labels led to when it came.
// All stay as they are until the call lets go of them.
struct AdapterRoute {
  AdapterHandle adapter;  // not null
  // That led to `adapter`; empty = it was asked for by number.
  std::string label;
  // Answers items of the first `canary_buckets` of kCanaryBuckets instead; null = none do.
  AdapterHandle canary;
  int canary_buckets = 0;
  // Prices what `adapter` prices, to be compared; null = none does.
  AdapterHandle shadow;

  // `item`: its id or, where it has none, its text.
  bool IsCanarys(absl::string_view item) const {
    return canary != nullptr && CanaryBucket(adapter->key.name, item) < canary_buckets;
  }
};

}  // namespace pricer

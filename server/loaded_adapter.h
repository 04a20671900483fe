#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "model/manifest.h"
#include "server/row_estimate.h"

namespace pricer {

struct AdapterKey {
  std::string name;
  int64_t version = 0;

  auto operator<=>(const AdapterKey&) const = default;
};

// The reserved name of the base without an adapter. Its one version is 0, which no adapter has.
inline constexpr char kBaseName[] = "base";
inline AdapterKey BaseKey() { return {kBaseName, 0}; }

// One adapter version in memory, or the base alone, ready to compute with. Immutable once the
// registry has it but for what it learns of its cost, hence thread-safe. The engine that loads it
// derives from it and adds the tensors, which only its own predictor looks at.
struct LoadedAdapter {
  virtual ~LoadedAdapter() = default;

  AdapterKey key;
  // SHA-256 of the manifest.
  std::string digest;
  Manifest manifest;
  // Bytes that its tensors take.
  int64_t memory_bytes = 0;
  // What an operator should know about an adapter that serves all the same, such as another dtype
  // than it was tuned in.
  std::string warning;
  // Of the token head, where a price is a tree of digits; null = an item costs its prompt alone.
  std::shared_ptr<RowEstimate> tree_rows;

  int64_t extra_rows() const { return tree_rows == nullptr ? 0 : tree_rows->rows(); }
};

// Keeps a version alive. A request holds the handle it was admitted with until it is answered.
using AdapterHandle = std::shared_ptr<const LoadedAdapter>;

}  // namespace pricer

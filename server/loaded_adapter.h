#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
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

// One adapter version that was read and checked, or the base alone, but for its tensors, which may
// be in memory or not. Immutable once the registry has it but for what it learns of its cost, hence
// thread-safe. The engine that loads it may derive from it for its own predictor.
struct LoadedAdapter {
  virtual ~LoadedAdapter() = default;

  AdapterKey key;
  // SHA-256 of the manifest.
  std::string digest;
  Manifest manifest;
  // Bytes that its tensors take in memory.
  int64_t memory_bytes = 0;
  // What an operator should know about an adapter that serves all the same, such as another dtype
  // than it was tuned in.
  std::string warning;
  // Of the token head, where a price is a tree of digits; null = an item costs its prompt alone.
  std::shared_ptr<RowEstimate> tree_rows;

  // All but the base alone have.
  bool has_tensors() const { return key != BaseKey(); }
  int64_t extra_rows() const { return tree_rows == nullptr ? 0 : tree_rows->rows(); }
};

// Keeps a version alive. A request holds the handle it was admitted with until it is answered.
using AdapterHandle = std::shared_ptr<const LoadedAdapter>;

// Where tensors may be; each is faster than the one before.
enum class MemoryTier { kDisk, kHost, kDevice };
inline constexpr int kMemoryTierCount = 3;

// "disk", "host", "device".
absl::string_view MemoryTierName(MemoryTier tier);

// The tensors of an adapter version in one kind of memory. Immutable. The engine derives from it.
struct AdapterTensors {
  virtual ~AdapterTensors() = default;
};

// Keeps them in memory.
using TensorsHandle = std::shared_ptr<const AdapterTensors>;

// What reading a version gives.
struct LoadedVersion {
  std::shared_ptr<LoadedAdapter> adapter;
  TensorsHandle tensors;  // in host memory
};

}  // namespace pricer

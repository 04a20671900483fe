#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "model/manifest.h"

namespace pricer {

struct AdapterKey {
  std::string name;
  int64_t version = 0;

  auto operator<=>(const AdapterKey&) const = default;
};

// One adapter version in memory, ready to compute with. Immutable once the registry has it, hence
// thread-safe. The engine that loads it derives from it and adds the tensors, which only its own
// predictor looks at.
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
};

// Keeps a version alive. A request holds the handle it was admitted with until it is answered.
using AdapterHandle = std::shared_ptr<const LoadedAdapter>;

}  // namespace pricer

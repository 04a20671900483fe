#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "server/loaded_adapter.h"

namespace pricer {

// Which adapter versions have metrics of their own where there are many: the busiest of late, the
// first to come while there is room. Not thread-safe.
class TopVersions {
 public:
  // What all others count as. No version: an adapter may have that name.
  static AdapterKey Other() { return {"other", 0}; }

  explicit TopVersions(size_t capacity) : capacity_(capacity) {}

  // What to count so many items of the version as: itself or Other(). Where it takes the place of a
  // less busy one, that one is put into `displaced`.
  AdapterKey Count(const AdapterKey& version, int64_t items, std::optional<AdapterKey>* displaced);

  // What it counts as at present.
  AdapterKey NameOf(const AdapterKey& version);

  // It is gone; its place is free.
  void Remove(const AdapterKey& version);

 private:
  // An item of long ago counts for less than one of now.
  void Halve();
  std::optional<AdapterKey> LeastBusy() const;

  const size_t capacity_;
  std::map<AdapterKey, double> items_;
  std::set<AdapterKey> top_;
  int64_t counted_ = 0;
};

}  // namespace pricer

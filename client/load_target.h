#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/load_test.h"

namespace pricer {

// The server that a load test calls, over `connections` of its own. Thread-safe; must outlive its
// calls, each of which has ended when its `done` is called. Errors as Client::Create's.
class LoadTarget {
 public:
  static absl::StatusOr<std::unique_ptr<LoadTarget>> Open(const ClientOptions& options,
                                                          int connections);
  ~LoadTarget();

  // As StartLoadCall. Calls go to one connection after the other.
  void Start(LoadCall call, const std::function<void(const LoadAnswer& answer)>& done);

 private:
  struct Connections;
  explicit LoadTarget(std::unique_ptr<Connections> connections);

  const std::unique_ptr<Connections> connections_;
};

}  // namespace pricer

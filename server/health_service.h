#pragma once

#include <map>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace pricer {

// The names that probes ask for.
inline constexpr char kHealthLiveness[] = "liveness";  // the process answers; also while it drains
inline constexpr char kHealthStartup[] = "startup";    // it has served once
// Readiness: calls are answered. Under both names.
inline constexpr char kHealthServer[] = "";
inline constexpr char kHealthPricing[] = "pricer.v1.PricingService";

// grpc.health.v1.Health. Our own, because gRPC's reports a new server as serving before it can be
// told otherwise. Thread-safe.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // All names above, alive and not yet serving.
  HealthService();
  ~HealthService() override;

  // Tells those who watch as well.
  void Set(const std::string& name, bool serving);

  bool IsServing(const std::string& name);

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;

  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;

  void Add(const std::string& name, Watcher* watcher);
  void Remove(const std::string& name, Watcher* watcher);

  Mutex mutex_;
  std::map<std::string, bool> serving_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::set<Watcher*>> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pricer

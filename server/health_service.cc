#include "server/health_service.h"

#include <optional>
#include <utility>

namespace pricer {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ServingStatus = HealthCheckResponse::ServingStatus;

ServingStatus StatusOf(bool serving) {
  return serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

}  // namespace

// One call of Watch. At most one message is being written; changes in the meantime are folded into
// the last of them.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  Watcher(HealthService* service, std::string name) : service_(service), name_(std::move(name)) {}

  void Send(ServingStatus status) {
    MutexLock lock(&mutex_);
    if (finished_) return;
    next_ = status;
    if (!writing_) WriteNext();
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) {
      FinishOnce();
    } else if (next_.has_value() && !finished_) {
      WriteNext();
    }
  }

  void OnCancel() override {
    MutexLock lock(&mutex_);
    FinishOnce();
  }

  void OnDone() override {
    service_->Remove(name_, this);
    delete this;
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    message_.set_status(*std::exchange(next_, std::nullopt));
    writing_ = true;
    StartWrite(&message_);
  }

  void FinishOnce() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(finished_, true)) return;
    Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the watch has ended"));
  }

  HealthService* const service_;
  const std::string name_;

  Mutex mutex_;
  std::optional<ServingStatus> next_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  // Not changed while it is written.
  HealthCheckResponse message_;
};

HealthService::HealthService()
    : serving_{{kHealthLiveness, true},
               {kHealthStartup, false},
               {kHealthServer, false},
               {kHealthPricing, false}} {}

HealthService::~HealthService() = default;

bool HealthService::IsServing(const std::string& name) {
  MutexLock lock(&mutex_);
  const auto found = serving_.find(name);
  return found != serving_.end() && found->second;
}

void HealthService::Set(const std::string& name, bool serving) {
  MutexLock lock(&mutex_);
  serving_[name] = serving;
  for (Watcher* const watcher : watchers_[name]) watcher->Send(StatusOf(serving));
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  grpc::Status status;
  {
    MutexLock lock(&mutex_);
    const auto found = serving_.find(request->service());
    if (found == serving_.end()) {
      status = grpc::Status(grpc::StatusCode::NOT_FOUND,
                            "unknown service; there are \"\", " + std::string(kHealthPricing) +
                                ", " + kHealthLiveness + " and " + kHealthStartup);
    } else {
      response->set_status(StatusOf(found->second));
    }
  }
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext* /*context*/, const HealthCheckRequest* request) {
  // Deletes itself when gRPC is done with it.
  auto* const watcher = new Watcher(this, request->service());
  Add(request->service(), watcher);
  return watcher;
}

void HealthService::Add(const std::string& name, Watcher* watcher) {
  MutexLock lock(&mutex_);
  const auto found = serving_.find(name);
  if (found == serving_.end()) {
    // No name comes later than at start; nothing to keep it for.
    watcher->Send(HealthCheckResponse::SERVICE_UNKNOWN);
    return;
  }
  watchers_[name].insert(watcher);
  watcher->Send(StatusOf(found->second));
}

void HealthService::Remove(const std::string& name, Watcher* watcher) {
  MutexLock lock(&mutex_);
  const auto found = watchers_.find(name);
  if (found != watchers_.end()) found->second.erase(watcher);
}

}  // namespace pricer

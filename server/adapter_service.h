#pragma once

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/steady_clock.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "server/access.h"
#include "server/access_tokens.h"
#include "server/adapter_operator.h"
#include "server/adapter_registry.h"
#include "server/adapter_watches.h"
#include "server/call_log.h"
#include "server/label_mover.h"
#include "server/metrics.h"
#include "server/worker_pool.h"

namespace pricer {

// The methods that answer raw messages.
using RawAdapterService = v1::AdapterService::WithRawCallbackMethod_ListAdapters<
    v1::AdapterService::WithRawCallbackMethod_WatchAdapters<
        v1::AdapterService::WithRawCallbackMethod_LoadAdapter<
            v1::AdapterService::WithRawCallbackMethod_UnloadAdapter<
                v1::AdapterService::WithRawCallbackMethod_PinAdapter<
                    v1::AdapterService::WithRawCallbackMethod_GetLabels<
                        v1::AdapterService::WithRawCallbackMethod_SetLabel<
                            v1::AdapterService::WithRawCallbackMethod_RemoveLabel<
                                v1::AdapterService::WithRawCallbackMethod_RollbackLabel<
                                    v1::AdapterService::Service>>>>>>>>>;

// pricer.v1.AdapterService: what the registry knows, and its labels, for operators. What changes
// something may read files and price golden items: it runs on a pool, one after the other.
class AdapterService final : public RawAdapterService {
 public:
  // What changes something.
  struct Operators {
    LabelMover* labels = nullptr;
    AdapterOperator* adapters = nullptr;
  };

  // All must outlive the service. `pool` is what changes run on. Null tokens = none are asked for.
  AdapterService(AdapterRegistry* registry, WorkerPool* pool, Metrics* metrics,
                 const TokenKeeper* tokens = nullptr)
      : access_(tokens),
        log_(metrics, SteadyClock()),
        registry_(registry),
        pool_(pool),
        watches_(registry) {}

  // Changes are answered with Unavailable before. Once; both must outlive all calls.
  void Serve(const Operators& operators) {
    operators_ = operators;
    serving_.store(true, std::memory_order_release);
  }

  // Ends the calls that watch, and all that come later.
  void EndWatches() { watches_.EndAll(); }

  WatchReactor* WatchAdapters(grpc::CallbackServerContext* context,
                              const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* LoadAdapter(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* UnloadAdapter(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* PinAdapter(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;

  grpc::ServerUnaryReactor* ListAdapters(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetLabels(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* SetLabel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RemoveLabel(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RollbackLabel(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;

 private:
  // Who asks, and until when.
  struct Asking {
    std::string by;
    absl::Time deadline;
  };
  template <typename Request, typename Response>
  using Handler = absl::StatusOr<Response> (AdapterService::*)(const Request& request,
                                                               const Asking& asking) const;

  // Parses, calls `handler` and finishes the call, on this thread or on the pool.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Answer(const char* method, Handler<Request, Response> handler,
                                   bool on_pool, grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* response);

  absl::StatusOr<v1::ListAdaptersResponse> List(const v1::ListAdaptersRequest& request,
                                                const Asking& asking) const;
  absl::StatusOr<v1::GetLabelsResponse> Get(const v1::GetLabelsRequest& request,
                                            const Asking& asking) const;
  absl::StatusOr<v1::SetLabelResponse> Set(const v1::SetLabelRequest& request,
                                           const Asking& asking) const;
  absl::StatusOr<v1::RemoveLabelResponse> Remove(const v1::RemoveLabelRequest& request,
                                                 const Asking& asking) const;
  absl::StatusOr<v1::RollbackLabelResponse> RollBack(const v1::RollbackLabelRequest& request,
                                                     const Asking& asking) const;
  absl::StatusOr<v1::LoadAdapterResponse> Load(const v1::LoadAdapterRequest& request,
                                               const Asking& asking) const;
  absl::StatusOr<v1::UnloadAdapterResponse> Unload(const v1::UnloadAdapterRequest& request,
                                                   const Asking& asking) const;
  absl::StatusOr<v1::PinAdapterResponse> Pin(const v1::PinAdapterRequest& request,
                                             const Asking& asking) const;
  absl::StatusOr<Operators> WhoOperates() const;

  const Access access_;
  CallLog log_;
  const AdapterRegistry* const registry_;
  WorkerPool* const pool_;
  AdapterWatches watches_;
  Operators operators_;  // set before serving_
  std::atomic<bool> serving_{false};
};

}  // namespace pricer

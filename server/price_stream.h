#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "server/unary_call.h"

namespace pricer {

using PriceStreamReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

// Items of one message of StreamPredictPrices.
inline constexpr int kMaxItemsPerMessage = 256;
// Of one caller at once.
inline constexpr int kMaxStreamsPerCaller = 64;

class PriceStream;

// The streams that run. Thread-safe.
class PriceStreams {
 public:
  // Lets a stream in; ResourceExhausted names the limit, Unavailable after EndAll.
  absl::Status Add(PriceStream* stream, const std::string& caller);
  // No-op for a stream that was not let in.
  void Remove(PriceStream* stream, const std::string& caller);
  // Has all streams read no more and end with Unavailable once what was read is answered.
  void EndAll();

 private:
  Mutex mutex_;
  std::set<PriceStream*> streams_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> by_caller_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
};

// Answers a call of StreamPredictPrices; deletes itself when gRPC is done with it. All must outlive
// the stream.
//
// What it holds is bounded, however fast the caller writes and however slowly it reads: a message
// is read when the one before it has been handed over and fewer than kMaxOutstandingItems are
// without a result that was written. Beyond that gRPC's flow control holds the caller up.
PriceStreamReactor* StartPriceStream(const PricingDoor* door, PricingDoor::Admitted admitted,
                                     PriceStreams* streams, grpc::CallbackServerContext* context);

}  // namespace pricer

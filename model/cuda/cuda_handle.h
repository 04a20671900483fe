#pragma once

#include <cuda_runtime_api.h>

#include "model/cuda/launch_check.h"

// Owners of what the CUDA runtime gives.

namespace pricer::cuda {

// A point in a stream, without a time.
class Event {
 public:
  Event() { CheckLaunch(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void Record(cudaStream_t stream) { CheckLaunch(cudaEventRecord(event_, stream), "an event"); }
  // What is launched on `stream` from now on comes behind the point.
  void Block(cudaStream_t stream) const {
    CheckLaunch(cudaStreamWaitEvent(stream, event_), "waiting for an event");
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace pricer::cuda

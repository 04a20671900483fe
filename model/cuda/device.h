#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"

// What the rest of model/ knows of GPUs. A build without CUDA links no_cuda.cc, which says so.

namespace pricer::cuda {

// Whether what lies on this device is computed by the GPU's ops.
bool RunsOn(at::Device device);
inline bool Handles(const at::Tensor& tensor) { return RunsOn(tensor.device()); }

// Whether a GPU can be used, and if not, why.
absl::Status CheckAvailable(at::Device device);

// Not OK once the GPU has met an error that lasts: whatever is launched fails from then on, and
// only a new process can use it. Waits for the current stream; a CPU is always usable.
absl::Status CheckUsable(at::Device device);

// Memory of the GPU that nothing holds.
int64_t FreeBytes(at::Device device);

// Most memory that tensors on the GPU have taken at one time since the last call.
int64_t TakePeakBytes(at::Device device);

// Runs body() with a stream of its own as the current one, and returns when what it launched is
// done. What other threads launch meanwhile does not wait for it.
void RunOnOwnStream(at::Device device, const std::function<void()>& body);

// A copy on `device` for the current stream to use. From the CPU it goes through pinned memory and
// a stream of its own, beside what the current stream holds, and the host does not wait; `tensor`
// may be changed or freed at once. For what one batch needs: memory that is kept for long is better
// taken from the stream that uses it.
at::Tensor Upload(const at::Tensor& tensor, at::Device device);

// A second stream of the current device, for work that runs beside the current stream's. One thread
// at a time.
class SideStream {
 public:
  static std::unique_ptr<SideStream> Create();
  virtual ~SideStream() = default;

  // Runs body() with this as the current stream, behind what the current stream holds so far.
  // Returns a number for Join.
  virtual int64_t Fork(const std::function<void()>& body) = 0;
  // The current stream waits for what that body launched; the host does not.
  virtual void Join(int64_t fork) = 0;
};

}  // namespace pricer::cuda

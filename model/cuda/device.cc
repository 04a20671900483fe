#include "model/cuda/device.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "absl/strings/str_cat.h"
#include "model/cuda/cuda_handle.h"
#include "model/cuda/launch_check.h"

namespace pricer::cuda {
namespace {

class EventSideStream : public SideStream {
 public:
  int64_t Fork(const std::function<void()>& body) override {
    before_.Record(CurrentStream());
    before_.Block(stream_.stream());
    {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      body();
    }
    done_[forks_ % kKept].Record(stream_.stream());
    return forks_++;
  }

  // An event that was recorded anew meanwhile stands for later work, which is behind the fork's.
  void Join(int64_t fork) override { done_[fork % kKept].Block(CurrentStream()); }

 private:
  static constexpr int64_t kKept = 4;
  const c10::cuda::CUDAStream stream_ = c10::cuda::getStreamFromPool();
  Event before_;
  Event done_[kKept];
  int64_t forks_ = 0;
};

}  // namespace

bool RunsOn(at::Device device) { return device.is_cuda(); }

absl::Status CheckAvailable(at::Device device) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat("device ", device.str(), ": ", cudaGetErrorString(error)));
  }
  if (device.has_index() && device.index() >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("device ", device.str(), ": this machine has ", count));
  }
  return absl::OkStatus();
}

absl::Status CheckUsable(at::Device device) {
  if (device.is_cpu()) return absl::OkStatus();
  const c10::cuda::CUDAGuard guard(device);
  const cudaError_t error = cudaStreamSynchronize(CurrentStream());
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("device ", device.str(), ": ", cudaGetErrorString(error)));
}

int64_t FreeBytes(at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  size_t free = 0;
  size_t total = 0;
  CheckLaunch(cudaMemGetInfo(&free, &total), "the GPU's memory");
  return static_cast<int64_t>(free);
}

int64_t TakePeakBytes(at::Device device) {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const int64_t peak = stats.allocated_bytes[kAll].peak;
  c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
  return peak;
}

void RunOnOwnStream(at::Device device, const std::function<void()>& body) {
  const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(false, device.index());
  const c10::cuda::CUDAStreamGuard guard(stream);
  body();
  CheckLaunch(cudaStreamSynchronize(stream.stream()), "a stream");
}

// The transfer's own stream is idle while the compute stream has work: what is uploaded for the
// next batch lies there before that one begins.
at::Tensor Upload(const at::Tensor& tensor, at::Device device) {
  if (device.is_cpu()) return tensor.clone();
  thread_local const c10::cuda::CUDAStream transfers =
      c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index());
  thread_local Event done;
  const at::Tensor pinned = tensor.contiguous().pin_memory();
  at::Tensor uploaded;
  {
    const c10::cuda::CUDAStreamGuard guard(transfers);
    // The pinned copy goes back to its allocator, which waits for the transfer before it gives it
    // away.
    uploaded = pinned.to(device, /*non_blocking=*/true);
    done.Record(transfers.stream());
  }
  done.Block(CurrentStream());
  // Its memory belongs to the transfers' stream, which must not have it back before this one.
  uploaded.record_stream(c10::cuda::getCurrentCUDAStream(device.index()));
  return uploaded;
}

std::unique_ptr<SideStream> SideStream::Create() { return std::make_unique<EventSideStream>(); }

cudaStream_t CurrentStream() { return c10::cuda::getCurrentCUDAStream().stream(); }

}  // namespace pricer::cuda

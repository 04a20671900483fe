#include "tests/testing/emulated_gpu.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "base/check.h"
#include "model/cuda/device.h"
#include "model/cuda/flash_attention.h"
#include "model/cuda/launch_check.h"
#include "tests/testing/counting_allocator.h"
#include "tests/testing/test_gpu.h"

namespace pricer {
namespace {

bool g_emulated = false;
int g_forks = 0;
bool g_lost = false;

}  // namespace

namespace testing {
namespace {

class EmulatedTestGpu : public TestGpu {
 public:
  at::Device device() const override { return at::kCPU; }
  bool emulated() const override { return true; }

 private:
  const EmulatedGpu gpu_;
};

}  // namespace

std::unique_ptr<TestGpu> TestGpu::Enter() { return std::make_unique<EmulatedTestGpu>(); }

}  // namespace testing

EmulatedGpu::EmulatedGpu() {
  PRICER_CHECK(!g_emulated);
  g_emulated = true;
  g_forks = 0;
  g_lost = false;
  // On some processors oneDNN computes products in bf16 on copies of its own layout, which count
  // as memory of what is emulated.
  at::globalContext().setUserEnabledMkldnn(false);
}

EmulatedGpu::~EmulatedGpu() {
  at::globalContext().setUserEnabledMkldnn(true);
  g_emulated = false;
}

void EmulatedGpu::Lose() { g_lost = true; }

namespace cuda {
namespace {

class ImmediateStream : public SideStream {
 public:
  int64_t Fork(const std::function<void()>& body) override {
    body();
    return g_forks++;
  }
  void Join(int64_t fork) override { PRICER_CHECK(fork < g_forks); }
};

// Of one sequence, in fp32: [N, queries, keys], and v repeated for each query head.
struct Scores {
  at::Tensor q, k, v;  // [N, rows, D]
  at::Tensor scores;   // [N, queries, keys]
};

at::Tensor PerQueryHead(const at::Tensor& rows, int64_t heads) {
  return rows.to(at::kFloat).repeat_interleave(heads / rows.size(1), 1).transpose(0, 1);
}

Scores ScoresOf(const FlashInputs& x, const FlashSequences& sequences, int64_t b) {
  const auto range = [&](const at::Tensor& rows, const at::Tensor& offsets) {
    const int64_t begin = offsets[b].item<int32_t>();
    return rows.narrow(0, begin, offsets[b + 1].item<int32_t>() - begin);
  };
  const int64_t heads = x.q.size(1);
  Scores out{.q = PerQueryHead(range(x.q, sequences.query_offsets), heads),
             .k = PerQueryHead(range(x.k, sequences.key_offsets), heads),
             .v = PerQueryHead(range(x.v, sequences.key_offsets), heads),
             .scores = {}};
  out.scores = at::matmul(out.q, out.k.transpose(1, 2)) * x.scale;
  if (sequences.causal) {
    const int64_t queries = out.q.size(1);
    const int64_t keys = out.k.size(1);
    const at::Tensor beyond = at::ones({queries, keys}, at::kBool).triu(keys - queries + 1);
    out.scores = out.scores.masked_fill(beyond, -std::numeric_limits<float>::infinity());
  }
  return out;
}

// What libtorch 2.11's mha_varlen_bwd holds beside its results: sums of rows and of queries'
// gradients in fp32, rows padded to blocks and head dimensions to tiles, and of keys that several
// heads share each head's own gradients.
std::vector<at::Tensor> FlashScratch(const FlashInputs& x, const FlashSequences& sequences) {
  constexpr int64_t kRowBlock = 128;
  constexpr int64_t kDimTile = 32;
  const int64_t rows = x.q.size(0) + kRowBlock * (sequences.query_offsets.size(0) - 1);
  const int64_t heads = x.q.size(1);
  const int64_t dim = (x.q.size(2) + kDimTile - 1) / kDimTile * kDimTile;
  const auto options = x.q.options().dtype(at::kFloat);
  std::vector<at::Tensor> scratch = {at::empty({heads, rows}, options),
                                     at::empty({rows, heads, dim}, options)};
  if (heads != x.k.size(1)) {
    for (int i = 0; i < 2; ++i) {
      scratch.push_back(at::empty({x.k.size(0), heads, x.k.size(2)}, x.k.options()));
    }
  }
  return scratch;
}

}  // namespace

bool RunsOn(at::Device /*device*/) { return g_emulated; }

absl::Status CheckAvailable(at::Device /*device*/) { return absl::OkStatus(); }

absl::Status CheckUsable(at::Device /*device*/) {
  return g_lost ? absl::InternalError("device cuda:0: an illegal memory access was encountered")
                : absl::OkStatus();
}

int64_t FreeBytes(at::Device /*device*/) { return int64_t{1} << 33; }

int64_t TakePeakBytes(at::Device /*device*/) {
  testing::CountingAllocator* const allocator = testing::CountingAllocator::current();
  if (allocator == nullptr) return 0;
  const int64_t peak = allocator->peak_bytes();
  allocator->ResetPeak();
  return peak;
}

void RunOnOwnStream(at::Device /*device*/, const std::function<void()>& body) { body(); }

at::Tensor Upload(const at::Tensor& tensor, at::Device /*device*/) { return tensor.clone(); }

std::unique_ptr<SideStream> SideStream::Create() { return std::make_unique<ImmediateStream>(); }

cudaStream_t CurrentStream() { return nullptr; }

FlashOutput FlashForward(const FlashInputs& x, const FlashSequences& sequences) {
  TORCH_CHECK(x.q.scalar_type() == at::kBFloat16 && x.q.size(2) % 8 == 0,
              "flash attention takes bf16 and head dimensions that are multiples of 8");
  FlashOutput out{at::empty(x.q.sizes(), x.q.options()),
                  at::empty({x.q.size(1), x.q.size(0)}, x.q.options().dtype(at::kFloat))};
  const testing::CountingAllocator::Uncounted own_tensors;
  std::vector<at::Tensor> outs, sums;
  for (int64_t b = 0; b + 1 < sequences.query_offsets.size(0); ++b) {
    const Scores s = ScoresOf(x, sequences, b);
    outs.push_back(at::matmul(at::softmax(s.scores, -1), s.v).transpose(0, 1));
    sums.push_back(at::logsumexp(s.scores, {-1}));
    TORCH_CHECK(s.q.size(1) <= sequences.max_queries && s.k.size(1) <= sequences.max_keys);
  }
  out.out.copy_(at::cat(outs));
  out.log_sum_exp.copy_(at::cat(sums, 1));
  return out;
}

FlashGradients FlashBackward(const at::Tensor& grad_out, const FlashInputs& x,
                             const FlashOutput& /*made*/, const FlashSequences& sequences) {
  const FlashGradients grads{at::empty(x.q.sizes(), x.q.options()),
                             at::empty(x.k.sizes(), x.k.options()),
                             at::empty(x.v.sizes(), x.v.options())};
  const std::vector<at::Tensor> scratch = FlashScratch(x, sequences);
  const testing::CountingAllocator::Uncounted own_tensors;
  const at::AutoGradMode grad_mode(true);
  FlashInputs leaves = x;
  for (at::Tensor* tensor : {&leaves.q, &leaves.k, &leaves.v}) {
    *tensor = tensor->detach().to(at::kFloat).clone().set_requires_grad(true);
  }
  std::vector<at::Tensor> outs;
  for (int64_t b = 0; b + 1 < sequences.query_offsets.size(0); ++b) {
    const Scores s = ScoresOf(leaves, sequences, b);
    outs.push_back(at::matmul(at::softmax(s.scores, -1), s.v).transpose(0, 1));
  }
  at::cat(outs).backward(grad_out.to(at::kFloat));
  const at::NoGradGuard no_grad;
  grads.q.copy_(leaves.q.grad());
  grads.k.copy_(leaves.k.grad());
  grads.v.copy_(leaves.v.grad());
  return grads;
}

}  // namespace cuda
}  // namespace pricer

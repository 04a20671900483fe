#include "model/ops/dropout.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/ops/dropout_bits.h"
#include "model/ops/rows.h"

namespace pricer {
namespace {

const uint32_t* BitsOf(const at::Tensor& mask, int64_t row) {
  return reinterpret_cast<const uint32_t*>(mask.const_data_ptr<int32_t>()) + row * mask.size(1);
}

// keep() of rows [begin, end) of x into the first rows of `out`; x and out may be the same memory.
void KeepRows(const at::Tensor& x, const at::Tensor& mask, int64_t begin, int64_t end,
              const at::Tensor& out) {
  const auto keep = [&]<typename Word>(Word) {
    const auto* const in = static_cast<const Word*>(x.const_data_ptr());
    auto* const result = static_cast<Word*>(out.mutable_data_ptr());
    for (int64_t t = begin; t < end; ++t) {
      KeepElements(BitsOf(mask, t), in + (t - begin) * x.stride(0),
                   result + (t - begin) * out.stride(0), x.size(1));
    }
  };
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
              "expected fp32 or bf16, got ", x.scalar_type());
  if (x.element_size() == sizeof(uint32_t)) {
    keep(uint32_t{});
  } else {
    keep(uint16_t{});
  }
}

// How many rows of n elements make a block.
int64_t BlockRows(int64_t n) {
  constexpr int64_t kBlockElements = 1 << 16;
  return std::clamp<int64_t>(kBlockElements / n, 32, 256);
}

// Calls body(scratch, begin, end) for blocks of rows on ATen's intra-op threads, `scratch` being
// [block rows, n] of the thread. A body that sums does so in the order of the blocks of its thread.
template <typename Body>
void ParallelOverBlocks(const at::Tensor& x, const Body& body) {
  const int64_t rows = x.size(0);
  const int64_t block = BlockRows(x.size(1));
  const int64_t blocks = (rows + block - 1) / block;
  at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    const at::NoGradGuard no_grad;  // of this thread
    const at::Tensor scratch = at::empty({block, x.size(1)}, x.options());
    body(scratch, first * block, std::min(last * block, rows), block);
  });
}

}  // namespace

at::Tensor DropoutMask(const Dropout& dropout, const DropoutRows& rows, int64_t channels) {
  const int64_t words = (channels + 31) / 32;
  at::Tensor mask = at::empty({rows.row.size(0), words}, at::kInt);
  const auto* const row = rows.row.const_data_ptr<int64_t>();
  const auto* const position = rows.position.const_data_ptr<int64_t>();
  auto* const bits = reinterpret_cast<uint32_t*>(mask.mutable_data_ptr<int32_t>());
  DropoutRowKey key;
  key.key = {static_cast<uint32_t>(dropout.seed ^ dropout.seed >> 32),
             static_cast<uint32_t>(dropout.module)};
  key.threshold = static_cast<uint32_t>(std::lround(dropout.probability * 0x1p24));
  ParallelOverRows(mask.size(0), [&](int64_t begin, int64_t end) {
    DropoutRowKey row_key = key;
    for (int64_t t = begin; t < end; ++t) {
      row_key.counter = {static_cast<uint32_t>(dropout.step), static_cast<uint32_t>(row[t]),
                         static_cast<uint32_t>(position[t])};
      DropoutBits(row_key, {bits + t * words, static_cast<size_t>(words)});
    }
  });
  return mask;
}

void DropoutProduct(const at::Tensor& x, const at::Tensor& mask, const at::Tensor& a,
                    const at::Tensor& h) {
  const at::Tensor a_t = a.t();
  ParallelOverBlocks(x, [&](const at::Tensor& scratch, int64_t begin, int64_t end, int64_t block) {
    for (int64_t row = begin; row < end; row += block) {
      const int64_t count = std::min(block, end - row);
      KeepRows(x.narrow(0, row, count), mask, row, row + count, scratch);
      at::Tensor out = h.narrow(0, row, count);
      at::mm_out(out, scratch.narrow(0, 0, count), a_t);
    }
  });
}

at::Tensor DropoutProductGradient(const at::Tensor& x, const at::Tensor& mask, const at::Tensor& a,
                                  const at::Tensor& g, const at::Tensor& grad_x) {
  // One sum for each thread, added up in their order.
  std::vector<at::Tensor> sums(at::get_num_threads());
  ParallelOverBlocks(x, [&](const at::Tensor& scratch, int64_t begin, int64_t end, int64_t block) {
    at::Tensor& sum = sums[at::get_thread_num()];
    sum = at::zeros(a.sizes(), a.options().dtype(at::kFloat));
    for (int64_t row = begin; row < end; row += block) {
      const int64_t count = std::min(block, end - row);
      at::Tensor rows = scratch.narrow(0, 0, count);
      const at::Tensor g_rows = g.narrow(0, row, count);
      if (grad_x.defined()) {
        at::mm_out(rows, g_rows, a);
        KeepRows(rows, mask, row, row + count, rows);
        grad_x.narrow(0, row, count).add_(rows);
      }
      KeepRows(x.narrow(0, row, count), mask, row, row + count, rows);
      sum.add_(at::mm(g_rows.t(), rows));
    }
  });
  at::Tensor total;
  for (const at::Tensor& sum : sums) {
    if (sum.defined()) total = total.defined() ? total.add_(sum) : sum;
  }
  return total;
}

}  // namespace pricer

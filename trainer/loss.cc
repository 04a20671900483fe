#include "trainer/loss.h"

#include <algorithm>

namespace pricer {

MicroBatch MakeMicroBatch(absl::Span<const Example> examples, absl::Span<const int64_t> indices,
                          const BinsSpec& bins) {
  MicroBatch micro_batch;
  micro_batch.targets = at::empty({static_cast<int64_t>(indices.size()), bins.bins}, at::kFloat);
  float* target = micro_batch.targets.mutable_data_ptr<float>();
  std::vector<PackedSequence> sequences;
  sequences.reserve(indices.size());
  for (int64_t index : indices) {
    sequences.push_back({.ids = examples[index].ids, .adapter = 0});
    const std::vector<float> row = bins.Target(examples[index].price);
    target = std::copy(row.begin(), row.end(), target);
  }
  micro_batch.batch = Pack(sequences);
  return micro_batch;
}

at::Tensor CrossEntropySum(const at::Tensor& logits, const at::Tensor& targets) {
  return -(targets * at::log_softmax(logits.to(at::kFloat), /*dim=*/-1)).sum();
}

}  // namespace pricer

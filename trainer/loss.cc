#include "trainer/loss.h"

#include <algorithm>

#include "base/check.h"

namespace pricer {

MicroBatch MakeBinsMicroBatch(absl::Span<const Example> examples, absl::Span<const int64_t> indices,
                              const BinsSpec& bins) {
  MicroBatch micro_batch;
  micro_batch.rows.assign(indices.begin(), indices.end());
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

MicroBatch MakeTokenMicroBatch(absl::Span<const Example> examples,
                               absl::Span<const int64_t> indices) {
  MicroBatch micro_batch;
  micro_batch.rows.assign(indices.begin(), indices.end());
  std::vector<PackedSequence> sequences;
  sequences.reserve(indices.size());
  std::vector<int64_t> targets;
  for (int64_t index : indices) {
    const absl::Span<const int32_t> ids = examples[index].ids;
    const int64_t answers = examples[index].completion_tokens;
    PRICER_CHECK(answers >= 1 && answers < static_cast<int64_t>(ids.size()));
    sequences.push_back({.ids = ids.first(ids.size() - 1), .adapter = 0, .answers = answers});
    targets.insert(targets.end(), ids.end() - answers, ids.end());
  }
  micro_batch.targets = at::tensor(targets, at::kLong);
  micro_batch.batch = Pack(sequences);
  return micro_batch;
}

std::vector<MicroBatch> Split(const MicroBatch& micro_batch, int64_t parts) {
  const PackedBatch& batch = micro_batch.batch;
  const int64_t sequences = batch.sequence_count();
  std::vector<MicroBatch> out;
  for (int64_t p = 0; p < parts; ++p) {
    const int64_t begin = p * sequences / parts;
    const int64_t end = (p + 1) * sequences / parts;
    if (begin == end) continue;
    const int64_t first = batch.answer_offsets[begin];
    out.push_back(
        {.batch = Slice(batch, begin, end),
         .targets = micro_batch.targets.narrow(0, first, batch.answer_offsets[end] - first),
         .rows = {micro_batch.rows.begin() + begin, micro_batch.rows.begin() + end}});
  }
  return out;
}

}  // namespace pricer

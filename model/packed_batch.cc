#include "model/packed_batch.h"

#include <numeric>

#include "base/check.h"

namespace pricer {

PackedBatch Pack(absl::Span<const PackedSequence> sequences) {
  PRICER_CHECK(!sequences.empty());
  PackedBatch batch;
  batch.offsets.push_back(0);
  batch.answer_offsets.push_back(0);
  for (const PackedSequence& sequence : sequences) {
    PRICER_CHECK(!sequence.ids.empty());
    PRICER_CHECK(batch.adapter.empty() || batch.adapter.back() <= sequence.adapter);
    batch.offsets.push_back(batch.offsets.back() + static_cast<int64_t>(sequence.ids.size()));
    PRICER_CHECK(sequence.answers >= 1 &&
                 sequence.answers <= static_cast<int64_t>(sequence.ids.size()));
    batch.answer_offsets.push_back(batch.answer_count() + sequence.answers);
    batch.adapter.push_back(sequence.adapter);
  }
  batch.ids = at::empty({batch.token_count()}, at::kLong);
  batch.positions = at::empty({batch.token_count()}, at::kLong);
  int64_t* ids = batch.ids.mutable_data_ptr<int64_t>();
  int64_t* positions = batch.positions.mutable_data_ptr<int64_t>();
  for (const PackedSequence& sequence : sequences) {
    ids = std::copy(sequence.ids.begin(), sequence.ids.end(), ids);
    std::iota(positions, positions + sequence.ids.size(), 0);
    positions += sequence.ids.size();
  }
  return batch;
}

}  // namespace pricer

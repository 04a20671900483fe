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

PackedBatch Slice(const PackedBatch& batch, int64_t begin, int64_t end) {
  const auto slice = [&](const std::vector<int64_t>& offsets) {
    std::vector<int64_t> out(offsets.begin() + begin, offsets.begin() + end + 1);
    for (int64_t& offset : out) offset -= offsets[begin];
    return out;
  };
  const int64_t first = batch.offsets[begin];
  const int64_t tokens = batch.offsets[end] - first;
  return {.ids = batch.ids.narrow(0, first, tokens),
          .positions = batch.positions.narrow(0, first, tokens),
          .offsets = slice(batch.offsets),
          .answer_offsets = slice(batch.answer_offsets),
          .adapter = {batch.adapter.begin() + begin, batch.adapter.begin() + end}};
}

}  // namespace pricer

#include "model/ops/lora_block_tasks.h"

#include <algorithm>

namespace pricer {

at::Tensor StackA(const PlannedSegment& segment, int64_t in, at::ScalarType dtype) {
  at::Tensor stacked = at::zeros({segment.ranks, in}, dtype);
  for (const PlannedPart& part : segment.parts) {
    stacked.narrow(0, part.rank_begin, part.rank).copy_(part.a);
  }
  return stacked;
}

namespace {

std::vector<Block> CutBlocks(const LoraPlan& plan, int64_t rows) {
  std::vector<Block> ranges;
  for (size_t s = 0; s < plan.segments.size(); ++s) {
    const PlannedSegment& segment = plan.segments[s];
    ranges.push_back({segment.begin, segment.rows(), static_cast<int64_t>(s)});
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Block& a, const Block& b) { return a.begin < b.begin; });
  std::vector<Block> blocks;
  int64_t done = 0;
  const auto cut = [&](int64_t end, int64_t segment) {
    for (; done < end; done += blocks.back().rows) {
      blocks.push_back({done, std::min(kBlockRows, end - done), segment});
    }
  };
  for (const Block& range : ranges) {
    cut(range.begin, -1);
    cut(range.begin + range.rows, range.segment);
  }
  cut(rows, -1);
  return blocks;
}

}  // namespace

std::vector<BlockTask> CutTasks(const LoraPlan& plan, int64_t rows, int64_t panels) {
  constexpr int64_t kTasksOfThread = 4;
  const std::vector<Block> blocks = CutBlocks(plan, rows);
  const auto count = static_cast<int64_t>(blocks.size());
  const int64_t threads = at::get_num_threads();
  const int64_t wanted = kTasksOfThread * threads;
  const int64_t whole = count < wanted ? 0 : count - threads;
  std::vector<BlockTask> tasks;
  for (int64_t b = 0; b < count; ++b) {
    const int64_t shares = b < whole ? 1 : (wanted + count - whole - 1) / (count - whole);
    const int64_t most = std::min(shares, panels);
    for (int64_t share = 0; share < most; ++share) tasks.push_back({blocks[b], share, most});
  }
  return tasks;
}

std::vector<at::Tensor> ZeroStates(const LoraPlan& plan, at::ScalarType dtype) {
  std::vector<at::Tensor> states;
  for (const PlannedSegment& segment : plan.segments) {
    states.push_back(at::zeros({segment.ranks, StateColumns(segment.rows())}, dtype));
  }
  return states;
}

LoraPlan::LoraPlan(const FrozenLinears& shared) : linears(shared), in(shared.front()->in()) {
  for (const auto& linear : linears) out += linear->out();
}

}  // namespace pricer

#include "model/ops/lora_block_tasks.h"
#include "model/ops/lora_blocks.h"

namespace pricer {
namespace {

// What a segment's products with its low-rank weights read.
struct LowRankOperands {
  std::vector<PackedMatrix> a;  // A^T [in, ranks]; with dropout, one [in, R] of each part
  std::vector<PackedMatrix> b;  // B^T [R, out] of each part
};

LowRankOperands MakeOperands(const PlannedSegment& segment, int64_t in, at::ScalarType dtype) {
  LowRankOperands operands;
  if (!segment.has_dropout()) operands.a.emplace_back(StackA(segment, in, dtype).t());
  for (const PlannedPart& part : segment.parts) {
    if (segment.has_dropout()) operands.a.emplace_back(part.a.to(dtype).t());
    operands.b.emplace_back(part.b.to(dtype).t());
  }
  return operands;
}

// The part of this linear, or -1.
int64_t PartOf(const PlannedSegment& segment, int64_t linear) {
  for (size_t p = 0; p < segment.parts.size(); ++p) {
    if (segment.parts[p].linear == linear) return static_cast<int64_t>(p);
  }
  return -1;
}

template <typename T>
class ForwardPass {
 public:
  ForwardPass(const LoraPlan& plan, const at::Tensor& x, const at::Tensor& y,
              std::vector<at::Tensor>* states)
      : plan_(plan), x_(x), y_(y), states_(states) {
    for (const PlannedSegment& segment : plan.segments) {
      operands_.push_back(MakeOperands(segment, plan.in, x.scalar_type()));
    }
  }

  void Run() {
    int64_t panels = 0;
    for (const auto& linear : plan_.linears) panels += linear->transposed().panels();
    const std::vector<BlockTask> tasks = CutTasks(plan_, x_.size(0), panels);
    const auto count = static_cast<int64_t>(tasks.size());
    ParallelOverTasks(count, [&](std::atomic<int64_t>& next) {
      Scratch<T>& scratch = ThreadScratch<T>();
      for (int64_t task = next++; task < count; task = next++) RunTask(tasks[task], scratch);
    });
  }

 private:
  void RunTask(const BlockTask& task, Scratch<T>& scratch) const {
    const Block& block = task.block;
    const LeftRows<T> left = ReadRows(x_, block.begin, block.rows, 0, plan_.in, scratch.left);
    if (block.segment >= 0) {
      // The shares of one block compute the same states; one of them writes them.
      MakeStates(block, left, /*write=*/task.share == 0, scratch);
    }
    int64_t number = 0;
    int64_t out_begin = 0;
    for (size_t l = 0; l < plan_.linears.size(); ++l) {
      const PackedMatrix& weight = plan_.linears[l]->transposed();
      for (int64_t p = 0; p < weight.panels(); ++p) {
        if (!task.Has(number++)) continue;
        MakePanel(block, left, static_cast<int64_t>(l), p, out_begin, scratch);
      }
      out_begin += weight.columns();
    }
  }

  void MakeStates(const Block& block, const LeftRows<T>& left, bool write,
                  Scratch<T>& scratch) const {
    const PlannedSegment& segment = plan_.segments[block.segment];
    const std::vector<PackedMatrix>& a = operands_[block.segment].a;
    ResizeStates(segment, scratch);
    float* const states = scratch.wide_states.data();
    if (!segment.has_dropout()) {
      MultiplyAll(left, a[0], states, segment.ranks);
    } else {
      // Each part has a mask of its own.
      for (size_t p = 0; p < segment.parts.size(); ++p) {
        const PlannedPart& part = segment.parts[p];
        MultiplyAll(KeepRows(block, segment, part, left, scratch), a[p], states + part.rank_begin,
                    segment.ranks);
      }
    }
    T* to = nullptr;
    int64_t columns = 0;
    if (states_ != nullptr && write) {
      const at::Tensor& kept = (*states_)[block.segment];
      to = kept.mutable_data_ptr<T>();
      columns = kept.size(1);
    }
    RoundStates(segment, block.rows, scratch, to, columns, block.begin - segment.begin);
  }

  LeftRows<T> KeepRows(const Block& block, const PlannedSegment& segment, const PlannedPart& part,
                       const LeftRows<T>& left, Scratch<T>& scratch) const {
    scratch.kept.resize(left.rows * left.k);
    std::fill(scratch.kept.begin() + block.rows * left.k, scratch.kept.end(), T(0));
    KeepElements(MaskBlock(part.mask, block.begin - segment.begin, block.rows, 0, left.k),
                 AsWords(left.data), left.stride, AsWords(scratch.kept.data()), left.k);
    return {scratch.kept.data(), left.k, left.rows, left.k};
  }

  void MakePanel(const Block& block, const LeftRows<T>& left, int64_t linear, int64_t panel,
                 int64_t out_begin, Scratch<T>& scratch) const {
    const PackedMatrix& weight = plan_.linears[linear]->transposed();
    const int64_t width = weight.panel_width(panel);
    float* const sum = scratch.sum;
    MultiplyPanel(left.data, left.stride, left.rows, left.k, weight.template panel<T>(panel), width,
                  sum, width, /*add=*/false);
    if (block.segment >= 0) {
      const PlannedSegment& segment = plan_.segments[block.segment];
      const int64_t p = PartOf(segment, linear);
      if (p >= 0) {
        const PackedMatrix& b = operands_[block.segment].b[p];
        MultiplyPanel(scratch.states.data() + segment.parts[p].rank_begin, segment.ranks, left.rows,
                      b.packed_rows(), b.template panel<T>(panel), width, sum, width, /*add=*/true);
      }
    }
    const int64_t columns = weight.panel_columns(panel);
    const at::Tensor& bias = plan_.linears[linear]->bias();
    T* const out =
        y_.mutable_data_ptr<T>() + block.begin * plan_.out + out_begin + panel * kPanelColumns;
    for (int64_t t = 0; t < block.rows; ++t) {
      if (bias.defined()) {
        row::Accumulate(AsRow(bias.const_data_ptr<T>() + panel * kPanelColumns), sum + t * width,
                        columns);
      }
      row::Scale(sum + t * width, 1.0f, AsRow(out + t * plan_.out), columns);
    }
  }

  const LoraPlan& plan_;
  const at::Tensor& x_;
  const at::Tensor& y_;
  std::vector<at::Tensor>* const states_;
  std::vector<LowRankOperands> operands_;  // of the segments
};

}  // namespace

namespace cpu {

at::Tensor LoraForward(const LoraPlan& plan, const at::Tensor& x, std::vector<at::Tensor>* states) {
  at::Tensor y = at::empty({x.size(0), plan.out}, x.options());
  if (states != nullptr) *states = ZeroStates(plan, x.scalar_type());
  DispatchComputeType(x.scalar_type(),
                      [&]<typename T>() { ForwardPass<T>(plan, x, y, states).Run(); });
  return y;
}

}  // namespace cpu

}  // namespace pricer

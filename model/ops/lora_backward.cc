#include <utility>

#include "model/ops/lora_block_tasks.h"
#include "model/ops/lora_blocks.h"

namespace pricer {
namespace {

// What a segment's products with its low-rank weights read.
struct LowRankOperands {
  PackedMatrix a;               // [ranks, in]
  std::vector<PackedMatrix> b;  // [out, R] of each part
};

LowRankOperands MakeOperands(const PlannedSegment& segment, int64_t in, at::ScalarType dtype) {
  LowRankOperands operands;
  operands.a = PackedMatrix(StackA(segment, in, dtype));
  for (const PlannedPart& part : segment.parts) operands.b.emplace_back(part.b.to(dtype));
  return operands;
}

// dh of all segments and dx.
template <typename T>
class InputGradient {
 public:
  InputGradient(const LoraPlan& plan, const at::Tensor& grad, const at::Tensor& grad_x,
                const std::vector<at::Tensor>& grad_states)
      : plan_(plan), grad_(grad), grad_x_(grad_x), grad_states_(grad_states) {
    for (const PlannedSegment& segment : plan.segments) {
      operands_.push_back(MakeOperands(segment, plan.in, grad.scalar_type()));
    }
  }

  void Run() {
    const int64_t panels = (plan_.in + kPanelColumns - 1) / kPanelColumns;
    const std::vector<BlockTask> tasks =
        CutTasks(plan_, grad_.size(0), grad_x_.defined() ? panels : 1);
    const auto count = static_cast<int64_t>(tasks.size());
    ParallelOverTasks(count, [&](std::atomic<int64_t>& next) {
      Scratch<T>& scratch = ThreadScratch<T>();
      for (int64_t task = next++; task < count; task = next++) RunTask(tasks[task], scratch);
    });
  }

 private:
  void RunTask(const BlockTask& task, Scratch<T>& scratch) const {
    const Block& block = task.block;
    if (block.segment >= 0) MakeStates(block, task.share == 0, scratch);
    if (!grad_x_.defined()) return;
    const int64_t panels = (plan_.in + kPanelColumns - 1) / kPanelColumns;
    for (int64_t p = 0; p < panels; ++p) {
      if (task.Has(p)) MakePanel(block, p, scratch);
    }
  }

  void MakeStates(const Block& block, bool write, Scratch<T>& scratch) const {
    const PlannedSegment& segment = plan_.segments[block.segment];
    ResizeStates(segment, scratch);
    for (size_t p = 0; p < segment.parts.size(); ++p) {
      const PlannedPart& part = segment.parts[p];
      const LeftRows<T> left =
          ReadRows(grad_, block.begin, block.rows, part.out_begin, part.out_size, scratch.slice);
      MultiplyAll(left, operands_[block.segment].b[p], scratch.wide_states.data() + part.rank_begin,
                  segment.ranks);
    }
    const at::Tensor& kept = grad_states_[block.segment];
    RoundStates(segment, block.rows, scratch, write ? kept.mutable_data_ptr<T>() : nullptr,
                kept.size(1), block.begin - segment.begin);
  }

  void MakePanel(const Block& block, int64_t panel, Scratch<T>& scratch) const {
    const int64_t rows = RoundUp(kProductTile, block.rows);
    const int64_t columns = std::min(kPanelColumns, plan_.in - panel * kPanelColumns);
    const int64_t width = RoundUp(kProductTile, columns);
    float* const sum = scratch.sum;
    int64_t out_begin = 0;
    for (const auto& linear : plan_.linears) {
      const LeftRows<T> left =
          ReadRows(grad_, block.begin, block.rows, out_begin, linear->out(), scratch.slice);
      MultiplyPanel(left.data, left.stride, rows, left.k,
                    linear->straight().template panel<T>(panel), width, sum, width,
                    /*add=*/out_begin > 0);
      out_begin += linear->out();
    }
    if (block.segment >= 0) AddLowRank(block, panel, rows, columns, width, scratch);
    T* const out = grad_x_.mutable_data_ptr<T>() + block.begin * plan_.in + panel * kPanelColumns;
    for (int64_t t = 0; t < block.rows; ++t) {
      row::Scale(sum + t * width, 1.0f, AsRow(out + t * plan_.in), columns);
    }
  }

  void AddLowRank(const Block& block, int64_t panel, int64_t rows, int64_t columns, int64_t width,
                  Scratch<T>& scratch) const {
    const PlannedSegment& segment = plan_.segments[block.segment];
    const T* const a = operands_[block.segment].a.template panel<T>(panel);
    const T* const states = scratch.states.data();
    if (!segment.has_dropout()) {
      return MultiplyPanel(states, segment.ranks, rows, segment.ranks, a, width, scratch.sum, width,
                           /*add=*/true);
    }
    for (const PlannedPart& part : segment.parts) {
      MultiplyPanel(states + part.rank_begin, segment.ranks, rows, part.padded_rank,
                    a + part.rank_begin * width, width, scratch.part_sum, width, /*add=*/false);
      AccumulateKept(MaskBlock(part.mask, block.begin - segment.begin, block.rows,
                               panel * kPanelColumns, columns),
                     scratch.part_sum, scratch.sum, width);
    }
  }

  const LoraPlan& plan_;
  const at::Tensor& grad_;
  const at::Tensor& grad_x_;
  const std::vector<at::Tensor>& grad_states_;
  std::vector<LowRankOperands> operands_;
};

// dA and dB: sums over a segment's rows, for a panel of columns at a time.
template <typename T>
class WeightGradient {
 public:
  WeightGradient(const LoraPlan& plan, const at::Tensor& x, const at::Tensor& grad,
                 const std::vector<at::Tensor>& states, const std::vector<at::Tensor>& grad_states,
                 LoraGradients* out)
      : plan_(plan), x_(x), grad_(grad), states_(states), grad_states_(grad_states), out_(out) {
    int64_t first = 0;
    for (size_t s = 0; s < plan.segments.size(); ++s) {
      AddTasks(static_cast<int64_t>(s), first);
      first += static_cast<int64_t>(plan.segments[s].parts.size());
    }
  }

  void Run() {
    const auto count = static_cast<int64_t>(tasks_.size());
    ParallelOverTasks(count, [&](std::atomic<int64_t>& next) {
      Scratch<T>& scratch = ThreadScratch<T>();
      for (int64_t task = next++; task < count; task = next++) RunTask(tasks_[task], scratch);
    });
  }

 private:
  // Sums of the states in [rank_begin, rank_end) with a panel of x, or of the gradient.
  struct Task {
    int64_t segment = 0;
    int64_t first_output = 0;  // of the segment's parts
    int64_t part = -1;         // of dB
    int64_t panel = 0;
    bool of_a = false;  // of all parts, which share their input
  };

  void AddTasks(int64_t s, int64_t first_output) {
    const PlannedSegment& segment = plan_.segments[s];
    const auto parts = static_cast<int64_t>(segment.parts.size());
    const auto add = [&](int64_t part, int64_t columns, bool of_a) {
      for (int64_t p = 0; p * kPanelColumns < columns; ++p) {
        tasks_.push_back({s, first_output, part, p, of_a});
      }
    };
    for (int64_t p = 0; p < parts; ++p) {
      const PlannedPart& part = segment.parts[p];
      out_->a.push_back(at::empty({part.rank, plan_.in}, at::kFloat));
      out_->b.push_back(at::empty({part.out_size, part.rank}, at::kFloat));
      add(p, part.out_size, /*of_a=*/false);
    }
    add(/*part=*/-1, plan_.in, /*of_a=*/true);
  }

  void RunTask(const Task& task, Scratch<T>& scratch) const {
    std::vector<float>& sum = scratch.wide_states;
    const PlannedSegment& segment = plan_.segments[task.segment];
    const int64_t begin = task.of_a ? 0 : segment.parts[task.part].rank_begin;
    const int64_t ranks = task.of_a ? segment.ranks : segment.parts[task.part].padded_rank;
    const int64_t size = task.of_a ? plan_.in : segment.parts[task.part].out_size;
    const int64_t columns = std::min(kPanelColumns, size - task.panel * kPanelColumns);
    const int64_t width = RoundUp(kProductTile, columns);
    const at::Tensor& states = (task.of_a ? grad_states_ : states_)[task.segment];
    sum.resize(ranks * width);
    for (int64_t row = 0; row < segment.rows(); row += kPackedRows) {
      const int64_t count = std::min(kPackedRows, segment.rows() - row);
      const Rows rows = ReadColumns(task, segment, row, count, columns);
      const T* const left = states.const_data_ptr<T>() + begin * states.size(1) + row;
      if (!task.of_a || !segment.has_dropout()) {
        Multiply(left, states.size(1), ranks, rows, row > 0, sum.data(), scratch);
        continue;
      }
      // Each part has a mask of its own.
      for (const PlannedPart& part : segment.parts) {
        const Rows kept = Keep(rows, part, row, task.panel * kPanelColumns, scratch);
        Multiply(left + part.rank_begin * states.size(1), states.size(1), part.padded_rank, kept,
                 row > 0, &sum[part.rank_begin * width], scratch);
      }
    }
    if (task.of_a) {
      WriteA(task, segment, columns, width, sum);
    } else {
      WriteB(task, segment, columns, width, sum);
    }
  }

  // Columns of a panel, of x or of the gradient.
  struct Rows {
    const T* data = nullptr;
    int64_t stride = 0;
    int64_t count = 0;
    int64_t columns = 0;
  };

  Rows ReadColumns(const Task& task, const PlannedSegment& segment, int64_t row, int64_t count,
                   int64_t columns) const {
    const at::Tensor& from = task.of_a ? x_ : grad_;
    const int64_t stride = from.size(1);
    const T* data =
        from.const_data_ptr<T>() + (segment.begin + row) * stride + task.panel * kPanelColumns;
    if (!task.of_a) data += segment.parts[task.part].out_begin;
    return {data, stride, count, columns};
  }

  Rows Keep(const Rows& rows, const PlannedPart& part, int64_t row, int64_t column,
            Scratch<T>& scratch) const {
    scratch.kept.resize(rows.count * rows.columns);
    KeepElements(MaskBlock(part.mask, row, rows.count, column, rows.columns), AsWords(rows.data),
                 rows.stride, AsWords(scratch.kept.data()), rows.columns);
    return {scratch.kept.data(), rows.columns, rows.count, rows.columns};
  }

  // sum [ranks, columns padded] = left [ranks, count] times rows, or adds it.
  void Multiply(const T* left, int64_t left_stride, int64_t ranks, const Rows& rows, bool add,
                float* sum, Scratch<T>& scratch) const {
    const int64_t k = RoundUp(kDepthTile, rows.count);
    const int64_t width = RoundUp(kProductTile, rows.columns);
    scratch.packed.resize(k * width);
    PackPanel(rows.data, rows.stride, rows.count, rows.columns, k, width, scratch.packed.data());
    MultiplyPanel(left, left_stride, ranks, k, scratch.packed.data(), width, sum, width, add);
  }

  // `sum` has the rows of all states.
  void WriteA(const Task& task, const PlannedSegment& segment, int64_t columns, int64_t width,
              const std::vector<float>& sum) const {
    for (size_t p = 0; p < segment.parts.size(); ++p) {
      const PlannedPart& part = segment.parts[p];
      auto* const out = out_->a[task.first_output + p].template mutable_data_ptr<float>();
      for (int64_t r = 0; r < part.rank; ++r) {
        std::copy_n(&sum[(part.rank_begin + r) * width], columns,
                    out + r * plan_.in + task.panel * kPanelColumns);
      }
    }
  }

  void WriteB(const Task& task, const PlannedSegment& segment, int64_t columns, int64_t width,
              const std::vector<float>& sum) const {
    const int64_t rank = segment.parts[task.part].rank;
    const at::Tensor& grad_b = out_->b[task.first_output + task.part];
    auto* const out = grad_b.mutable_data_ptr<float>() + task.panel * kPanelColumns * rank;
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rank; ++r) out[c * rank + r] = sum[r * width + c];
    }
  }

  const LoraPlan& plan_;
  const at::Tensor& x_;
  const at::Tensor& grad_;
  const std::vector<at::Tensor>& states_;
  const std::vector<at::Tensor>& grad_states_;
  LoraGradients* const out_;
  std::vector<Task> tasks_;
};

}  // namespace

namespace cpu {

LoraGradients LoraBackward(const LoraPlan& plan, const at::Tensor& x,
                           const std::vector<at::Tensor>& states, const at::Tensor& grad,
                           bool wants_x) {
  LoraGradients out;
  if (wants_x) out.x = at::empty({x.size(0), plan.in}, x.options());
  const std::vector<at::Tensor> grad_states = ZeroStates(plan, x.scalar_type());
  DispatchComputeType(x.scalar_type(), [&]<typename T>() {
    InputGradient<T>(plan, grad, out.x, grad_states).Run();
    WeightGradient<T>(plan, x, grad, states, grad_states, &out).Run();
  });
  return out;
}

at::Tensor LinearInputGradient(const at::Tensor& grad, const FrozenLinears& linears) {
  const LoraPlan plan(linears);
  at::Tensor grad_x = at::empty({grad.size(0), plan.in}, grad.options());
  const std::vector<at::Tensor> no_states;
  DispatchComputeType(grad.scalar_type(),
                      [&]<typename T>() { InputGradient<T>(plan, grad, grad_x, no_states).Run(); });
  return grad_x;
}

}  // namespace cpu

}  // namespace pricer

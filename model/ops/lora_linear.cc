#include "model/ops/lora_linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// fp32 products of MKL are equal row by row from 31 rows on (measured on AVX2 and AVX512
// processors).
constexpr int64_t kStableRows = 32;

at::Tensor PadRows(const at::Tensor& x) {
  if (x.size(0) >= kStableRows) return x;
  at::Tensor padded = at::zeros({kStableRows, x.size(1)}, x.options());
  padded.narrow(0, 0, x.size(0)).copy_(x);
  return padded;
}

at::Tensor StableProduct(const at::Tensor& x, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias) {
  if (x.size(0) >= kStableRows) return at::linear(x, weight, bias);
  // A copy, since autograd wants outputs that are no views.
  return at::linear(PadRows(x), weight, bias).narrow(0, 0, x.size(0)).clone();
}

std::optional<at::Tensor> Optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

// Where a segment's tensors stand in the flat list that autograd sees: parts' A and B by turns.
struct SegmentPlan {
  int64_t begin, end;
  struct Part {
    int64_t out_begin, out_size;
    double scale;
    Dropout dropout;
  };
  std::vector<Part> parts;
  variable_list masks;  // of the parts, where there is dropout

  bool has_dropout() const { return !parts.empty() && parts[0].dropout.probability > 0; }
};

struct Plan : torch::CustomClassHolder {
  std::vector<SegmentPlan> segments;
};

void MakeMasks(const DropoutRows& rows, int64_t channels, SegmentPlan& segment) {
  if (!segment.has_dropout()) return;
  const int64_t count = segment.end - segment.begin;
  const DropoutRows segment_rows{rows.row.narrow(0, segment.begin, count),
                                 rows.position.narrow(0, segment.begin, count)};
  for (const SegmentPlan::Part& part : segment.parts) {
    segment.masks.push_back(DropoutMask(part.dropout, segment_rows, channels));
  }
}

c10::intrusive_ptr<Plan> MakePlan(const std::vector<LoraSegment>& segments, const DropoutRows& rows,
                                  int64_t channels) {
  auto plan = c10::make_intrusive<Plan>();
  for (const LoraSegment& segment : segments) {
    SegmentPlan planned{segment.begin, segment.end, {}, {}};
    for (const LoraPart& part : segment.parts) {
      // Dropout's scale goes with LoRA's.
      const double scale = part.scale * DropoutScale(part.dropout);
      planned.parts.push_back({part.out_begin, part.out_size, scale, part.dropout});
    }
    MakeMasks(rows, channels, planned);
    plan->segments.push_back(std::move(planned));
  }
  return plan;
}

variable_list FlattenWeights(const std::vector<LoraSegment>& segments) {
  variable_list flat;
  for (const LoraSegment& segment : segments) {
    for (const LoraPart& part : segment.parts) {
      flat.push_back(part.a);
      flat.push_back(part.b);
    }
  }
  return flat;
}

// The A of all parts one below the other, so that one product serves them all: [sum of R, in]. At
// least two rows, the last one zero, since a product with one column goes through other code, whose
// rows are not stable.
at::Tensor StackA(const at::Tensor* weights, size_t parts, at::ScalarType dtype) {
  variable_list a;
  int64_t rows = 0;
  for (size_t p = 0; p < parts; ++p) {
    a.push_back(weights[2 * p]);
    rows += a.back().size(0);
  }
  if (rows == 1) a.push_back(at::zeros_like(a[0]));
  return (a.size() == 1 ? a[0] : at::cat(a)).to(dtype);
}

// The parts' low-rank states side by side: [rows, sum of R], at least kStableRows rows.
at::Tensor UnscaledStates(const SegmentPlan& segment, const at::Tensor* weights,
                          const at::Tensor& x) {
  const at::Tensor x_rows = x.narrow(0, segment.begin, segment.end - segment.begin);
  if (!segment.has_dropout()) {
    return at::linear(PadRows(x_rows), StackA(weights, segment.parts.size(), x.scalar_type()));
  }
  // Each part has a mask of its own.
  int64_t ranks = 0;
  for (size_t p = 0; p < segment.parts.size(); ++p) ranks += weights[2 * p].size(0);
  at::Tensor hidden = at::zeros({std::max(x_rows.size(0), kStableRows), ranks}, x.options());
  int64_t rank_begin = 0;
  for (size_t p = 0; p < segment.parts.size(); ++p) {
    const at::Tensor a = weights[2 * p].to(x.scalar_type());
    DropoutProduct(x_rows, segment.masks[p], a,
                   hidden.narrow(0, 0, x_rows.size(0)).narrow(1, rank_begin, a.size(0)));
    rank_begin += a.size(0);
  }
  return hidden;
}

// The same times LoRA's scale: a product that scales its sums has rows that are less stable.
at::Tensor LowRankStates(const SegmentPlan& segment, const at::Tensor* weights,
                         const at::Tensor& x) {
  at::Tensor states = UnscaledStates(segment, weights, x);
  int64_t rank_begin = 0;
  for (size_t p = 0; p < segment.parts.size(); ++p) {
    const int64_t rank = weights[2 * p].size(0);
    states.narrow(1, rank_begin, rank).mul_(segment.parts[p].scale);
    rank_begin += rank;
  }
  return states;
}

// y[segment] += ..., computed on at least kStableRows rows whatever the segment's length.
void AddSegment(const SegmentPlan& segment, const at::Tensor* weights, const at::Tensor& hidden,
                const at::Tensor& y) {
  const at::Tensor y_rows = y.narrow(0, segment.begin, segment.end - segment.begin);
  const bool pad = y_rows.size(0) < kStableRows;
  const at::Tensor target = pad ? PadRows(y_rows) : y_rows;
  int64_t rank_begin = 0;
  for (size_t p = 0; p < segment.parts.size(); ++p) {
    const SegmentPlan::Part& part = segment.parts[p];
    const at::Tensor& b = weights[2 * p + 1];
    target.narrow(1, part.out_begin, part.out_size)
        .addmm_(hidden.narrow(1, rank_begin, b.size(1)), b.to(y.scalar_type()).t());
    rank_begin += b.size(1);
  }
  if (pad) y_rows.copy_(target.narrow(0, 0, y_rows.size(0)));
}

struct LoraLinearFunction : torch::autograd::Function<LoraLinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, at::TensorList lora,
                            const c10::intrusive_ptr<Plan>& plan) {
    at::Tensor y = StableProduct(x, weight, bias);
    variable_list saved = {x, weight};
    saved.insert(saved.end(), lora.begin(), lora.end());
    const at::Tensor* weights = lora.data();
    for (const SegmentPlan& segment : plan->segments) {
      const at::Tensor hidden = LowRankStates(segment, weights, x);
      AddSegment(segment, weights, hidden, y);
      saved.push_back(hidden);
      weights += 2 * segment.parts.size();
    }
    context->save_for_backward(saved);
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return y;
  }

  // For each part, with G the gradient of its columns and h scaled: dB = G^T h, dh = scale G B,
  // dA = dh^T x, dx = G W + dh A; with dropout, whose scale is part of `scale`: dA = dh^T keep(x),
  // dx = G W + keep(dh A).
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const auto plan_pointer = context->saved_data["plan"].toCapsule();
    const Plan& plan = static_cast<const Plan&>(*plan_pointer);
    const at::Tensor& x = saved[0];
    const at::Tensor grad = grads[0].contiguous();
    const bool wants_x = context->needs_input_grad(0);
    size_t lora_count = 0;
    for (const SegmentPlan& segment : plan.segments) lora_count += 2 * segment.parts.size();

    at::Tensor grad_x = wants_x ? at::mm(grad, saved[1]) : at::Tensor();
    variable_list out = {grad_x, at::Tensor(), at::Tensor()};
    const at::Tensor* weights = saved.data() + 2;
    const at::Tensor* hidden = weights + lora_count;
    for (const SegmentPlan& segment : plan.segments) {
      BackwardSegment(segment, weights, *hidden, x, grad, grad_x, out);
      weights += 2 * segment.parts.size();
      ++hidden;
    }
    out.emplace_back();  // the plan
    return out;
  }

  static void BackwardSegment(const SegmentPlan& segment, const at::Tensor* weights,
                              const at::Tensor& hidden, const at::Tensor& x, const at::Tensor& grad,
                              const at::Tensor& grad_x, variable_list& out) {
    const int64_t rows = segment.end - segment.begin;
    const at::Tensor stacked = StackA(weights, segment.parts.size(), x.scalar_type());
    at::Tensor grad_hidden = at::zeros({rows, stacked.size(0)}, x.options());
    variable_list grad_b;
    int64_t rank_begin = 0;
    for (size_t p = 0; p < segment.parts.size(); ++p) {
      const SegmentPlan::Part& part = segment.parts[p];
      const at::Tensor b = weights[2 * p + 1].to(x.scalar_type());
      const at::Tensor g =
          grad.narrow(0, segment.begin, rows).narrow(1, part.out_begin, part.out_size);
      grad_hidden.narrow(1, rank_begin, b.size(1)).copy_(at::mm(g, b).mul_(part.scale));
      const at::Tensor h = hidden.narrow(0, 0, rows).narrow(1, rank_begin, b.size(1));
      grad_b.push_back(at::mm(g.t(), h).to(at::kFloat));
      rank_begin += b.size(1);
    }
    const at::Tensor x_rows = x.narrow(0, segment.begin, rows);
    const at::Tensor grad_x_rows =
        grad_x.defined() ? grad_x.narrow(0, segment.begin, rows) : at::Tensor();
    const variable_list grad_a =
        segment.has_dropout()
            ? BackwardDropout(segment, weights, x_rows, grad_hidden, grad_x_rows)
            : BackwardStacked(segment, weights, x_rows, stacked, grad_hidden, grad_x_rows);
    for (size_t p = 0; p < segment.parts.size(); ++p) {
      out.push_back(grad_a[p]);
      out.push_back(grad_b[p]);
    }
  }

  // Returns dA of each part and adds to dx, all parts in one product.
  static variable_list BackwardStacked(const SegmentPlan& segment, const at::Tensor* weights,
                                       const at::Tensor& x_rows, const at::Tensor& stacked,
                                       const at::Tensor& grad_hidden,
                                       const at::Tensor& grad_x_rows) {
    const at::Tensor grad_a = at::mm(grad_hidden.t(), x_rows).to(at::kFloat);
    if (grad_x_rows.defined()) grad_x_rows.addmm_(grad_hidden, stacked);
    variable_list parts;
    int64_t rank_begin = 0;
    for (size_t p = 0; p < segment.parts.size(); ++p) {
      const int64_t rank = weights[2 * p].size(0);
      parts.push_back(grad_a.narrow(0, rank_begin, rank));
      rank_begin += rank;
    }
    return parts;
  }

  // The same part by part, since each has a mask of its own.
  static variable_list BackwardDropout(const SegmentPlan& segment, const at::Tensor* weights,
                                       const at::Tensor& x_rows, const at::Tensor& grad_hidden,
                                       const at::Tensor& grad_x_rows) {
    variable_list parts;
    int64_t rank_begin = 0;
    for (size_t p = 0; p < segment.parts.size(); ++p) {
      const at::Tensor a = weights[2 * p].to(x_rows.scalar_type());
      const at::Tensor grad_h = grad_hidden.narrow(1, rank_begin, a.size(0));
      parts.push_back(DropoutProductGradient(x_rows, segment.masks[p], a, grad_h, grad_x_rows));
      rank_begin += a.size(0);
    }
    return parts;
  }
};

}  // namespace

at::Tensor LoraLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const std::vector<LoraSegment>& segments, const DropoutRows& rows) {
  const variable_list lora = FlattenWeights(segments);
  return LoraLinearFunction::apply(x, weight, Optional(bias), at::TensorList(lora),
                                   MakePlan(segments, rows, x.size(1)));
}

at::Tensor RowStableLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return StableProduct(x, weight, Optional(bias));
}

}  // namespace pricer

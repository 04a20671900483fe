#include "model/layers/recomputed_layer.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The trained LoRA matrices that the layer uses, each once.
variable_list TrainedTensors(int64_t index, const ForwardContext& context) {
  std::vector<const AdapterWeights*> adapters;
  variable_list tensors;
  for (const AdapterSegment& segment : context.tokens.segments) {
    if (std::find(adapters.begin(), adapters.end(), segment.adapter) != adapters.end()) continue;
    adapters.push_back(segment.adapter);
    for (const LoraWeights& linear : segment.adapter->layers[index]) {
      if (!linear.defined()) continue;
      for (const at::Tensor& tensor : {linear.a, linear.b}) {
        if (tensor.requires_grad()) tensors.push_back(tensor);
      }
    }
  }
  return tensors;
}

struct Plan : torch::CustomClassHolder {
  const DecoderLayer* layer = nullptr;
  std::shared_ptr<const ForwardContext> context;
};

struct RecomputedLayerFunction : torch::autograd::Function<RecomputedLayerFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& sum,
                               at::TensorList trained, const c10::intrusive_ptr<Plan>& plan) {
    const Stream out = plan->layer->Forward({.residual = sum, .delta = {}}, *plan->context,
                                            /*cache=*/nullptr);
    variable_list saved = {sum};
    saved.insert(saved.end(), trained.begin(), trained.end());
    context->save_for_backward(saved);
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return {out.residual, out.delta};
  }

  // The gradients of the layer's own graph, which is made here and gone afterwards.
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list inputs = context->get_saved_variables();
    const auto plan_pointer = context->saved_data["plan"].toCapsule();
    const Plan& plan = static_cast<const Plan&>(*plan_pointer);
    const bool wants_sum = context->needs_input_grad(0);
    const at::Tensor sum = inputs[0].detach().requires_grad_(wants_sum);
    inputs.erase(inputs.begin());
    if (wants_sum) inputs.insert(inputs.begin(), sum);
    const at::AutoGradMode grad_mode(true);
    const Stream out =
        plan.layer->Forward({.residual = sum, .delta = {}}, *plan.context, /*cache=*/nullptr);
    variable_list found = torch::autograd::grad({out.residual, out.delta}, inputs, grads);
    if (!wants_sum) found.insert(found.begin(), at::Tensor());
    found.emplace_back();  // the plan
    return found;
  }
};

}  // namespace

bool RecordsGradients(int64_t index, const Stream& in, const ForwardContext& context) {
  return at::GradMode::is_enabled() &&
         (in.residual.requires_grad() || (in.delta.defined() && in.delta.requires_grad()) ||
          !TrainedTensors(index, context).empty());
}

Stream ForwardRecomputed(const DecoderLayer& layer, int64_t index, const Stream& in,
                         const std::shared_ptr<const ForwardContext>& context) {
  const at::Tensor sum = in.delta.defined() ? in.residual + in.delta : in.residual;
  auto plan = c10::make_intrusive<Plan>();
  plan->layer = &layer;
  plan->context = context;
  const variable_list out =
      RecomputedLayerFunction::apply(sum, at::TensorList(TrainedTensors(index, *context)), plan);
  return {.residual = out[0], .delta = out[1]};
}

}  // namespace pricer

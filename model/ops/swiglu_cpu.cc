#include "model/ops/rows.h"
#include "model/ops/swiglu_impl.h"

namespace pricer::cpu {
namespace {

template <typename T>
void ForwardRows(const at::Tensor& gate_up, const at::Tensor& out) {
  const int64_t n = out.size(1);
  const auto* in_data = AsRow(gate_up.const_data_ptr<T>());
  auto* out_data = AsRow(out.mutable_data_ptr<T>());
  ParallelOverRows(out.size(0), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto* in = in_data + t * 2 * n;
      row::Swiglu(in, in + n, out_data + t * n, n);
    }
  });
}

template <typename T>
void BackwardRows(const at::Tensor& grad, const at::Tensor& gate_up,
                  const at::Tensor& grad_gate_up) {
  const int64_t n = grad.size(1);
  const auto* grad_data = AsRow(grad.const_data_ptr<T>());
  const auto* in_data = AsRow(gate_up.const_data_ptr<T>());
  auto* out_data = AsRow(grad_gate_up.mutable_data_ptr<T>());
  ParallelOverRows(grad.size(0), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto* in = in_data + t * 2 * n;
      auto* out = out_data + t * 2 * n;
      row::SwigluGradient(grad_data + t * n, in, in + n, out, out + n, n);
    }
  });
}

}  // namespace

void SwigluForward(const at::Tensor& gate_up, const at::Tensor& out) {
  DispatchComputeType(gate_up.scalar_type(), [&]<typename T>() { ForwardRows<T>(gate_up, out); });
}

void SwigluBackward(const at::Tensor& grad, const at::Tensor& gate_up,
                    const at::Tensor& grad_gate_up) {
  DispatchComputeType(gate_up.scalar_type(),
                      [&]<typename T>() { BackwardRows<T>(grad, gate_up, grad_gate_up); });
}

}  // namespace pricer::cpu

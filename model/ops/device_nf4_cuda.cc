#include <cuda_fp16.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "model/cuda/device.h"
#include "model/cuda/elements.h"
#include "model/cuda/launch_check.h"
#include "model/nf4_tables.h"
#include "model/ops/device_nf4.h"
#include "model/ops/nf4_kernel.h"

namespace pricer::cuda {
namespace {

template <typename Container>
at::Tensor ValuesOn(const Container& values, at::ScalarType dtype, at::Device device) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, dtype);
  if (!values.empty()) std::memcpy(host.mutable_data_ptr(), values.data(), host.nbytes());
  return host.to(device);
}

at::Tensor DynamicMap(at::Device device) { return ValuesOn(kDynamicMap, at::kFloat, device); }

template <typename T>
void Encode(const at::Tensor& values, const DeviceNf4& out, const at::Tensor& absmax,
            const at::Tensor& bad) {
  const Nf4EncodeParams<T> params = {.count = values.numel(),
                                     .values = Read<T>(values),
                                     .packed = Write<uint8_t>(out.packed),
                                     .absmax = Write<float>(absmax),
                                     .bad = Write<int32_t>(bad)};
  CheckLaunch(LaunchNf4Encode(params, CurrentStream()), "QuantizeNf4");
}

}  // namespace

DeviceNf4 UploadNf4(const Nf4Tensor& tensor, at::Device device) {
  DeviceNf4 out;
  out.shape = tensor.shape;
  out.packed = ValuesOn(tensor.packed, at::kByte, device);
  if (tensor.nested) {
    out.absmax_codes = ValuesOn(tensor.absmax_codes, at::kByte, device);
    out.nested_absmax = ValuesOn(tensor.nested_absmax, at::kFloat, device);
    out.nested_offset =
        at::full({1}, tensor.nested_offset, at::TensorOptions(device).dtype(at::kFloat));
    out.dynamic_map = DynamicMap(device);
  } else {
    out.absmax = ValuesOn(tensor.absmax, at::kFloat, device);
  }
  return out;
}

absl::StatusOr<DeviceNf4> QuantizeNf4(const at::Tensor& given) {
  const at::Tensor values = given.contiguous();
  const at::Device device = values.device();
  const auto like = [&](int64_t size, at::ScalarType dtype) {
    return at::empty({size}, values.options().dtype(dtype));
  };
  const int64_t blocks = (values.numel() + kNf4BlockSize - 1) / kNf4BlockSize;
  DeviceNf4 out;
  out.shape = values.sizes().vec();
  out.packed = like((values.numel() + 1) / 2, at::kByte);
  const at::Tensor absmax = like(blocks, at::kFloat);
  const at::Tensor bad = at::zeros({1}, values.options().dtype(at::kInt));
  switch (values.scalar_type()) {
    case at::kFloat:
      Encode<float>(values, out, absmax, bad);
      break;
    case at::kBFloat16:
      Encode<__nv_bfloat16>(values, out, absmax, bad);
      break;
    case at::kHalf:
      Encode<__half>(values, out, absmax, bad);
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("NF4 takes F32, F16 or BF16, got ", c10::toString(values.scalar_type())));
  }
  out.absmax_codes = like(blocks, at::kByte);
  out.nested_absmax = like((blocks + kNf4NestedBlockSize - 1) / kNf4NestedBlockSize, at::kFloat);
  out.nested_offset = absmax.mean().reshape({1});
  out.dynamic_map = DynamicMap(device);
  const at::Tensor codes = ValuesOn(MakeNf4DynamicCodes(), at::kByte, device);
  CheckLaunch(LaunchNf4Nest({.blocks = blocks,
                             .absmax = Read<float>(absmax),
                             .offset = Read<float>(out.nested_offset),
                             .dynamic_codes = Read<uint8_t>(codes),
                             .absmax_codes = Write<uint8_t>(out.absmax_codes),
                             .nested_absmax = Write<float>(out.nested_absmax)},
                            CurrentStream()),
              "QuantizeNf4's double quantization");
  if (bad.item<int32_t>() != 0) {
    return absl::InvalidArgumentError("the weights hold values that are not finite");
  }
  return out;
}

void DecodeNf4(const DeviceNf4& tensor, const at::Tensor& out) {
  const Nf4View view = {.count = tensor.element_count(),
                        .packed = Read<uint8_t>(tensor.packed),
                        .absmax_codes = Read<uint8_t>(tensor.absmax_codes),
                        .nested_absmax = Read<float>(tensor.nested_absmax),
                        .nested_offset = Read<float>(tensor.nested_offset),
                        .absmax = Read<float>(tensor.absmax)};
  DispatchKernelType(out.scalar_type(), [&]<typename T>() {
    CheckLaunch(
        LaunchNf4Decode(view, Read<float>(tensor.dynamic_map), Write<T>(out), CurrentStream()),
        "DecodeNf4");
  });
}

}  // namespace pricer::cuda

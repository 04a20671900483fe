#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/nf4.h"

// Weights in NF4 on a GPU; the format is model/nf4.h's.

namespace pricer::cuda {

struct DeviceNf4 {
  std::vector<int64_t> shape;
  at::Tensor packed;         // [(n + 1) / 2] uint8
  at::Tensor absmax_codes;   // [ceil(n / 64)] uint8; nested alone
  at::Tensor nested_absmax;  // [ceil(blocks / 256)] fp32; nested alone
  at::Tensor nested_offset;  // [1] fp32; nested alone
  at::Tensor dynamic_map;    // [256] fp32; nested alone
  at::Tensor absmax;         // [ceil(n / 64)] fp32, where not nested

  int64_t element_count() const { return c10::multiply_integers(shape); }
  int64_t bytes() const {
    int64_t bytes = 0;
    for (const at::Tensor& part :
         {packed, absmax_codes, nested_absmax, nested_offset, dynamic_map, absmax}) {
      if (part.defined()) bytes += static_cast<int64_t>(part.nbytes());
    }
    return bytes;
  }
};

DeviceNf4 UploadNf4(const Nf4Tensor& tensor, at::Device device);

// As pricer::QuantizeNf4 with double quantization, of fp32, bf16 or fp16 values on a GPU; but for
// the mean of the block maxima, which is summed in another order, to the byte. InvalidArgument:
// non-finite values. Waits for the device.
absl::StatusOr<DeviceNf4> QuantizeNf4(const at::Tensor& values);

// Into `out`, contiguous, fp32 or bf16, of element_count() elements.
void DecodeNf4(const DeviceNf4& tensor, const at::Tensor& out);

}  // namespace pricer::cuda

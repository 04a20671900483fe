#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Launchers of NF4's kernels; the format's definition is model/nf4.h. All pointers are to device
// memory. OutT is float or __nv_bfloat16, InT those and __half.

namespace pricer::cuda {

// A weight in NF4, as Nf4Tensor holds it.
struct Nf4View {
  int64_t count = 0;                      // elements
  const uint8_t* packed = nullptr;        // [(count + 1) / 2], multiple of 16 bytes
  const uint8_t* absmax_codes = nullptr;  // [ceil(count / 64)], nested alone
  const float* nested_absmax = nullptr;   // [ceil(blocks / 256)], nested alone
  const float* nested_offset = nullptr;   // [1], nested alone
  const float* absmax = nullptr;          // [ceil(count / 64)], where not nested; else null
};

// DequantizeNf4 in one pass: double quantization is undone where a value is decoded. Each value is
// level * absmax in fp32, rounded once to OutT. `dynamic_map` [256] is kDynamicMap; null where not
// nested.
template <typename OutT>
cudaError_t LaunchNf4Decode(const Nf4View& view, const float* dynamic_map, OutT* out,
                            cudaStream_t stream);

// Codes and block maxima of QuantizeNf4. `bad` is set to 1 where a value is not finite, else left.
template <typename InT>
struct Nf4EncodeParams {
  int64_t count = 0;
  const InT* values = nullptr;  // [count]
  uint8_t* packed = nullptr;    // [(count + 1) / 2]
  float* absmax = nullptr;      // [ceil(count / 64)]
  int32_t* bad = nullptr;       // [1]
};
template <typename InT>
cudaError_t LaunchNf4Encode(const Nf4EncodeParams<InT>& params, cudaStream_t stream);

// Double quantization of block maxima: codes of absmax - offset, and their own maxima.
struct Nf4NestParams {
  int64_t blocks = 0;
  const float* absmax = nullptr;           // [blocks]
  const float* offset = nullptr;           // [1]
  const uint8_t* dynamic_codes = nullptr;  // [65536], of equal steps over [-1, 1]
  uint8_t* absmax_codes = nullptr;         // [blocks]
  float* nested_absmax = nullptr;          // [ceil(blocks / 256)]
};
cudaError_t LaunchNf4Nest(const Nf4NestParams& params, cudaStream_t stream);

}  // namespace pricer::cuda

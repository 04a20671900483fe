#include "model/cuda/device/reduce.cuh"
#include "model/cuda/device/values.cuh"
#include "model/cuda/launch.h"
#include "model/nf4_tables.h"
#include "model/ops/nf4_kernel.h"

namespace pricer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 8;  // elements that a thread decodes at a time: 16 bytes of bf16
constexpr int kRepeats = 4;
constexpr int64_t kPerBlock = int64_t{kThreads} * kPerThread * kRepeats;

struct DecodeTables {
  float levels[16];
};

// Fused multiply-add would round once where the format's definition rounds twice.
__device__ inline float Absmax(const Nf4View& view, const float* map, int64_t block) {
  if (view.absmax != nullptr) return view.absmax[block];
  const float residual =
      __fmul_rn(map[view.absmax_codes[block]], view.nested_absmax[block / kNf4NestedBlockSize]);
  return __fadd_rn(residual, *view.nested_offset);
}

template <typename OutT, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    nf4_decode(Nf4View view, DecodeTables tables, const float* dynamic_map, OutT* out) {
  __shared__ float levels[16];
  __shared__ float map[256];
  if (threadIdx.x < 16) levels[threadIdx.x] = tables.levels[threadIdx.x];
  if (view.absmax == nullptr) map[threadIdx.x] = dynamic_map[threadIdx.x];
  __syncthreads();
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const int64_t begin =
        blockIdx.x * kPerBlock + (int64_t{repeat} * kThreads + threadIdx.x) * kPerThread;
    if (begin >= view.count) return;
    const float absmax = Absmax(view, map, begin / kNf4BlockSize);
    if (begin + kPerThread <= view.count) {
      const Pack<uint8_t, kPerThread / 2> bytes = LoadPack<kPerThread / 2>(view.packed + begin / 2);
      Pack<OutT, kPerThread> values;
      for (int i = 0; i < kPerThread / 2; ++i) {
        values.value[2 * i] = FromFloat<OutT>(levels[bytes.value[i] >> 4] * absmax);
        values.value[2 * i + 1] = FromFloat<OutT>(levels[bytes.value[i] & 15] * absmax);
      }
      if constexpr (kAligned) {
        StorePack(out + begin, values);
      } else {
        for (int i = 0; i < kPerThread; ++i) out[begin + i] = values.value[i];
      }
    } else {
      for (int64_t i = begin; i < view.count; ++i) {
        const int byte = view.packed[i / 2];
        const int code = i % 2 == 0 ? byte >> 4 : byte & 15;
        out[i] = FromFloat<OutT>(levels[code] * absmax);
      }
    }
  }
}

struct EncodeTables {
  float thresholds[15];
};

__device__ inline uint32_t CodeOf(const EncodeTables& tables, float x) {
  uint32_t code = 0;
  for (float threshold : tables.thresholds) code += x > threshold ? 1u : 0u;
  return code;
}

// The bits of a float without its sign: integers compare like the floats, and NaN as above
// infinity.
__device__ inline uint32_t Magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// A warp encodes one block of 64: each thread two neighbours, which share a byte.
template <typename InT>
__global__ void __launch_bounds__(kThreads)
    nf4_encode(Nf4EncodeParams<InT> params, EncodeTables tables) {
  constexpr uint32_t kInfinityBits = 0x7f800000u;
  const int64_t block = blockIdx.x * int64_t{kThreads / kWarpThreads} + threadIdx.x / kWarpThreads;
  const int64_t begin = block * kNf4BlockSize;
  if (begin >= params.count) return;  // the whole warp
  const int64_t at = begin + 2 * (threadIdx.x % kWarpThreads);
  const bool has_high = at < params.count;
  const bool has_low = at + 1 < params.count;
  const float high = has_high ? ToFloat(params.values[at]) : 0.0f;
  const float low = has_low ? ToFloat(params.values[at + 1]) : 0.0f;
  uint32_t bits = Magnitude(high) > Magnitude(low) ? Magnitude(high) : Magnitude(low);
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    const uint32_t other = __shfl_xor_sync(kWholeWarp, bits, distance);
    bits = other > bits ? other : bits;
  }
  if (bits >= kInfinityBits) *params.bad = 1;
  const float absmax = __uint_as_float(bits);
  const float divisor = fmaxf(absmax, kNf4SmallestAbsmax);
  const bool whole = begin + kNf4BlockSize <= params.count;
  if (threadIdx.x % kWarpThreads == 0) params.absmax[block] = whole ? absmax : divisor;
  if (!has_high) return;
  // As the definition: the last, incomplete block is divided where others are multiplied.
  const float reciprocal = 1.0f / divisor;
  const uint32_t high_code = CodeOf(tables, whole ? high * reciprocal : high / divisor);
  const uint32_t low_code =
      has_low ? CodeOf(tables, whole ? low * reciprocal : low / divisor) : kNf4ZeroCode;
  params.packed[at / 2] = static_cast<uint8_t>(high_code << 4 | low_code);
}

// One block of 256 maxima a thread block.
__global__ void __launch_bounds__(kNf4NestedBlockSize) nf4_nest(Nf4NestParams params) {
  constexpr int kMaxima = static_cast<int>(kNf4NestedBlockSize);
  const int64_t at = blockIdx.x * kNf4NestedBlockSize + threadIdx.x;
  const bool inside = at < params.blocks;
  const float residual = inside ? params.absmax[at] - *params.offset : 0.0f;
  const float largest = BlockMax<kMaxima>(fabsf(residual));
  if (threadIdx.x == 0) params.nested_absmax[blockIdx.x] = largest;
  if (!inside) return;
  uint8_t code = 0;
  if (largest != 0.0f) {
    const float x = residual * (1.0f / largest);
    const float clamped = x >= -1.0f ? fminf(x, 1.0f) : -1.0f;
    const float step =
        __fadd_rn(__fmul_rn(__fmul_rn(__fadd_rn(clamped, 1.0f), 0.5f), 65535.0f), 0.5f);
    code = params.dynamic_codes[static_cast<int>(step)];
  }
  params.absmax_codes[at] = code;
}

}  // namespace

template <typename OutT>
cudaError_t LaunchNf4Decode(const Nf4View& view, const float* dynamic_map, OutT* out,
                            cudaStream_t stream) {
  DecodeTables tables;
  for (int i = 0; i < 16; ++i) tables.levels[i] = kNf4Levels[i];
  const bool aligned = reinterpret_cast<uintptr_t>(out) % (kPerThread * sizeof(OutT)) == 0;
  return Launch(aligned ? nf4_decode<OutT, true> : nf4_decode<OutT, false>,
                static_cast<unsigned>(Blocks(view.count, kPerBlock)), kThreads, stream, view,
                tables, dynamic_map, out);
}

template <typename InT>
cudaError_t LaunchNf4Encode(const Nf4EncodeParams<InT>& params, cudaStream_t stream) {
  EncodeTables tables;
  for (int i = 0; i < 15; ++i) tables.thresholds[i] = kNf4Thresholds[i];
  const int64_t blocks = Blocks(params.count, kNf4BlockSize);
  return Launch(nf4_encode<InT>, static_cast<unsigned>(Blocks(blocks, kThreads / kWarpThreads)),
                kThreads, stream, params, tables);
}

cudaError_t LaunchNf4Nest(const Nf4NestParams& params, cudaStream_t stream) {
  return Launch(nf4_nest, static_cast<unsigned>(Blocks(params.blocks, kNf4NestedBlockSize)),
                static_cast<unsigned>(kNf4NestedBlockSize), stream, params);
}

template cudaError_t LaunchNf4Decode(const Nf4View&, const float*, float*, cudaStream_t);
template cudaError_t LaunchNf4Decode(const Nf4View&, const float*, __nv_bfloat16*, cudaStream_t);
template cudaError_t LaunchNf4Encode(const Nf4EncodeParams<float>&, cudaStream_t);
template cudaError_t LaunchNf4Encode(const Nf4EncodeParams<__nv_bfloat16>&, cudaStream_t);
template cudaError_t LaunchNf4Encode(const Nf4EncodeParams<__half>&, cudaStream_t);

}  // namespace pricer::cuda

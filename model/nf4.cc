#include "model/nf4.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000;
constexpr int64_t kMaxElements = std::numeric_limits<int32_t>::max();
constexpr int64_t kBlockBytes = kNf4BlockSize / 2;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Largest |value|, as the bits of a float: integers compare like the floats, and NaN as above
// infinity.
uint32_t AbsmaxBits(const float* values, int64_t count) {
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto magnitude = std::bit_cast<int32_t>(values[i]) & 0x7fffffff;
    largest = std::max(largest, magnitude);
  }
  return static_cast<uint32_t>(largest);
}

// The number of thresholds below x. Branchless, so that loops over it vectorize.
template <size_t... kIndex>
inline int32_t CodeOf(float x, std::index_sequence<kIndex...>) {
  return (static_cast<int32_t>(x > kNf4Thresholds[kIndex]) + ...);
}
inline int32_t CodeOf(float x) {
  return CodeOf(x, std::make_index_sequence<kNf4Thresholds.size()>());
}

void EncodeBlock(const float* values, float reciprocal, uint8_t* packed) {
  std::array<uint8_t, kNf4BlockSize> codes;
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = static_cast<uint8_t>(CodeOf(values[i] * reciprocal));
  }
  for (int64_t i = 0; i < kBlockBytes; ++i) {
    packed[i] = static_cast<uint8_t>(codes[2 * i] << 4 | codes[2 * i + 1]);
  }
}

// The last, incomplete block: bitsandbytes divides here where it multiplies elsewhere.
void EncodeTail(const float* values, int64_t count, float absmax, uint8_t* packed) {
  for (int64_t i = 0; i < count; i += 2) {
    const int32_t high = CodeOf(values[i] / absmax);
    const int32_t low = i + 1 < count ? CodeOf(values[i + 1] / absmax) : kNf4ZeroCode;
    packed[i / 2] = static_cast<uint8_t>(high << 4 | low);
  }
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::Status NotFinite(absl::Span<const float> values, int64_t from,
                       const std::vector<int64_t>& shape) {
  while (std::isfinite(values[from])) ++from;
  return absl::InvalidArgumentError(absl::StrCat("weights of shape ", ShapeText(shape), " hold ",
                                                 values[from], " at element ", from,
                                                 "; NF4 needs finite values"));
}

// The fp32 sum of torch 2.11's sum() on one thread (aten/src/ATen/native/cpu/SumKernel.cpp), bit
// for bit: `lanes` interleaved sums of four rows each, every one a cascade of four levels. The
// order is the same with AVX2 and AVX512.
class CascadeSum {
 public:
  static float Of(absl::Span<const float> values) {
    constexpr size_t kLanes = 8;
    return values.size() >= kLanes ? Sum<kLanes>(values) : Sum<1>(values);
  }

 private:
  static constexpr int kLevels = 4;
  static constexpr int kRows = 4;

  template <size_t kWidth>
  static void Add(std::array<float, kWidth>& to, const float* values) {
    for (size_t k = 0; k < kWidth; ++k) to[k] += values[k];
  }

  // Sums `count` groups of kWidth values; level j + 1 takes level j's sum every 2^power of its own
  // additions.
  template <size_t kWidth>
  static std::array<float, kWidth> Cascade(const float* values, int64_t count) {
    const int log2 = count <= 2 ? 1 : std::bit_width(static_cast<uint64_t>(count - 1));
    const int power = std::max(4, log2 / kLevels);
    const int64_t step = int64_t{1} << power;
    std::array<std::array<float, kWidth>, kLevels> level{};
    int64_t i = 0;
    while (i + step <= count) {
      for (const int64_t end = i + step; i < end; ++i) Add(level[0], values + i * kWidth);
      for (int j = 1; j < kLevels; ++j) {
        Add(level[j], level[j - 1].data());
        level[j - 1].fill(0.0f);
        if ((i & ((step - 1) << (j * power))) != 0) break;
      }
    }
    for (; i < count; ++i) Add(level[0], values + i * kWidth);
    for (int j = 1; j < kLevels; ++j) Add(level[0], level[j].data());
    return level[0];
  }

  template <size_t kLanes>
  static float Sum(absl::Span<const float> values) {
    constexpr size_t kGroup = kRows * kLanes;
    const size_t groups = values.size() / kGroup;
    const size_t vectors = values.size() / kLanes;
    const auto rows = Cascade<kGroup>(values.data(), static_cast<int64_t>(groups));
    std::array<float, kLanes> lanes;
    std::copy_n(rows.begin(), kLanes, lanes.begin());
    for (size_t v = groups * kRows; v < vectors; ++v) Add(lanes, values.data() + v * kLanes);
    for (size_t k = 1; k < kRows; ++k) Add(lanes, rows.data() + k * kLanes);
    float sum = 0.0f;
    for (size_t i = vectors * kLanes; i < values.size(); ++i) sum += values[i];
    for (const float lane : lanes) sum += lane;
    return sum;
  }
};

// REQUIRES: x in [-1, 1] but for rounding. NaN (from 0 * inf, where 1 / absmax overflows) takes
// code 0, as there.
uint8_t DynamicCode(float x) {
  static const std::vector<uint8_t> codes = MakeNf4DynamicCodes();
  const float clamped = x >= -1.0f ? std::min(x, 1.0f) : -1.0f;
  // A fused multiply-add there; no x makes a difference.
  const float step = (clamped + 1.0f) * 0.5f * 65535.0f + 0.5f;
  return codes[static_cast<size_t>(step)];
}

void EncodeResiduals(absl::Span<const float> absmax, Nf4Tensor& tensor) {
  const auto blocks = static_cast<int64_t>(absmax.size());
  tensor.absmax_codes.assign(blocks, 0);
  tensor.nested_absmax.assign(DivideUp(blocks, kNf4NestedBlockSize), 0.0f);
  for (int64_t begin = 0; begin < blocks; begin += kNf4NestedBlockSize) {
    const int64_t end = std::min(begin + kNf4NestedBlockSize, blocks);
    float largest = 0.0f;
    for (int64_t i = begin; i < end; ++i) {
      largest = std::max(largest, std::fabs(absmax[i] - tensor.nested_offset));
    }
    tensor.nested_absmax[begin / kNf4NestedBlockSize] = largest;
    if (largest == 0.0f) continue;
    const float reciprocal = 1.0f / largest;
    for (int64_t i = begin; i < end; ++i) {
      tensor.absmax_codes[i] = DynamicCode((absmax[i] - tensor.nested_offset) * reciprocal);
    }
  }
}

absl::Status QuantizeAbsmax(Nf4Tensor& tensor) {
  const std::vector<float> absmax = std::exchange(tensor.absmax, {});
  tensor.nested_offset = CascadeSum::Of(absmax) / static_cast<float>(absmax.size());
  if (!std::isfinite(tensor.nested_offset)) {
    return absl::InvalidArgumentError(
        absl::StrCat("weights of shape ", ShapeText(tensor.shape),
                     " are too large for double quantization: the sum of their ", absmax.size(),
                     " block maxima overflows fp32"));
  }
  EncodeResiduals(absmax, tensor);
  return absl::OkStatus();
}

absl::Status CheckSource(const std::vector<int64_t>& shape, int64_t count, Dtype source_dtype) {
  if (count == 0 || count > kMaxElements) {
    return absl::InvalidArgumentError(absl::StrCat("weights of shape ", ShapeText(shape), " have ",
                                                   count, " elements; NF4 takes 1 to ",
                                                   kMaxElements));
  }
  if (source_dtype != Dtype::kF32 && source_dtype != Dtype::kF16 && source_dtype != Dtype::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("weights of shape ", ShapeText(shape), " are ",
                                                   DtypeName(source_dtype),
                                                   "; NF4 takes F32, F16 or BF16"));
  }
  return absl::OkStatus();
}

absl::Status EncodeBlocks(absl::Span<const float> values, Nf4Tensor& tensor) {
  const auto count = static_cast<int64_t>(values.size());
  for (int64_t begin = 0, block = 0; begin < count; begin += kNf4BlockSize, ++block) {
    const float* const start = values.data() + begin;
    const int64_t size = std::min(kNf4BlockSize, count - begin);
    const uint32_t bits = AbsmaxBits(start, size);
    if (bits >= kInfinityBits) return NotFinite(values, begin, tensor.shape);
    const auto absmax = std::bit_cast<float>(bits);
    const float divisor = std::max(absmax, kNf4SmallestAbsmax);
    uint8_t* const packed = tensor.packed.data() + begin / 2;
    if (size == kNf4BlockSize) {
      tensor.absmax[block] = absmax;
      EncodeBlock(start, 1.0f / divisor, packed);
    } else {
      tensor.absmax[block] = divisor;
      EncodeTail(start, size, divisor, packed);
    }
  }
  return absl::OkStatus();
}

using LevelPair = std::array<float, 2>;

// The two levels of each byte.
std::array<LevelPair, 256> MakeLevelPairs() {
  std::array<LevelPair, 256> pairs;
  for (size_t byte = 0; byte < pairs.size(); ++byte) {
    pairs[byte] = {kNf4Levels[byte >> 4], kNf4Levels[byte & 15]};
  }
  return pairs;
}

}  // namespace

int64_t Nf4Tensor::element_count() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

int64_t Nf4Tensor::bytes() const {
  return static_cast<int64_t>(packed.size() + absmax_codes.size() +
                              sizeof(float) * (nested_absmax.size() + absmax.size()));
}

absl::StatusOr<Nf4Tensor> QuantizeNf4(absl::Span<const float> values, std::vector<int64_t> shape,
                                      Dtype source_dtype, bool double_quantization) {
  Nf4Tensor tensor;
  tensor.shape = std::move(shape);
  tensor.source_dtype = source_dtype;
  tensor.nested = double_quantization;
  const int64_t count = tensor.element_count();
  PRICER_CHECK(count == static_cast<int64_t>(values.size()));
  RETURN_IF_ERROR(CheckSource(tensor.shape, count, source_dtype));
  tensor.packed.resize(DivideUp(count, 2));
  tensor.absmax.resize(DivideUp(count, kNf4BlockSize));
  RETURN_IF_ERROR(EncodeBlocks(values, tensor));
  if (double_quantization) RETURN_IF_ERROR(QuantizeAbsmax(tensor));
  return tensor;
}

std::vector<float> DecodeAbsmax(const Nf4Tensor& tensor) {
  if (!tensor.nested) return tensor.absmax;
  std::vector<float> absmax(tensor.absmax_codes.size());
  for (size_t i = 0; i < absmax.size(); ++i) {
    const float residual =
        kDynamicMap[tensor.absmax_codes[i]] * tensor.nested_absmax[i / kNf4NestedBlockSize];
    absmax[i] = residual + tensor.nested_offset;
  }
  return absmax;
}

void DequantizeNf4(const Nf4Tensor& tensor, absl::Span<float> out) {
  static const std::array<LevelPair, 256> pairs = MakeLevelPairs();
  const auto count = static_cast<int64_t>(out.size());
  PRICER_CHECK(count == tensor.element_count());
  const std::vector<float> absmax = DecodeAbsmax(tensor);
  for (int64_t begin = 0; begin < count; begin += kNf4BlockSize) {
    const float scale = absmax[begin / kNf4BlockSize];
    const uint8_t* const packed = tensor.packed.data() + begin / 2;
    float* const to = out.data() + begin;
    const int64_t whole_bytes = std::min(kNf4BlockSize, count - begin) / 2;
    for (int64_t i = 0; i < whole_bytes; ++i) {
      const LevelPair& pair = pairs[packed[i]];
      to[2 * i] = pair[0] * scale;
      to[2 * i + 1] = pair[1] * scale;
    }
  }
  if (count % 2 != 0) out.back() = pairs[tensor.packed.back()][0] * absmax.back();
}

}  // namespace pricer

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/nf4_tables.h"
#include "model/safetensors.h"

// NF4 with double quantization, byte-compatible with bitsandbytes 0.50 on CPU. QLoRA, arXiv
// 2305.14314, sections 2 and 3. Values are cut, row-major, into blocks of 64 that share an absmax;
// absmax minus its mean is quantized in turn with an 8-bit map in blocks of 256 (double
// quantization). No torch.

namespace pricer {

struct Nf4Tensor {
  std::vector<int64_t> shape;
  Dtype source_dtype = Dtype::kF32;   // what the weights were when quantized
  std::vector<uint8_t> packed;        // [(n + 1) / 2], element 2i in the high nibble
  bool nested = true;                 // double quantization
  std::vector<uint8_t> absmax_codes;  // [ceil(n / 64)], nested alone
  std::vector<float> nested_absmax;   // [ceil(blocks / 256)], nested alone
  float nested_offset = 0.0f;         // nested alone
  std::vector<float> absmax;          // [ceil(n / 64)], where not nested

  int64_t element_count() const;
  int64_t bytes() const;
};

// REQUIRES: values.size() = product of shape. All-zero blocks get code 7 (zero). `source_dtype` is
// recorded; the values are those of that dtype, widened. InvalidArgument: non-finite values, no or
// over 2^31 - 1 elements, a source_dtype that is not F32, F16 or BF16, block maxima whose fp32 sum
// overflows. Single-threaded; tensors may be quantized in parallel. The mean of the block maxima is
// summed in torch's order for one thread; torch's own depends on its threads from 32,768 blocks (2
// Mi elements) on, so there the offset may differ from another machine's in the last bit.
absl::StatusOr<Nf4Tensor> QuantizeNf4(absl::Span<const float> values, std::vector<int64_t> shape,
                                      Dtype source_dtype, bool double_quantization = true);

// code * absmax in fp32. REQUIRES: out.size() = element_count().
void DequantizeNf4(const Nf4Tensor& tensor, absl::Span<float> out);

// absmax of every block with double quantization undone, fp32.
std::vector<float> DecodeAbsmax(const Nf4Tensor& tensor);

// bitsandbytes' serialized form of `<module>.weight`: suffix -> tensor. Suffixes "" (the packed
// weight), ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map" and
// ".quant_state.bitsandbytes__nf4". `storage` owns the bytes.
struct Nf4Serialized {
  struct Part {
    std::string suffix;
    TensorView view;
  };
  std::vector<Part> parts;
  std::vector<std::string> storage;

  // Moves keep the views valid, a copy would not.
  Nf4Serialized() = default;
  Nf4Serialized(Nf4Serialized&&) = default;
  Nf4Serialized& operator=(Nf4Serialized&&) = default;
};
Nf4Serialized SerializeNf4(const Nf4Tensor& tensor);

// A weight that has this part is stored in NF4.
inline constexpr absl::string_view kNf4StateSuffix = ".quant_state.bitsandbytes__nf4";

// The parts as found in a file, by suffix.
struct Nf4Parts {
  const TensorView* weight = nullptr;
  const TensorView* absmax = nullptr;
  const TensorView* quant_map = nullptr;
  const TensorView* nested_absmax = nullptr;     // null where not nested
  const TensorView* nested_quant_map = nullptr;  // null where not nested
  const TensorView* quant_state = nullptr;       // JSON bytes
};
// `find` gives null for a suffix that the file does not have.
Nf4Parts FindNf4Parts(absl::FunctionRef<const TensorView*(absl::string_view suffix)> find);

// The weight may be stored under another dtype (bnb_4bit_quant_storage), a nested map may differ
// from kDynamicMap in the last bits. InvalidArgument names part, what was expected and what came: a
// map that is not NF4's, another block size, fp4, sizes that disagree with the shape, absmax that
// is not finite, unknown JSON fields.
absl::StatusOr<Nf4Tensor> ParseNf4(const Nf4Parts& parts);

// Finds the same faults without reading weight and absmax, whose values stay empty.
absl::StatusOr<Nf4Tensor> CheckNf4(const Nf4Parts& parts);

}  // namespace pricer

#include "model/import_gguf.h"

#include <bit>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/new_directory.h"
#include "base/status_macros.h"
#include "model/gguf.h"
#include "model/gguf_config.h"
#include "model/gguf_tokenizer.h"
#include "model/json_fields.h"
#include "model/model_config.h"
#include "model/tokenizer.h"

namespace pricer {
namespace {

// llama.cpp's name of a projection inside a layer.
absl::string_view GgufName(Projection projection) {
  switch (projection) {
    case Projection::kQ:
      return "attn_q";
    case Projection::kK:
      return "attn_k";
    case Projection::kV:
      return "attn_v";
    case Projection::kO:
      return "attn_output";
    case Projection::kGate:
      return "ffn_gate";
    case Projection::kUp:
      return "ffn_up";
    case Projection::kDown:
      return "ffn_down";
  }
  return "";
}

// One tensor to convert.
struct Conversion {
  std::string from;
  std::string to;
  std::vector<int64_t> shape;
  // Heads whose rows are stored interleaved; 0 for none.
  int64_t interleaved_heads = 0;
};

void AddLayer(const ModelConfig& config, int64_t layer, std::vector<Conversion>* conversions) {
  const std::string from = absl::StrCat("blk.", layer, ".");
  const std::string to = absl::StrCat("model.layers.", layer, ".");
  conversions->push_back(
      {from + "attn_norm.weight", to + "input_layernorm.weight", {config.hidden_size}});
  conversions->push_back(
      {from + "ffn_norm.weight", to + "post_attention_layernorm.weight", {config.hidden_size}});
  for (int i = 0; i < kProjectionCount; ++i) {
    const Projection projection = static_cast<Projection>(i);
    const LinearShape shape = ProjectionShape(config, projection);
    const std::string source = absl::StrCat(from, GgufName(projection));
    const std::string target = ModulePath(layer, projection);
    const int64_t heads = projection == Projection::kQ   ? config.head_count
                          : projection == Projection::kK ? config.kv_head_count
                                                         : 0;
    conversions->push_back({source + ".weight", target + ".weight", {shape.out, shape.in}, heads});
    const bool attention = i <= static_cast<int>(Projection::kO);
    if (attention ? config.attention_bias : config.mlp_bias) {
      conversions->push_back({source + ".bias", target + ".bias", {shape.out}, heads});
    }
  }
}

std::vector<Conversion> ConversionsFor(const ModelConfig& config) {
  const int64_t vocabulary = config.vocabulary_size;
  const int64_t hidden = config.hidden_size;
  std::vector<Conversion> conversions = {
      {"token_embd.weight", "model.embed_tokens.weight", {vocabulary, hidden}},
      {"output_norm.weight", "model.norm.weight", {hidden}}};
  if (!config.tied_embeddings) {
    conversions.push_back({"output.weight", "lm_head.weight", {vocabulary, hidden}});
  }
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    AddLayer(config, layer, &conversions);
  }
  return conversions;
}

// The tensors of the file are exactly those of the architecture, each with its shape.
absl::Status CheckTensors(const GgufFile& file, const std::vector<Conversion>& conversions) {
  // Read with the configuration.
  std::set<std::string> known = {"rope_freqs.weight"};
  const auto fault = [&](const std::string& tensor, absl::string_view problem) {
    return absl::DataLossError(
        absl::StrCat(file.path(), ": tensor ", Quoted(tensor), ": ", problem));
  };
  for (const Conversion& conversion : conversions) {
    const auto found = file.tensors().find(conversion.from);
    const std::string expected = absl::StrCat("[", absl::StrJoin(conversion.shape, ", "), "]");
    if (found == file.tensors().end()) {
      return fault(conversion.from, absl::StrCat("is missing; expected ", expected));
    }
    if (found->second.shape != conversion.shape) {
      return fault(conversion.from, absl::StrCat("expected shape ", expected, ", got [",
                                                 absl::StrJoin(found->second.shape, ", "), "]"));
    }
    known.insert(conversion.from);
  }
  for (const auto& [name, tensor] : file.tensors()) {
    if (known.count(name) > 0) continue;
    return absl::UnimplementedError(absl::StrCat(file.path(), ": tensor ", Quoted(name),
                                                 " is not one of the Llama architecture's"));
  }
  return absl::OkStatus();
}

// Rows of a matrix; a vector is one value a row.
GgufTensor RowOf(const GgufTensor& tensor, int64_t row) {
  const int64_t rows = tensor.shape.front();
  const int64_t bytes = static_cast<int64_t>(tensor.data.size()) / rows;
  return {tensor.type, {tensor.element_count() / rows}, tensor.data.substr(row * bytes, bytes)};
}

// Undoes llama.cpp's order of q and k rows (convert_hf_to_gguf.py, LlamaModel.permute): the pair
// (i, i + D/2) of a head, which rotates together, is stored as rows (2i, 2i + 1).
int64_t SourceRow(int64_t row, int64_t rows, int64_t heads) {
  const int64_t head_dim = rows / heads;
  const int64_t head = row / head_dim;
  const int64_t inside = row % head_dim;
  const int64_t half = head_dim / 2;
  return head * head_dim + 2 * (inside % half) + inside / half;
}

// To nearest even; NaN stays NaN.
uint16_t RoundToBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

std::string BytesOf(const std::vector<float>& values, Dtype dtype) {
  std::string bytes(values.size() * DtypeBytes(dtype), '\0');
  if (dtype == Dtype::kF32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t rounded = RoundToBfloat16(values[i]);
    std::memcpy(bytes.data() + 2 * i, &rounded, 2);
  }
  return bytes;
}

absl::Status Convert(const GgufTensor& tensor, int64_t interleaved_heads, Dtype dtype,
                     const StreamedTensor::Append& append) {
  if (tensor.shape.size() == 1 && interleaved_heads == 0) {
    std::vector<float> values(tensor.element_count());
    DequantizeGguf(tensor, absl::MakeSpan(values));
    return append(BytesOf(values, dtype));
  }
  const int64_t rows = tensor.shape.front();
  std::vector<float> values(tensor.element_count() / rows);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t source = interleaved_heads == 0 ? row : SourceRow(row, rows, interleaved_heads);
    DequantizeGguf(RowOf(tensor, source), absl::MakeSpan(values));
    RETURN_IF_ERROR(append(BytesOf(values, dtype)));
  }
  return absl::OkStatus();
}

absl::Status WriteWeights(const GgufFile& file, const std::vector<Conversion>& conversions,
                          const std::string& path, Dtype dtype,
                          const std::function<bool()>& cancelled) {
  std::vector<StreamedTensor> tensors;
  for (const Conversion& conversion : conversions) {
    const GgufTensor& source = file.tensors().find(conversion.from)->second;
    const int64_t heads = conversion.interleaved_heads;
    tensors.push_back({conversion.to, dtype, conversion.shape,
                       [&source, heads, dtype, &cancelled](const StreamedTensor::Append& append) {
                         return Convert(source, heads, dtype, [&](absl::string_view row) {
                           return cancelled && cancelled() ? absl::CancelledError("interrupted")
                                                           : append(row);
                         });
                       }});
  }
  return StreamSafetensors(path, std::move(tensors), {{"format", "pt"}});
}

absl::Status Import(const std::string& gguf_path, const std::string& directory, Dtype dtype,
                    const std::function<bool()>& cancelled) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(gguf_path));
  RETURN_IF_ERROR(CheckGgufIsLlama(*file));
  ASSIGN_OR_RETURN(const GgufTokenizer tokenizer, ReadGgufTokenizer(*file));
  ASSIGN_OR_RETURN(ModelConfig config, ReadGgufConfig(*file, tokenizer));
  config.dtype = dtype == Dtype::kF32 ? "float32" : "bfloat16";
  const std::vector<Conversion> conversions = ConversionsFor(config);
  RETURN_IF_ERROR(CheckTensors(*file, conversions));

  ASSIGN_OR_RETURN(NewDirectory made, NewDirectory::Create(directory));
  RETURN_IF_ERROR(WriteFile(made.File("config.json"), HuggingFaceConfigJson(config)));
  RETURN_IF_ERROR(WriteFile(made.File("tokenizer.json"), tokenizer.tokenizer_json));
  RETURN_IF_ERROR(WriteFile(made.File("tokenizer_config.json"), tokenizer.tokenizer_config_json));
  // Merges that do not fit the vocabulary are found here.
  if (const auto read = Tokenizer::FromDirectory(made.path()); !read.ok()) {
    return absl::DataLossError(absl::StrCat(
        gguf_path, ": the tokenizer it holds cannot be used: ", read.status().message()));
  }
  RETURN_IF_ERROR(
      WriteWeights(*file, conversions, made.File("model.safetensors"), dtype, cancelled));
  return made.Commit();
}

}  // namespace

absl::Status ImportGguf(const std::string& gguf_path, const std::string& directory, Dtype dtype,
                        const std::function<bool()>& cancelled) {
  if (dtype != Dtype::kF32 && dtype != Dtype::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: expected F32 or BF16, got ", DtypeName(dtype)));
  }
  return Import(gguf_path, directory, dtype, cancelled);
}

}  // namespace pricer

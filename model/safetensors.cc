#include "model/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "model/json_fields.h"
#include "model/safetensors_header.h"

namespace pricer {
namespace {

constexpr int64_t kLengthBytes = 8;
// The reference library's own limit.
constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kHeaderAlignment = 8;

struct DtypeFacts {
  absl::string_view name;
  int64_t bytes;
  // Position in the reference library's list, by which its writer orders tensors.
  int order;
};

DtypeFacts FactsOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBool:
      return {"BOOL", 1, 0};
    case Dtype::kU8:
      return {"U8", 1, 1};
    case Dtype::kI8:
      return {"I8", 1, 2};
    case Dtype::kI16:
      return {"I16", 2, 3};
    case Dtype::kF16:
      return {"F16", 2, 4};
    case Dtype::kBF16:
      return {"BF16", 2, 5};
    case Dtype::kI32:
      return {"I32", 4, 6};
    case Dtype::kF32:
      return {"F32", 4, 7};
    case Dtype::kF64:
      return {"F64", 8, 8};
    case Dtype::kI64:
      return {"I64", 8, 9};
  }
  PRICER_CHECK(false);
}

uint64_t LoadLength(absl::string_view bytes) {
  uint64_t length = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(bytes[i]);
  return length;
}

std::string LengthBytes(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < kLengthBytes; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  return bytes;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Bytes of a tensor, or nothing where they do not fit into 63 bits.
std::optional<int64_t> ByteSize(Dtype dtype, const std::vector<int64_t>& shape) {
  int64_t bytes = DtypeBytes(dtype);
  for (const int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return bytes;
}

absl::Status CorruptTensor(absl::string_view path, absl::string_view name,
                           absl::string_view problem) {
  return absl::DataLossError(absl::StrCat(path, ": tensor ", Quoted(name), ": ", problem));
}

// REQUIRES: the entries are sorted by where they begin. `end` is where the tensor before ends.
absl::Status CheckPlace(const SafetensorsEntry& entry, int64_t end, int64_t data_bytes,
                        const std::string& path) {
  const std::string range = absl::StrCat("bytes ", entry.begin, " to ", entry.end);
  if (entry.begin > entry.end) {
    return CorruptTensor(path, entry.name, absl::StrCat("data ends before it begins: ", range));
  }
  if (entry.end > data_bytes) {
    return CorruptTensor(path, entry.name,
                         absl::StrCat("short file: data is at ", range, " of ", data_bytes));
  }
  if (entry.begin < end) {
    return CorruptTensor(
        path, entry.name,
        absl::StrCat("overlap: the tensor before it ends at ", end, ", data is at ", range));
  }
  if (entry.begin > end) {
    return CorruptTensor(
        path, entry.name,
        absl::StrCat("gap: the tensor before it ends at ", end, ", data is at ", range));
  }
  const std::optional<int64_t> bytes = ByteSize(entry.dtype, entry.shape);
  if (!bytes) {
    return CorruptTensor(path, entry.name,
                         absl::StrCat("shape ", ShapeText(entry.shape), " overflows"));
  }
  if (*bytes != entry.end - entry.begin) {
    return CorruptTensor(
        path, entry.name,
        absl::StrCat("expected ", *bytes, " bytes for ", DtypeName(entry.dtype), " ",
                     ShapeText(entry.shape), ", got ", entry.end - entry.begin));
  }
  return absl::OkStatus();
}

absl::Status CheckToWrite(const std::vector<StreamedTensor>& tensors,
                          const std::map<std::string, std::string>& metadata) {
  const std::string* previous = nullptr;
  std::vector<const std::string*> names;
  for (const StreamedTensor& tensor : tensors) names.push_back(&tensor.name);
  std::sort(names.begin(), names.end(), [](auto* a, auto* b) { return *a < *b; });
  for (const std::string* name : names) {
    const bool doubled = previous != nullptr && *previous == *name;
    if (doubled || *name == "__metadata__" || !IsValidUtf8(*name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quoted(*name), ": expected a name in UTF-8 that is unique and not reserved"));
    }
    previous = name;
  }
  for (const StreamedTensor& tensor : tensors) {
    if (ByteSize(tensor.dtype, tensor.shape)) continue;
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(tensor.name), ": shape ",
                                                   ShapeText(tensor.shape), " overflows"));
  }
  for (const auto& [key, value] : metadata) {
    if (IsValidUtf8(key) && IsValidUtf8(value)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("metadata ", Quoted(key), ": expected UTF-8, got ", Quoted(value)));
  }
  return absl::OkStatus();
}

// REQUIRES: CheckToWrite found no fault.
std::string HeaderOf(const std::vector<StreamedTensor>& tensors,
                     const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    absl::StrAppend(&text, "\"__metadata__\":", nlohmann::json(metadata).dump());
  }
  int64_t begin = 0;
  for (const StreamedTensor& tensor : tensors) {
    const int64_t end = begin + *ByteSize(tensor.dtype, tensor.shape);
    absl::StrAppend(&text, text.size() > 1 ? "," : "", nlohmann::json(tensor.name).dump(),
                    ":{\"dtype\":\"", DtypeName(tensor.dtype), "\",\"shape\":[",
                    absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", begin, ",", end,
                    "]}");
    begin = end;
  }
  text += '}';
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  return text;
}

absl::Status AppendTensor(const StreamedTensor& tensor, AtomicFileWriter& writer) {
  int64_t written = 0;
  RETURN_IF_ERROR(tensor.write([&](absl::string_view bytes) {
    written += static_cast<int64_t>(bytes.size());
    return writer.Append(bytes);
  }));
  const int64_t expected = *ByteSize(tensor.dtype, tensor.shape);
  if (written == expected) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("tensor ", Quoted(tensor.name), ": expected ", expected,
                                          " bytes to write, got ", written));
}

}  // namespace

int64_t DtypeBytes(Dtype dtype) { return FactsOf(dtype).bytes; }

absl::string_view DtypeName(Dtype dtype) { return FactsOf(dtype).name; }

int64_t TensorView::element_count() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

std::string TensorView::ToString() const {
  return absl::StrCat(DtypeName(dtype), " ", ShapeText(shape));
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(path));
  file->mapped_.emplace(std::move(mapped));
  RETURN_IF_ERROR(file->ParseHeader(file->mapped_->bytes()));
  return file;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Parse(std::string bytes,
                                                                        const std::string& path) {
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(path));
  file->bytes_ = std::move(bytes);
  RETURN_IF_ERROR(file->ParseHeader(file->bytes_));
  return file;
}

absl::Status SafetensorsFile::ParseHeader(absl::string_view file) {
  const int64_t file_bytes = static_cast<int64_t>(file.size());
  if (file_bytes < kLengthBytes) {
    return absl::DataLossError(absl::StrCat(path_, ": short file: expected a header length of ",
                                            kLengthBytes, " bytes, got ", file_bytes));
  }
  const uint64_t length = LoadLength(file);
  if (length > static_cast<uint64_t>(kMaxHeaderBytes)) {
    return absl::DataLossError(absl::StrCat(path_, ": header length: expected at most ",
                                            kMaxHeaderBytes, ", got ", length));
  }
  const int64_t header_bytes = static_cast<int64_t>(length);
  const int64_t data_bytes = file_bytes - kLengthBytes - header_bytes;
  if (data_bytes < 0) {
    return absl::DataLossError(absl::StrCat(path_, ": short file: expected a header of ", length,
                                            " bytes, got ", file_bytes - kLengthBytes));
  }
  const absl::string_view json = file.substr(kLengthBytes, header_bytes);
  if (!absl::StartsWith(json, "{")) {
    return absl::DataLossError(absl::StrCat(path_, ": expected a header that begins with '{', got ",
                                            Quoted(json.substr(0, 16))));
  }
  ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensorsHeader(json, path_));
  std::sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  const absl::string_view data = file.substr(kLengthBytes + header_bytes);
  int64_t end = 0;
  for (SafetensorsEntry& entry : header.entries) {
    RETURN_IF_ERROR(CheckPlace(entry, end, data_bytes, path_));
    end = entry.end;
    const absl::string_view bytes = data.substr(entry.begin, entry.end - entry.begin);
    tensors_.emplace(std::move(entry.name), TensorView{entry.dtype, std::move(entry.shape), bytes});
  }
  if (end != data_bytes) {
    const std::string after = header.entries.empty() ? "the header" : "the last tensor";
    return absl::DataLossError(absl::StrCat(path_, ": ", data_bytes - end, " bytes after ", after));
  }
  metadata_ = std::move(header.metadata);
  return absl::OkStatus();
}

absl::Status WriteSafetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<StreamedTensor> streamed;
  for (const auto& [name, view] : tensors) {
    const std::optional<int64_t> bytes = ByteSize(view.dtype, view.shape);
    if (!bytes || *bytes != static_cast<int64_t>(view.data.size())) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Quoted(name), ": ",
                                                     view.ToString(), " does not fit its ",
                                                     view.data.size(), " bytes"));
    }
    const absl::string_view data = view.data;
    streamed.push_back({name, view.dtype, view.shape,
                        [data](const StreamedTensor::Append& append) { return append(data); }});
  }
  return StreamSafetensors(path, std::move(streamed), metadata);
}

absl::Status StreamSafetensors(const std::string& path, std::vector<StreamedTensor> tensors,
                               const std::map<std::string, std::string>& metadata) {
  if (const absl::Status status = CheckToWrite(tensors, metadata); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  }
  std::sort(tensors.begin(), tensors.end(), [](const StreamedTensor& a, const StreamedTensor& b) {
    const int order_a = FactsOf(a.dtype).order;
    const int order_b = FactsOf(b.dtype).order;
    return std::tie(order_b, a.name) < std::tie(order_a, b.name);
  });
  const std::string header = HeaderOf(tensors, metadata);
  ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::Create(path));
  RETURN_IF_ERROR(writer.Append(LengthBytes(header.size())));
  RETURN_IF_ERROR(writer.Append(header));
  for (const StreamedTensor& tensor : tensors) RETURN_IF_ERROR(AppendTensor(tensor, writer));
  return writer.Commit();
}

}  // namespace pricer

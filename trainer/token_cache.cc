#include "trainer/token_cache.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/build_info.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/safetensors.h"

namespace pricer {
namespace {

// Moved whenever the meaning of a file changes.
constexpr absl::string_view kFormat = "1";

template <typename T>
TensorView ViewOf(Dtype dtype, const std::vector<T>& values) {
  TensorView view;
  view.dtype = dtype;
  view.shape = {static_cast<int64_t>(values.size())};
  view.data = {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
  return view;
}

TensorView BytesView(const std::string& bytes) {
  TensorView view;
  view.dtype = Dtype::kU8;
  view.shape = {static_cast<int64_t>(bytes.size())};
  view.data = bytes;
  return view;
}

// A data set as flat arrays.
struct Columns {
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets = {0};  // [examples + 1]
  std::vector<double> prices;
  std::vector<int64_t> completion_tokens;
  std::vector<int64_t> file_rows;
  std::string item_ids;
  std::vector<int64_t> item_id_offsets = {0};
  std::string rejects;
};

Columns ColumnsOf(const Dataset& dataset) {
  Columns columns;
  for (const Example& example : dataset.examples) {
    columns.ids.insert(columns.ids.end(), example.ids.begin(), example.ids.end());
    columns.offsets.push_back(static_cast<int64_t>(columns.ids.size()));
    columns.prices.push_back(example.price);
    columns.completion_tokens.push_back(example.completion_tokens);
  }
  columns.file_rows = dataset.file_rows;
  for (const std::string& id : dataset.item_ids) {
    columns.item_ids += id;
    columns.item_id_offsets.push_back(static_cast<int64_t>(columns.item_ids.size()));
  }
  return columns;
}

// Reads what is needed of a file; the first thing that is missing or wrong is kept as the error.
class Reader {
 public:
  explicit Reader(const SafetensorsFile& file) : file_(file) {}

  template <typename T>
  void Tensor(absl::string_view name, Dtype dtype, std::vector<T>* values) {
    const TensorView* const view = Find(name, dtype);
    if (view == nullptr) return;
    values->resize(view->element_count());
    if (!values->empty()) std::memcpy(values->data(), view->data.data(), view->data.size());
  }
  void Bytes(absl::string_view name, std::string* bytes) {
    if (const TensorView* const view = Find(name, Dtype::kU8)) *bytes = std::string(view->data);
  }
  void Number(absl::string_view name, int64_t* number) {
    const auto found = file_.metadata().find(name);
    if (found == file_.metadata().end() || !absl::SimpleAtoi(found->second, number)) {
      Fail(absl::StrCat("metadata '", name, "': expected a whole number"));
    }
  }
  // `offsets` cut `size` values into `count` parts.
  void CheckOffsets(absl::string_view name, const std::vector<int64_t>& offsets, size_t count,
                    size_t size) {
    const bool cut = offsets.size() == count + 1 && offsets.front() == 0 &&
                     offsets.back() == static_cast<int64_t>(size) &&
                     std::is_sorted(offsets.begin(), offsets.end());
    if (!cut) Fail(absl::StrCat("tensor '", name, "': expected ", count + 1, " rising offsets"));
  }
  void Fail(absl::string_view problem) {
    if (status_.ok()) status_ = absl::DataLossError(absl::StrCat(file_.path(), ": ", problem));
  }
  const absl::Status& status() const { return status_; }

 private:
  const TensorView* Find(absl::string_view name, Dtype dtype) {
    const auto found = file_.tensors().find(name);
    if (found != file_.tensors().end() && found->second.dtype == dtype &&
        found->second.shape.size() == 1) {
      return &found->second;
    }
    Fail(absl::StrCat("tensor '", name, "': expected ", DtypeName(dtype), " [values], got ",
                      found == file_.tensors().end() ? "none" : found->second.ToString()));
    return nullptr;
  }

  const SafetensorsFile& file_;
  absl::Status status_;
};

void CheckColumns(const Columns& columns, Reader* reader) {
  const size_t count = columns.prices.size();
  reader->CheckOffsets("offsets", columns.offsets, count, columns.ids.size());
  reader->CheckOffsets("item_id_offsets", columns.item_id_offsets, count, columns.item_ids.size());
  if (count == 0 || columns.completion_tokens.size() != count ||
      columns.file_rows.size() != count) {
    reader->Fail("expected as many rows in every tensor");
  }
}

Dataset DatasetOf(Columns columns) {
  Dataset dataset;
  for (size_t i = 0; i < columns.prices.size(); ++i) {
    Example& example = dataset.examples.emplace_back();
    example.ids.assign(columns.ids.begin() + columns.offsets[i],
                       columns.ids.begin() + columns.offsets[i + 1]);
    example.price = columns.prices[i];
    example.completion_tokens = columns.completion_tokens[i];
    const int64_t begin = columns.item_id_offsets[i];
    dataset.item_ids.push_back(
        columns.item_ids.substr(begin, columns.item_id_offsets[i + 1] - begin));
  }
  dataset.file_rows = std::move(columns.file_rows);
  return dataset;
}

absl::StatusOr<std::string> DigestIfThere(const std::string& path) {
  if (!std::filesystem::exists(path)) return std::string();
  return Sha256HexOfFile(path);
}

}  // namespace

std::string TokenCache::PathOf(absl::string_view key) const {
  return absl::StrCat(directory_, "/", key, ".safetensors");
}

absl::StatusOr<std::optional<Dataset>> TokenCache::Load(absl::string_view key,
                                                        const std::string& rejects_path) const {
  const std::string path = PathOf(key);
  if (!std::filesystem::exists(path)) return std::nullopt;
  ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
  Reader reader(*file);
  Columns columns;
  reader.Tensor("ids", Dtype::kI32, &columns.ids);
  reader.Tensor("offsets", Dtype::kI64, &columns.offsets);
  reader.Tensor("prices", Dtype::kF64, &columns.prices);
  reader.Tensor("completion_tokens", Dtype::kI64, &columns.completion_tokens);
  reader.Tensor("file_rows", Dtype::kI64, &columns.file_rows);
  reader.Tensor("item_id_offsets", Dtype::kI64, &columns.item_id_offsets);
  reader.Bytes("item_ids", &columns.item_ids);
  reader.Bytes("rejects", &columns.rejects);
  ReadSummary summary;
  int64_t truncated = 0;
  int64_t foreign_prompts = 0;
  reader.Number("rows", &summary.rows);
  reader.Number("rejected_rows", &summary.rejects);
  reader.Number("truncated", &truncated);
  reader.Number("foreign_prompts", &foreign_prompts);
  CheckColumns(columns, &reader);
  RETURN_IF_ERROR(reader.status());
  if (!columns.rejects.empty()) {
    RETURN_IF_ERROR(WriteFileAtomically(rejects_path, columns.rejects));
  }
  Dataset dataset = DatasetOf(std::move(columns));
  dataset.summary = summary;
  dataset.truncated = truncated;
  dataset.foreign_prompts = foreign_prompts;
  return dataset;
}

absl::Status TokenCache::Save(absl::string_view key, const Dataset& dataset,
                              const std::string& rejects_path) const {
  Columns columns = ColumnsOf(dataset);
  if (std::filesystem::exists(rejects_path)) {
    ASSIGN_OR_RETURN(columns.rejects, ReadFile(rejects_path));
  }
  RETURN_IF_ERROR(MakeDirectories(directory_));
  const std::string path = PathOf(key);
  const std::string part = absl::StrCat(path, ".part-", getpid());
  RETURN_IF_ERROR(
      WriteSafetensors(part,
                       {{"ids", ViewOf(Dtype::kI32, columns.ids)},
                        {"offsets", ViewOf(Dtype::kI64, columns.offsets)},
                        {"prices", ViewOf(Dtype::kF64, columns.prices)},
                        {"completion_tokens", ViewOf(Dtype::kI64, columns.completion_tokens)},
                        {"file_rows", ViewOf(Dtype::kI64, columns.file_rows)},
                        {"item_id_offsets", ViewOf(Dtype::kI64, columns.item_id_offsets)},
                        {"item_ids", BytesView(columns.item_ids)},
                        {"rejects", BytesView(columns.rejects)}},
                       {{"key", std::string(key)},
                        {"rows", absl::StrCat(dataset.summary.rows)},
                        {"rejected_rows", absl::StrCat(dataset.summary.rejects)},
                        {"truncated", absl::StrCat(dataset.truncated)},
                        {"foreign_prompts", absl::StrCat(dataset.foreign_prompts)}}));
  if (std::rename(part.c_str(), path.c_str()) != 0) return ErrnoStatus("rename", part);
  return absl::OkStatus();
}

absl::StatusOr<std::string> TokenCacheKey(const std::string& path, absl::string_view file_digest,
                                          const std::string& base_directory,
                                          const PromptTemplate& prompt,
                                          const DatasetOptions& options) {
  std::string text;
  const auto add = [&text](absl::string_view name, absl::string_view value) {
    absl::StrAppend(&text, name, " ", value.size(), "\n", value, "\n");
  };
  add("format", kFormat);
  add("program", BuildVersion());
  add("path", path);
  add("file", file_digest);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "added_tokens.json", "config.json"}) {
    ASSIGN_OR_RETURN(const std::string digest,
                     DigestIfThere(absl::StrCat(base_directory, "/", name)));
    add(name, digest);
  }
  add("question", prompt.question);
  add("prefix", prompt.prefix);
  add("max_prompt_tokens", absl::StrCat(prompt.max_prompt_tokens));
  const ItemReaderOptions& reader = options.reader;
  for (const auto& [field, column] : reader.columns) add(field, column);
  add("currency", reader.currency);
  add("pairs", absl::StrCat(reader.pairs));
  add("max_reject_share", absl::StrCat(reader.max_reject_share));
  add("max_line_bytes", absl::StrCat(reader.max_line_bytes));
  add("csv_delimiter", absl::StrCat(static_cast<int>(reader.csv_delimiter)));
  if (options.completion.has_value()) {
    add("suffix", options.completion->suffix);
    add("end_token", absl::StrCat(options.completion->end_token.value_or(-1)));
  }
  return Sha256Hex(text);
}

}  // namespace pricer

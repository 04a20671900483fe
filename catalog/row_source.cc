#include "catalog/row_source.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "catalog/byte_source.h"
#include "catalog/csv_source.h"
#include "catalog/json_lines_source.h"
#include "catalog/object_store.h"
#include "catalog/parquet_source.h"

namespace pricer {
namespace {

enum class Format { kJsonLines, kCsv, kParquet, kUnknown };

Format FormatByName(const std::string& path) {
  const std::string lower = absl::AsciiStrToLower(path);
  absl::string_view name = lower;
  // What the store is asked with is no part of the name.
  if (IsObject(path)) name = name.substr(0, name.find('?'));
  if (!absl::ConsumeSuffix(&name, ".gz")) absl::ConsumeSuffix(&name, ".zst");
  if (absl::EndsWith(name, ".parquet")) return Format::kParquet;
  for (const char* suffix : {".csv", ".tsv"}) {
    if (absl::EndsWith(name, suffix)) return Format::kCsv;
  }
  for (const char* suffix : {".jsonl", ".ndjson", ".json"}) {
    if (absl::EndsWith(name, suffix)) return Format::kJsonLines;
  }
  return Format::kUnknown;
}

Format FormatByContents(absl::string_view head) {
  if (absl::StartsWith(head, "PAR1")) return Format::kParquet;
  absl::ConsumePrefix(&head, "\xEF\xBB\xBF");
  head = absl::StripLeadingAsciiWhitespace(head);
  const bool is_json = head.empty() || head[0] == '{' || head[0] == '[';
  return is_json ? Format::kJsonLines : Format::kCsv;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowSource>> OpenRowSource(const std::string& path,
                                                         const ItemColumns& columns,
                                                         const RowSourceOptions& options) {
  constexpr size_t kHeadBytes = 4096;
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> bytes, OpenByteSource(path));
  auto source = std::make_unique<PeekSource>(std::move(bytes));
  Format format = FormatByName(path);
  if (format == Format::kUnknown) {
    ASSIGN_OR_RETURN(const absl::string_view head, source->Peek(kHeadBytes));
    format = FormatByContents(head);
  }
  if (format == Format::kParquet) return OpenParquetSource(path, columns, options);
  if (format == Format::kCsv) return OpenCsvSource(path, std::move(source), columns, options);
  return OpenJsonLinesSource(std::move(source), columns, options);
}

}  // namespace pricer

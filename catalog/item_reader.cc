#include "catalog/item_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

constexpr double kMinRejectsForEarlyStop = 100;
constexpr int64_t kMinRowsToJudge = 100;

ItemRules RulesOf(const ItemReaderOptions& options) {
  return {.currency = options.currency,
          .price_required = options.price_required,
          .pairs = options.pairs};
}

}  // namespace

absl::Status ItemReaderOptions::Validate() const {
  if (!(max_reject_share >= 0 && max_reject_share <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_reject_share: expected 0 to 1, got ", max_reject_share));
  }
  if (max_line_bytes == 0) {
    return absl::InvalidArgumentError("max_line_bytes: expected at least 1, got 0");
  }
  const auto delimiter = static_cast<unsigned char>(csv_delimiter);
  if (delimiter >= 0x80 || csv_delimiter == '"' || csv_delimiter == '\n' || csv_delimiter == '\r') {
    return absl::InvalidArgumentError(absl::StrCat(
        "csv_delimiter: expected ASCII but no quote or line end, got byte ", int{delimiter}));
  }
  return ItemParser::Create(columns, RulesOf(*this)).status();
}

absl::StatusOr<std::unique_ptr<ItemReader>> ItemReader::Open(const std::string& path,
                                                             const ItemReaderOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  ASSIGN_OR_RETURN(ItemParser parser, ItemParser::Create(options.columns, RulesOf(options)));
  ASSIGN_OR_RETURN(std::unique_ptr<RowSource> source,
                   OpenRowSource(path, parser.columns(),
                                 {.max_row_bytes = options.max_line_bytes,
                                  .csv_delimiter = options.csv_delimiter}));
  ASSIGN_OR_RETURN(RejectsFile rejects_file, RejectsFile::Create(options.rejects_path, path));
  return std::unique_ptr<ItemReader>(
      new ItemReader(path, options, std::move(source), std::move(parser), std::move(rejects_file)));
}

ItemReader::ItemReader(const std::string& path, const ItemReaderOptions& options,
                       std::unique_ptr<RowSource> source, ItemParser parser,
                       RejectsFile rejects_file)
    : path_(path),
      options_(options),
      source_(std::move(source)),
      parser_(std::move(parser)),
      rejects_file_(std::move(rejects_file)) {}

absl::StatusOr<bool> ItemReader::Next(Item* item) {
  RETURN_IF_ERROR(failure_);
  absl::StatusOr<bool> got = NextGoodRow(item);
  RETURN_IF_ERROR(Remember(got.status()));
  if (!*got) RETURN_IF_ERROR(Finish());
  return got;
}

absl::StatusOr<bool> ItemReader::NextGoodRow(Item* item) {
  std::optional<Reject> reject;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, ReadRow(/*skip_blank=*/true, item, &reject));
    if (!more) break;
    if (!reject.has_value()) return true;
    RETURN_IF_ERROR(NoteReject(row_, *reject));
  }
  at_end_ = true;
  return false;
}

absl::Status ItemReader::RejectRow(int64_t row, const Reject& reject) {
  RETURN_IF_ERROR(failure_);
  ++rejects_;
  return Remember(NoteReject(row, reject));
}

absl::Status ItemReader::Finish() {
  RETURN_IF_ERROR(failure_);
  RETURN_IF_ERROR(Remember(rejects_file_.Flush()));
  const int64_t rows = at_end_ ? rows_ : std::max(rows_, kMinRowsToJudge);
  if (static_cast<double>(rejects_) <= AllowedRejects(rows)) return absl::OkStatus();
  return Remember(TooManyRejects(at_end_ ? "" : " so far"));
}

absl::Status ItemReader::Remember(absl::Status status) {
  if (status.ok()) return status;
  // The rows rejected so far help to find the cause; the failure itself is what counts.
  rejects_file_.Flush().IgnoreError();
  return failure_ = std::move(status);
}

absl::StatusOr<bool> ItemReader::NextRow(Item* item, std::optional<Reject>* reject) {
  return ReadRow(/*skip_blank=*/false, item, reject);
}

absl::StatusOr<bool> ItemReader::SkipRow() {
  ASSIGN_OR_RETURN(const bool more, source_->Skip());
  if (more) ++rows_;
  return more;
}

absl::StatusOr<bool> ItemReader::ReadRow(bool skip_blank, Item* item,
                                         std::optional<Reject>* reject) {
  do {
    ASSIGN_OR_RETURN(const bool more, source_->Next(&current_));
    if (!more) return false;
  } while (current_.is_blank && skip_blank);
  row_ = current_.number;
  ++rows_;
  item->id.clear();
  *reject =
      current_.reject.has_value() ? current_.reject : parser_.Parse(current_.values, row_, item);
  if (reject->has_value()) ++rejects_;
  return true;
}

absl::Status ItemReader::NoteReject(int64_t row, const Reject& reject) {
  if (rejects_ == 1) {
    first_reject_ = absl::StrCat("row ", row, ": ", reject.field, reject.field.empty() ? "" : ": ",
                                 reject.reason);
  }
  RETURN_IF_ERROR(rejects_file_.Add(row, reject));
  const bool too_many = rejects_ > std::max(kMinRejectsForEarlyStop, AllowedRejects(rows_));
  return too_many ? TooManyRejects(" so far") : absl::OkStatus();
}

double ItemReader::AllowedRejects(int64_t rows) const {
  // 29 of 100 rows are 0.29 of them, whatever 0.29 * 100 rounds to.
  return options_.max_reject_share * static_cast<double>(rows) + 1e-6;
}

absl::Status ItemReader::TooManyRejects(absl::string_view when) const {
  return absl::FailedPreconditionError(absl::StrCat(
      path_, ": ", rejects_, " of ", rows_, " rows", when, " were rejected, at most ",
      absl::StrFormat("%g", 100 * options_.max_reject_share), " % may be; first: ", first_reject_,
      rejects_file_.path().empty() ? "" : "; all of them: ", rejects_file_.path()));
}

absl::StatusOr<std::vector<Item>> ReadItems(const std::string& path,
                                            const ItemReaderOptions& options,
                                            ReadSummary* summary) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ItemReader> reader, ItemReader::Open(path, options));
  std::vector<Item> items;
  Item item;
  for (;;) {
    const absl::StatusOr<bool> more = reader->Next(&item);
    if (summary != nullptr) *summary = {reader->rows(), reader->rejects()};
    RETURN_IF_ERROR(more.status());
    if (!*more) return items;
    items.push_back(item);
  }
}

}  // namespace pricer

#include "trainer/inspect_data.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

// Rows that are tokenized together, and whose texts are in memory for so long.
constexpr size_t kRowsPerChunk = 1024;
constexpr size_t kRejectsKept = 5;
constexpr int kMostBars = 30;

struct Row {
  int64_t number = 0;
  Item item;
  // What is made of it.
  absl::Status status;
  int64_t tokens = 0;
  bool truncated = false;
  TextSignature signature;
};

void Digest(const PromptTemplate& prompt, const Tokenizer& tokenizer, Row* row) {
  const std::string text = ItemText(row->item);
  const absl::StatusOr<EncodedPrompt> encoded = EncodePrompt(prompt, tokenizer, text);
  row->status = encoded.status();
  if (!encoded.ok()) return;
  row->tokens = static_cast<int64_t>(encoded->ids.size());
  row->truncated = encoded->truncated;
  row->signature = SignText(text);
}

using Field = std::pair<const char*, std::string Item::*>;
constexpr std::array<Field, 6> kTextFields = {{{"title", &Item::title},
                                               {"brand", &Item::brand},
                                               {"category", &Item::category},
                                               {"description", &Item::description},
                                               {"details", &Item::details},
                                               {"text", &Item::text}}};

// One file on its way.
class FileReader {
 public:
  static absl::StatusOr<FileReader> Open(const std::string& path,
                                         const DataInspectionOptions& options,
                                         const PromptTemplate& prompt, const Tokenizer& tokenizer) {
    ItemReaderOptions reader;
    reader.columns = options.columns;
    reader.csv_delimiter = options.csv_delimiter;
    reader.currency = options.currency;
    FileReader file(path, prompt, tokenizer);
    ASSIGN_OR_RETURN(file.reader_, ItemReader::Open(path, reader));
    return file;
  }

  // Calls add(signature, row) for every good row.
  template <typename Add>
  absl::StatusOr<FileInspection> ReadAll(const Add& add) {
    for (;;) {
      if (InterruptRequested()) return absl::CancelledError(absl::StrCat("reading ", file_.path));
      ASSIGN_OR_RETURN(const size_t rows, ReadChunk());
      if (rows == 0) break;
      at::parallel_for(0, static_cast<int64_t>(rows), 16, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) Digest(*prompt_, *tokenizer_, &chunk_[i]);
      });
      for (size_t i = 0; i < rows; ++i) {
        RETURN_IF_ERROR(Take(chunk_[i]));
        if (chunk_[i].status.ok()) add(chunk_[i].signature, chunk_[i].number);
      }
    }
    return Finish();
  }

 private:
  FileReader(const std::string& path, const PromptTemplate& prompt, const Tokenizer& tokenizer)
      : prompt_(&prompt), tokenizer_(&tokenizer), chunk_(kRowsPerChunk) {
    file_.path = path;
    for (const Field& field : kTextFields) file_.missing.emplace_back(field.first, 0);
  }

  absl::StatusOr<size_t> ReadChunk() {
    size_t rows = 0;
    std::optional<Reject> reject;
    while (rows < chunk_.size()) {
      ASSIGN_OR_RETURN(const bool found, reader_->NextRow(&chunk_[rows].item, &reject));
      if (!found) break;
      // Tuning passes over them.
      if (reject.has_value() && reject->field.empty() && reject->reason == "blank line") continue;
      ++file_.rows;
      if (reject.has_value()) {
        Refuse(reader_->row(), *std::move(reject));
      } else {
        chunk_[rows++].number = reader_->row();
      }
    }
    return rows;
  }

  void Refuse(int64_t row, Reject reject) {
    ++file_.rejects;
    if (file_.first_rejects.size() < kRejectsKept) {
      file_.first_rejects.push_back({row, std::move(reject)});
    }
  }

  absl::Status Take(const Row& row) {
    if (absl::IsInvalidArgument(row.status)) {
      Refuse(row.number, {.field = "", .reason = std::string(row.status.message())});
      return absl::OkStatus();
    }
    if (!row.status.ok()) {
      return absl::Status(row.status.code(),
                          absl::StrCat(file_.path, ":", row.number, ": ", row.status.message()));
    }
    ++file_.items;
    file_.total_tokens += row.tokens;
    if (row.truncated) ++file_.truncated;
    tokens_.push_back(static_cast<double>(row.tokens));
    prices_.push_back(*row.item.price);
    for (size_t i = 0; i < kTextFields.size(); ++i) {
      if ((row.item.*kTextFields[i].second).empty()) ++file_.missing[i].second;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<FileInspection> Finish() {
    if (file_.items == 0) {
      const std::string first =
          file_.first_rejects.empty()
              ? ""
              : absl::StrCat("; row ", file_.first_rejects[0].row, ": ",
                             file_.first_rejects[0].reject.field,
                             file_.first_rejects[0].reject.field.empty() ? "" : ": ",
                             file_.first_rejects[0].reject.reason);
      return absl::FailedPreconditionError(
          absl::StrCat(file_.path, ": no item in ", file_.rows, " rows", first));
    }
    // Rejected rows are ordered by chunk, of each those that make no prompt last.
    std::sort(file_.first_rejects.begin(), file_.first_rejects.end(),
              [](const auto& a, const auto& b) { return a.row < b.row; });
    file_.price_bars = PriceBars(prices_);
    file_.tokens = SpreadOf(std::move(tokens_));
    file_.prices = SpreadOf(std::move(prices_));
    return std::move(file_);
  }

  const PromptTemplate* prompt_;
  const Tokenizer* tokenizer_;
  std::unique_ptr<ItemReader> reader_;
  std::vector<Row> chunk_;
  FileInspection file_;
  std::vector<double> tokens_;
  std::vector<double> prices_;
};

// 10^decade times 1, 2 or 5.
double BarEdge(int64_t step) {
  constexpr std::array<double, 3> kSteps = {1, 2, 5};
  const int64_t decade = step >= 0 ? step / 3 : (step - 2) / 3;
  return kSteps[static_cast<size_t>(step - 3 * decade)] *
         std::pow(10.0, static_cast<double>(decade));
}

// The last edge at or below the price, of every `stride`th.
int64_t StepBelow(double price, int64_t stride) {
  auto step = static_cast<int64_t>(std::floor(3 * std::log10(price))) + 3;
  while (BarEdge(step) > price) --step;
  return static_cast<int64_t>(std::floor(static_cast<double>(step) / static_cast<double>(stride))) *
         stride;
}

}  // namespace

double DataInspection::leak_share() const {
  if (!validation.has_value()) return 0;
  return static_cast<double>(duplicates.leak.total()) / static_cast<double>(validation->items);
}

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto rank = [&](double share) {
    const double place = std::ceil(share * static_cast<double>(values.size()));
    return values[static_cast<size_t>(std::max(place, 1.0)) - 1];
  };
  return {values.front(), rank(0.5), rank(0.9), rank(0.99), values.back()};
}

std::vector<PriceBar> PriceBars(const std::vector<double>& prices) {
  if (prices.empty()) return {};
  const auto [low, high] = std::minmax_element(prices.begin(), prices.end());
  // One bar for each edge, or for each decade, or for several decades.
  int64_t stride = 1;
  while ((StepBelow(*high, stride) - StepBelow(*low, stride)) / stride >= kMostBars) {
    stride = stride == 1 ? 3 : stride * 2;
  }
  const int64_t first = StepBelow(*low, stride);
  const int64_t last = StepBelow(*high, stride);
  std::vector<PriceBar> bars;
  for (int64_t step = first; step <= last; step += stride) {
    bars.push_back({BarEdge(step), BarEdge(step + stride), 0});
  }
  for (const double price : prices) {
    ++bars[static_cast<size_t>((StepBelow(price, stride) - first) / stride)].items;
  }
  return bars;
}

absl::StatusOr<DataInspection> InspectData(const DataInspectionOptions& options,
                                           const PromptTemplate& prompt,
                                           const Tokenizer& tokenizer) {
  // Question and prefix must fit whatever the item; any letter does.
  RETURN_IF_ERROR(EncodePrompt(prompt, tokenizer, "x").status());
  DuplicateFinder finder;
  DataInspection inspection;
  ASSIGN_OR_RETURN(FileReader data, FileReader::Open(options.data, options, prompt, tokenizer));
  ASSIGN_OR_RETURN(inspection.data, data.ReadAll([&](const TextSignature& signature, int64_t row) {
    finder.AddTraining(signature, row);
  }));
  if (!options.validation.empty()) {
    ASSIGN_OR_RETURN(FileReader validation,
                     FileReader::Open(options.validation, options, prompt, tokenizer));
    ASSIGN_OR_RETURN(inspection.validation,
                     validation.ReadAll([&](const TextSignature& signature, int64_t row) {
                       finder.AddValidation(signature, row);
                     }));
  }
  inspection.duplicates = finder.Find();
  return inspection;
}

}  // namespace pricer

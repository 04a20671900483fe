#include "trainer/dataset.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

// Question and prefix must fit whatever the item; any letter does.
absl::Status CheckWording(const PromptTemplate& prompt, const Tokenizer& tokenizer) {
  return EncodePrompt(prompt, tokenizer, "x").status();
}

// `encoder` may be absent: no completions.
absl::Status AddExample(const Item& item, const PromptTemplate& prompt, const Tokenizer& tokenizer,
                        std::optional<CompletionEncoder>& encoder, bool keep_texts,
                        Dataset* dataset) {
  std::string text = ItemText(item);
  ASSIGN_OR_RETURN(EncodedPrompt encoded, EncodePrompt(prompt, tokenizer, text));
  Example example{.ids = std::move(encoded.ids), .price = *item.price};
  if (encoder.has_value()) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> completion, encoder->EncodePrice(*item.price));
    example.ids.insert(example.ids.end(), completion.begin(), completion.end());
    example.completion_tokens = static_cast<int64_t>(completion.size());
  }
  if (encoded.truncated) ++dataset->truncated;
  dataset->examples.push_back(std::move(example));
  dataset->item_ids.push_back(item.id);
  if (keep_texts) dataset->texts.push_back(std::move(text));
  return absl::OkStatus();
}

}  // namespace

std::string Dataset::NameOf(int64_t example) const {
  const std::string& id = item_ids[example];
  return absl::StrCat("row ", file_rows[example], id.empty() ? "" : absl::StrCat(" (id ", id, ")"));
}

std::vector<int64_t> Dataset::Lengths() const {
  std::vector<int64_t> lengths;
  lengths.reserve(examples.size());
  for (const Example& example : examples) {
    lengths.push_back(static_cast<int64_t>(example.ids.size()));
  }
  return lengths;
}

std::vector<double> Dataset::Prices() const {
  std::vector<double> prices;
  prices.reserve(examples.size());
  for (const Example& example : examples) prices.push_back(example.price);
  return prices;
}

absl::StatusOr<Dataset> LoadDataset(const std::string& path, const PromptTemplate& prompt,
                                    const Tokenizer& tokenizer, const DatasetOptions& options) {
  Dataset dataset;
  dataset.path = path;
  RETURN_IF_ERROR(CheckWording(prompt, tokenizer));
  std::optional<CompletionEncoder> encoder;
  if (options.completion.has_value()) {
    ASSIGN_OR_RETURN(encoder, CompletionEncoder::Create(prompt, tokenizer, *options.completion));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ItemReader> reader,
                   ItemReader::Open(path, options.reader));
  Item item;
  while (options.limit == 0 || static_cast<int64_t>(dataset.examples.size()) < options.limit) {
    ASSIGN_OR_RETURN(const bool found, reader->Next(&item));
    if (!found) break;
    if (InterruptRequested()) return absl::CancelledError(absl::StrCat("reading ", path));
    const absl::Status status =
        AddExample(item, prompt, tokenizer, encoder, options.keep_texts, &dataset);
    if (absl::IsInvalidArgument(status)) {
      RETURN_IF_ERROR(reader->RejectRow({.field = "", .reason = std::string(status.message())}));
    } else if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(path, ":", reader->row(), ": ", status.message()));
    } else {
      dataset.file_rows.push_back(reader->row());
    }
  }
  RETURN_IF_ERROR(reader->Finish());
  dataset.summary = {.rows = reader->rows(), .rejects = reader->rejects()};
  if (dataset.examples.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": no item in ", reader->rows(), " rows"));
  }
  return dataset;
}

std::string DescribeDataset(const Dataset& dataset) {
  int64_t tokens = 0;
  for (const Example& example : dataset.examples)
    tokens += static_cast<int64_t>(example.ids.size());
  return absl::StrCat(dataset.examples.size(), " items, ", tokens, " tokens, ", dataset.truncated,
                      " truncated, ", dataset.summary.rejects, " rejected");
}

}  // namespace pricer

#include "trainer/dataset.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "trainer/number_text.h"

namespace pricer {
namespace {

// Question and prefix must fit whatever the item; any letter does.
absl::Status CheckWording(const PromptTemplate& prompt, const Tokenizer& tokenizer) {
  return EncodePrompt(prompt, tokenizer, "x").status();
}

// The item's text in a prompt of the template; absent where the prompt is of another one.
std::optional<std::string> TextOf(const PromptTemplate& wording, absl::string_view prompt) {
  const std::string x = wording.Render("x");
  const std::string y = wording.Render("y");
  const auto place = std::mismatch(x.begin(), x.end(), y.begin()).first - x.begin();
  const absl::string_view head = absl::string_view(x).substr(0, place);
  const absl::string_view tail = absl::string_view(x).substr(place + 1);
  if (!absl::ConsumePrefix(&prompt, head) || !absl::ConsumeSuffix(&prompt, tail) ||
      prompt.empty()) {
    return std::nullopt;
  }
  return std::string(prompt);
}

// A pair whose prompt is of another template: taken as it is.
absl::StatusOr<Example> ForeignPair(const Item& item, const PromptTemplate& wording,
                                    const CompletionEncoder& encoder) {
  ASSIGN_OR_RETURN(CompletionEncoder::Pair pair, encoder.EncodePair(item.prompt, item.completion));
  const auto tokens = static_cast<int64_t>(pair.prompt.size());
  if (tokens > wording.max_prompt_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("the prompt has ", tokens, " tokens, at most ", wording.max_prompt_tokens,
                     " are taken; only a prompt of the run's question and prefix can be cut"));
  }
  Example example{.ids = std::move(pair.prompt)};
  example.ids.insert(example.ids.end(), pair.completion.begin(), pair.completion.end());
  example.completion_tokens = static_cast<int64_t>(pair.completion.size());
  return example;
}

// What makes examples out of items. No encoder: no completions.
struct ExampleMaker {
  const PromptTemplate& wording;
  const Tokenizer& tokenizer;
  std::optional<CompletionEncoder> encoder;
  bool keep_texts = false;

  absl::StatusOr<std::vector<int32_t>> CompletionOf(const Item& item, double price) {
    if (item.completion.empty()) return encoder->EncodePrice(price);
    ASSIGN_OR_RETURN(const CompletionEncoder::Pair pair,
                     encoder->EncodePair(wording.Render("x"), item.completion));
    return pair.completion;
  }

  absl::Status Add(const Item& item, Dataset* dataset) {
    ASSIGN_OR_RETURN(const double price, PriceOf(item));
    const std::optional<std::string> text =
        item.prompt.empty() ? ItemText(item) : TextOf(wording, item.prompt);
    Example example;
    if (text.has_value()) {
      ASSIGN_OR_RETURN(EncodedPrompt encoded, EncodePrompt(wording, tokenizer, *text));
      example.ids = std::move(encoded.ids);
      if (encoder.has_value()) {
        ASSIGN_OR_RETURN(const std::vector<int32_t> completion, CompletionOf(item, price));
        example.ids.insert(example.ids.end(), completion.begin(), completion.end());
        example.completion_tokens = static_cast<int64_t>(completion.size());
      }
      if (encoded.truncated) ++dataset->truncated;
    } else if (encoder.has_value() && !keep_texts) {
      ASSIGN_OR_RETURN(example, ForeignPair(item, wording, *encoder));
      ++dataset->foreign_prompts;
    } else {
      return absl::InvalidArgumentError(
          "the prompt is not of the run's question and prefix, so that its item cannot be told");
    }
    example.price = price;
    dataset->examples.push_back(std::move(example));
    dataset->item_ids.push_back(item.id);
    if (keep_texts) dataset->texts.push_back(*text);
    return absl::OkStatus();
  }

  // A pair may say it in its completion alone.
  static absl::StatusOr<double> PriceOf(const Item& item) {
    if (item.price.has_value()) return *item.price;
    const std::optional<double> said = FindFirstNumber(item.completion).value;
    if (said.has_value() && *said > 0) return *said;
    return absl::InvalidArgumentError(
        absl::StrCat("neither a price nor one in the completion \"", item.completion, "\""));
  }
};

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
  ExampleMaker maker{.wording = prompt,
                     .tokenizer = tokenizer,
                     .encoder = std::nullopt,
                     .keep_texts = options.keep_texts};
  if (options.completion.has_value()) {
    ASSIGN_OR_RETURN(maker.encoder,
                     CompletionEncoder::Create(prompt, tokenizer, *options.completion));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ItemReader> reader,
                   ItemReader::Open(path, options.reader));
  Item item;
  while (options.limit == 0 || static_cast<int64_t>(dataset.examples.size()) < options.limit) {
    ASSIGN_OR_RETURN(const bool found, reader->Next(&item));
    if (!found) break;
    if (InterruptRequested()) return absl::CancelledError(absl::StrCat("reading ", path));
    const absl::Status status = maker.Add(item, &dataset);
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

#include "trainer/dataset.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/interrupt.h"
#include "base/parallel.h"
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

// What becomes of one item.
struct Made {
  Example example;
  std::optional<std::string> text;  // absent: its prompt is of another template
  bool truncated = false;
};

// What makes examples out of items. No encoder: no completions.
struct ExampleMaker {
  const PromptTemplate& wording;
  const Tokenizer& tokenizer;
  std::optional<CompletionEncoder> encoder;
  bool keep_texts = false;

  // All that can be done side by side: the completion of an item without one is left out.
  absl::StatusOr<Made> Make(const Item& item) const {
    Made made;
    ASSIGN_OR_RETURN(const double price, PriceOf(item));
    made.text = item.prompt.empty() ? ItemText(item) : TextOf(wording, item.prompt);
    if (made.text.has_value()) {
      ASSIGN_OR_RETURN(EncodedPrompt encoded, EncodePrompt(wording, tokenizer, *made.text));
      made.truncated = encoded.truncated;
      made.example.ids = std::move(encoded.ids);
      if (encoder.has_value() && !item.completion.empty()) {
        ASSIGN_OR_RETURN(const CompletionEncoder::Pair pair,
                         encoder->EncodePair(wording.Render("x"), item.completion));
        Complete(pair.completion, &made.example);
      }
    } else if (encoder.has_value() && !keep_texts) {
      ASSIGN_OR_RETURN(made.example, ForeignPair(item, wording, *encoder));
    } else {
      return absl::InvalidArgumentError(
          "the prompt is not of the run's question and prefix, so that its item cannot be told");
    }
    made.example.price = price;
    return made;
  }

  absl::Status Add(const Item& item, Made made, Dataset* dataset) {
    if (encoder.has_value() && made.example.completion_tokens == 0) {
      ASSIGN_OR_RETURN(const std::vector<int32_t> completion,
                       encoder->EncodePrice(made.example.price));
      Complete(completion, &made.example);
    }
    if (!made.text.has_value()) ++dataset->foreign_prompts;
    if (made.truncated) ++dataset->truncated;
    dataset->examples.push_back(std::move(made.example));
    dataset->item_ids.push_back(item.id);
    if (keep_texts) dataset->texts.push_back(*std::move(made.text));
    return absl::OkStatus();
  }

  static void Complete(const std::vector<int32_t>& completion, Example* example) {
    example->ids.insert(example->ids.end(), completion.begin(), completion.end());
    example->completion_tokens = static_cast<int64_t>(completion.size());
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

// Rows that are tokenized side by side.
class Chunk {
 public:
  static constexpr int64_t kRows = 1024;

  // The next good rows, at most so many; none at the end of the file.
  absl::Status Read(int64_t limit, ItemReader* reader) {
    size_ = 0;
    while (size_ < std::min(limit, kRows)) {
      if (size_ == static_cast<int64_t>(rows_.size())) rows_.emplace_back();
      ASSIGN_OR_RETURN(const bool found, reader->Next(&rows_[size_].item));
      if (!found) break;
      rows_[size_++].number = reader->row();
    }
    return absl::OkStatus();
  }

  void Tokenize(const ExampleMaker& maker, int threads) {
    ParallelFor(size_, threads, [&](int64_t i) { rows_[i].made = maker.Make(rows_[i].item); });
  }

  absl::Status AddTo(Dataset* dataset, ExampleMaker* maker, ItemReader* reader) {
    for (int64_t i = 0; i < size_; ++i) {
      Row& row = rows_[i];
      const absl::Status status =
          row.made.ok() ? maker->Add(row.item, *std::move(row.made), dataset) : row.made.status();
      if (absl::IsInvalidArgument(status)) {
        const Reject reject{.field = "", .reason = std::string(status.message())};
        RETURN_IF_ERROR(reader->RejectRow(row.number, reject));
      } else if (!status.ok()) {
        return absl::Status(status.code(),
                            absl::StrCat(dataset->path, ":", row.number, ": ", status.message()));
      } else {
        dataset->file_rows.push_back(row.number);
      }
    }
    return absl::OkStatus();
  }

  int64_t size() const { return size_; }

 private:
  struct Row {
    Item item;
    int64_t number = 0;
    absl::StatusOr<Made> made = absl::UnknownError("not tokenized");
  };
  std::vector<Row> rows_;  // whose memory is used again
  int64_t size_ = 0;
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
  const int64_t limit = options.limit > 0 ? options.limit : std::numeric_limits<int64_t>::max();
  Chunk chunk;
  do {
    const auto good = static_cast<int64_t>(dataset.examples.size());
    RETURN_IF_ERROR(chunk.Read(limit - good, reader.get()));
    if (InterruptRequested()) return absl::CancelledError(absl::StrCat("reading ", path));
    chunk.Tokenize(maker, options.threads);
    RETURN_IF_ERROR(chunk.AddTo(&dataset, &maker, reader.get()));
  } while (chunk.size() > 0 && static_cast<int64_t>(dataset.examples.size()) < limit);
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

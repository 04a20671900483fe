#include "trainer/probe.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "model/adapter.h"
#include "trainer/inference.h"
#include "trainer/option_checks.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

struct ProbeLine {
  Json id;
  std::string prompt;  // empty where tokens were given
  std::vector<int32_t> ids;
};

absl::StatusOr<std::vector<int32_t>> ParseTokens(const Json& tokens, int64_t vocabulary_size) {
  if (!tokens.is_array()) return absl::InvalidArgumentError("\"tokens\" is not an array");
  std::vector<int32_t> ids;
  for (const Json& token : tokens) {
    const bool valid = token.is_number_integer() && token >= 0 && token < vocabulary_size;
    if (!valid) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"tokens\" has ", token.dump(), "; expected ids from 0 to ", vocabulary_size - 1));
    }
    ids.push_back(token.get<int32_t>());
  }
  return ids;
}

absl::StatusOr<std::vector<int32_t>> EncodeLine(const Json& json, const BaseModel& base) {
  if (json.contains("prompt") == json.contains("tokens")) {
    return absl::InvalidArgumentError("expected either \"prompt\" or \"tokens\"");
  }
  if (json.contains("tokens")) {
    return ParseTokens(json["tokens"], base.checkpoint->config().vocabulary_size);
  }
  if (!json["prompt"].is_string()) return absl::InvalidArgumentError("\"prompt\" is no string");
  if (base.tokenizer == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"prompt\" needs ", base.checkpoint->tokenizer_path(),
                     ", which does not exist; \"tokens\" does without"));
  }
  ASSIGN_OR_RETURN(
      std::vector<int32_t> ids,
      base.tokenizer->Encode(json["prompt"].get<std::string>(), /*add_special_tokens=*/true));
  RETURN_IF_ERROR(base.tokenizer->CheckIds(ids));
  return ids;
}

absl::StatusOr<ProbeLine> ParseLine(absl::string_view text, const BaseModel& base) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  if (!json.contains("id") || !(json["id"].is_string() || json["id"].is_number())) {
    return absl::InvalidArgumentError("\"id\" is missing, or neither string nor number");
  }
  ProbeLine line;
  ASSIGN_OR_RETURN(line.ids, EncodeLine(json, base));
  const int64_t limit = base.checkpoint->config().MaxSequenceTokens();
  if (line.ids.empty() || static_cast<int64_t>(line.ids.size()) > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("the prompt has ", line.ids.size(), " tokens; expected 1 to ", limit));
  }
  line.id = std::move(json["id"]);
  if (json.contains("prompt")) line.prompt = json["prompt"].get<std::string>();
  return line;
}

absl::StatusOr<std::vector<ProbeLine>> ReadLines(const std::string& path, const BaseModel& base) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<ProbeLine> lines;
  int64_t row = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++row;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    auto parsed = ParseLine(line, base);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", row, ": ", parsed.status().message()));
    }
    lines.push_back(*std::move(parsed));
  }
  if (lines.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no line"));
  return lines;
}

absl::StatusOr<std::optional<PeftAdapter>> LoadAdapter(const ProbeOptions& options,
                                                       const BaseModel& base) {
  if (options.adapter.empty()) return std::nullopt;
  const ModelConfig& config = base.checkpoint->config();
  if (!std::filesystem::exists(options.adapter + "/pricer.json")) {
    return LoadPeftAdapter(options.adapter, config);
  }
  ASSIGN_OR_RETURN(const std::string fingerprint, base.checkpoint->Fingerprint());
  ASSIGN_OR_RETURN(PublishedAdapter published,
                   LoadPublishedAdapter(options.adapter, config, fingerprint));
  return std::move(published.adapter);
}

Json LikeliestTokens(const std::vector<float>& log_probabilities, int64_t top) {
  std::vector<int64_t> order(log_probabilities.size());
  std::iota(order.begin(), order.end(), 0);
  const int64_t count = std::min<int64_t>(top, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int64_t a, int64_t b) {
    if (log_probabilities[a] != log_probabilities[b]) {
      return log_probabilities[a] > log_probabilities[b];
    }
    return a < b;
  });
  order.resize(count);
  Json json;
  json["tokens"] = order;
  json["log_probabilities"] = Json::array();
  for (int64_t token : order) json["log_probabilities"].push_back(log_probabilities[token]);
  return json;
}

absl::StatusOr<std::string> ProbeAll(const ProbeOptions& options, const Network& network,
                                     const AdapterWeights* weights,
                                     const std::vector<ProbeLine>& lines) {
  std::vector<Prompt> prompts;
  for (const ProbeLine& line : lines) prompts.push_back(line.ids);
  const bool bins = weights != nullptr && weights->score.defined();
  std::string output;
  const auto consume = [&](int64_t first, const at::Tensor& hidden) -> absl::Status {
    const auto rows = RowsOf(bins ? Network::BinLogits(hidden, network.Place(weights->score))
                                  : at::log_softmax(network.Logits(hidden), /*dim=*/-1));
    for (size_t i = 0; i < rows.size(); ++i) {
      Json json;
      json["id"] = lines[first + i].id;
      if (bins) json["bin_logits"] = rows[i];
      if (!bins) json.update(LikeliestTokens(rows[i], options.top));
      absl::StrAppend(&output, json.dump(), "\n");
    }
    return InterruptRequested() ? absl::CancelledError("probe") : absl::OkStatus();
  };
  RETURN_IF_ERROR(ForEachBatch(network, weights, prompts, options.batch_tokens, consume));
  return output;
}

// What prices are behind the prompts; the same tokens behind all of them.
absl::StatusOr<PriceTokens> PriceTokensOf(const std::vector<ProbeLine>& lines,
                                          const Tokenizer* tokenizer) {
  std::optional<PriceTokens> first;
  // Tokens do not reach across a line's beginning, so the last line decides.
  std::set<std::string> known;
  for (const ProbeLine& line : lines) {
    if (line.prompt.empty() || tokenizer == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line.id.dump(), ": --prices needs a \"prompt\", not \"tokens\""));
    }
    if (!known.insert(line.prompt.substr(line.prompt.rfind('\n') + 1)).second) continue;
    ASSIGN_OR_RETURN(const PriceTokens tokens, PriceTokens::Probe(*tokenizer, line.prompt));
    if (!first.has_value()) first = tokens;
    if (tokens.ids != first->ids || tokens.comma != first->comma) {
      return absl::InvalidArgumentError(absl::StrCat("line ", line.id.dump(),
                                                     ": prices are other tokens than behind line ",
                                                     lines[0].id.dump()));
    }
  }
  return *first;
}

absl::StatusOr<std::string> ProbePrices(const ProbeOptions& options, const Network& network,
                                        const AdapterWeights* weights, const PriceTokens& tokens,
                                        const std::vector<ProbeLine>& lines) {
  std::vector<Prompt> prompts;
  for (const ProbeLine& line : lines) prompts.push_back(line.ids);
  const auto observe = [](int64_t) {
    return InterruptRequested() ? absl::CancelledError("probe") : absl::OkStatus();
  };
  ASSIGN_OR_RETURN(
      const std::vector<PriceTree::Result> results,
      ComputeTokenPrices(network, weights, tokens, prompts, options.batch_tokens, observe));
  std::string output;
  for (size_t i = 0; i < results.size(); ++i) {
    const Json json = {{"id", lines[i].id},
                       {"prices", results[i].prices},
                       {"pruned", results[i].pruned},
                       {"overflow", results[i].overflow},
                       {"not_a_price", results[i].not_a_price}};
    absl::StrAppend(&output, json.dump(), "\n");
  }
  return output;
}

absl::Status WriteStandardOutput(const std::string& text) {
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? absl::OkStatus() : ErrnoStatus("write", "standard output");
}

}  // namespace

absl::Status ProbeOptions::Validate() const {
  RETURN_IF_ERROR(base.Validate());
  if (!adapter.empty()) RETURN_IF_ERROR(CheckDirectory("--adapter", adapter));
  RETURN_IF_ERROR(CheckFile("--input", input));
  if (!output.empty()) RETURN_IF_ERROR(CheckOutputFile("--output", output));
  RETURN_IF_ERROR(CheckOtherFile("--output", output, "--input", input));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--top", top, 1, kManyItems));
  return CheckBounds<int64_t>("--batch-tokens", batch_tokens, 1, kManyItems);
}

absl::StatusOr<int64_t> RunProbe(const ProbeOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  ASSIGN_OR_RETURN(const BaseModel base, OpenBase(options.base, /*needs_tokenizer=*/false));
  ASSIGN_OR_RETURN(const std::vector<ProbeLine> lines, ReadLines(options.input, base));
  ASSIGN_OR_RETURN(const std::optional<PeftAdapter> adapter, LoadAdapter(options, base));
  const AdapterWeights* const weights = adapter.has_value() ? &adapter->weights : nullptr;
  std::optional<PriceTokens> tokens;
  if (options.prices) {
    if (weights != nullptr && weights->score.defined()) {
      return absl::InvalidArgumentError(absl::StrCat("--prices reads the base's own head, but ",
                                                     options.adapter, " has a bins head"));
    }
    ASSIGN_OR_RETURN(tokens, PriceTokensOf(lines, base.tokenizer.get()));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Network> network,
                   LoadNetwork(base, options.base, /*weights=*/"fp32"));
  ASSIGN_OR_RETURN(const std::string output,
                   tokens.has_value() ? ProbePrices(options, *network, weights, *tokens, lines)
                                      : ProbeAll(options, *network, weights, lines));
  RETURN_IF_ERROR(options.output.empty() ? WriteStandardOutput(output)
                                         : WriteFileAtomically(options.output, output));
  return static_cast<int64_t>(lines.size());
}

}  // namespace pricer

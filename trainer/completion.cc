#include "trainer/completion.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/token_trie.h"

namespace pricer {

namespace {

// Without special tokens behind the text.
absl::StatusOr<std::vector<int32_t>> EncodeOpenEnded(const Tokenizer& tokenizer,
                                                     absl::string_view text) {
  ASSIGN_OR_RETURN(Tokenizer::Encoding encoding,
                   tokenizer.EncodeWithOffsets(text, /*add_special_tokens=*/true));
  encoding.ids.resize(encoding.ids.size() - encoding.trailing_special);
  return std::move(encoding.ids);
}

}  // namespace

absl::StatusOr<CompletionEncoder> CompletionEncoder::Create(const PromptTemplate& prompt,
                                                            const Tokenizer& tokenizer,
                                                            const CompletionFormat& format) {
  CompletionEncoder encoder(prompt.Render("x"), &tokenizer, format);
  const absl::Status status = encoder.EncodePrice(1).status();
  if (!status.ok()) return absl::FailedPreconditionError(status.message());
  return encoder;
}

CompletionEncoder::CompletionEncoder(std::string prompt, const Tokenizer* tokenizer,
                                     CompletionFormat format)
    : prompt_(std::move(prompt)),
      tokenizer_(tokenizer),
      format_(std::move(format)),
      of_prices_(kWholePriceCount) {}

absl::StatusOr<std::vector<int32_t>> CompletionEncoder::EncodePrice(double price) {
  const double whole = std::nearbyint(price);
  if (!(whole < kWholePriceCount)) {
    return absl::InvalidArgumentError(absl::StrCat("the price ", price, " is beyond ",
                                                   kWholePriceCount - 1,
                                                   ", the highest that the token head reads"));
  }
  std::vector<int32_t>& ids = of_prices_[static_cast<size_t>(whole)];
  if (ids.empty()) {
    const std::string completion = absl::StrCat(static_cast<int>(whole), format_.suffix);
    ASSIGN_OR_RETURN(const Pair pair, EncodePair(prompt_, completion));
    ids = pair.completion;
  }
  return ids;
}

absl::StatusOr<CompletionEncoder::Pair> CompletionEncoder::EncodePair(
    const std::string& prompt, absl::string_view completion) const {
  Pair pair;
  ASSIGN_OR_RETURN(pair.prompt, EncodeOpenEnded(*tokenizer_, prompt));
  ASSIGN_OR_RETURN(const std::vector<int32_t> whole,
                   EncodeOpenEnded(*tokenizer_, absl::StrCat(prompt, completion)));
  const bool is_prefix = !pair.prompt.empty() && whole.size() > pair.prompt.size() &&
                         std::equal(pair.prompt.begin(), pair.prompt.end(), whole.begin());
  if (!is_prefix) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tokens of the prompt change when \"", completion,
                     "\" follows; a prompt that ends otherwise may help"));
  }
  RETURN_IF_ERROR(tokenizer_->CheckIds(whole));
  pair.completion.assign(whole.begin() + static_cast<int64_t>(pair.prompt.size()), whole.end());
  if (format_.end_token.has_value()) pair.completion.push_back(*format_.end_token);
  return pair;
}

}  // namespace pricer

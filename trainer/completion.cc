#include "trainer/completion.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/token_trie.h"

namespace pricer {

absl::StatusOr<CompletionEncoder> CompletionEncoder::Create(const PromptTemplate& prompt,
                                                            const Tokenizer& tokenizer,
                                                            const CompletionFormat& format) {
  std::string text = prompt.Render("x");
  ASSIGN_OR_RETURN(Tokenizer::Encoding encoding,
                   tokenizer.EncodeWithOffsets(text, /*add_special_tokens=*/true));
  encoding.ids.resize(encoding.ids.size() - encoding.trailing_special);
  CompletionEncoder encoder(std::move(text), std::move(encoding.ids), &tokenizer, format);
  RETURN_IF_ERROR(encoder.EncodePrice(1).status());
  return encoder;
}

CompletionEncoder::CompletionEncoder(std::string prompt, std::vector<int32_t> prompt_ids,
                                     const Tokenizer* tokenizer, CompletionFormat format)
    : prompt_(std::move(prompt)),
      prompt_ids_(std::move(prompt_ids)),
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
    ASSIGN_OR_RETURN(ids, Encode(absl::StrCat(static_cast<int>(whole), format_.suffix)));
  }
  return ids;
}

absl::StatusOr<std::vector<int32_t>> CompletionEncoder::Encode(absl::string_view completion) const {
  ASSIGN_OR_RETURN(const Tokenizer::Encoding encoding,
                   tokenizer_->EncodeWithOffsets(absl::StrCat(prompt_, completion),
                                                 /*add_special_tokens=*/true));
  const std::vector<int32_t> whole(encoding.ids.begin(),
                                   encoding.ids.end() - encoding.trailing_special);
  const bool is_prefix = whole.size() > prompt_ids_.size() &&
                         std::equal(prompt_ids_.begin(), prompt_ids_.end(), whole.begin());
  if (!is_prefix) {
    return absl::FailedPreconditionError(absl::StrCat("the tokens of a prompt change when \"",
                                                      completion,
                                                      "\" follows; another --prefix may help"));
  }
  std::vector<int32_t> ids(whole.begin() + static_cast<int64_t>(prompt_ids_.size()), whole.end());
  RETURN_IF_ERROR(tokenizer_->CheckIds(ids));
  if (format_.end_token.has_value()) ids.push_back(*format_.end_token);
  return ids;
}

}  // namespace pricer

#include "trainer/tokenizer_probe.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

constexpr int kProbedNumbers = 10000;
constexpr int kWholeNumbers = 1000;

using Ids = std::vector<int32_t>;

// The tokens of texts behind the prompt's last line, which is where a price stands.
class PriceEncoder {
 public:
  static absl::StatusOr<PriceEncoder> Create(const Tokenizer& tokenizer,
                                             const PromptTemplate& prompt) {
    PriceEncoder encoder(tokenizer, absl::StrCat("\n\n", prompt.prefix));
    ASSIGN_OR_RETURN(encoder.before_,
                     tokenizer.Encode(encoder.context_, /*add_special_tokens=*/false));
    return encoder;
  }

  // Absent where the text's first token begins in front of it.
  absl::StatusOr<std::optional<Ids>> Encode(absl::string_view text) const {
    ASSIGN_OR_RETURN(const Ids ids, tokenizer_->Encode(absl::StrCat(context_, text),
                                                       /*add_special_tokens=*/false));
    const bool follows =
        ids.size() > before_.size() && std::equal(before_.begin(), before_.end(), ids.begin());
    if (!follows) return std::optional<Ids>();
    return std::optional<Ids>(Ids(ids.begin() + static_cast<int64_t>(before_.size()), ids.end()));
  }

 private:
  PriceEncoder(const Tokenizer& tokenizer, std::string context)
      : tokenizer_(&tokenizer), context_(std::move(context)) {}

  const Tokenizer* tokenizer_;
  std::string context_;
  Ids before_;
};

absl::StatusOr<std::vector<std::string>> Spellings(const Tokenizer& tokenizer, const Ids& ids) {
  std::vector<std::string> texts;
  for (const int32_t id : ids) {
    ASSIGN_OR_RETURN(std::string text, tokenizer.Decode({id}, /*skip_special_tokens=*/false));
    texts.push_back(std::move(text));
  }
  return texts;
}

std::string Shown(const std::vector<std::string>& tokens) {
  return absl::StrCat("\"", absl::StrJoin(tokens, "\" \""), "\"");
}

// Looks for the first number that speaks against either kind.
class Judge {
 public:
  explicit Judge(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // Numbers come in ascending order, so that the digits are known before they are met again.
  absl::Status See(int number, const std::optional<Ids>& ids) {
    const std::string text = absl::StrCat(number);
    if (!ids.has_value()) {
      Object(&whole_, text, "joins the prompt's prefix");
      Object(&digits_, text, "joins the prompt's prefix");
      return absl::OkStatus();
    }
    if (number < 10 && ids->size() == 1) digit_ids_[static_cast<size_t>(number)] = ids->front();
    const bool is_whole = number >= kWholeNumbers || ids->size() == 1;
    const bool is_digits = IsDigits(text, *ids);
    if ((is_whole || !whole_.empty()) && (is_digits || !digits_.empty())) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::vector<std::string> tokens, Spellings(tokenizer_, *ids));
    const std::string problem = absl::StrCat("is ", Shown(tokens));
    if (!is_whole) Object(&whole_, text, problem);
    if (!is_digits) Object(&digits_, text, problem);
    return absl::OkStatus();
  }

  PriceTokenKind kind() const {
    if (whole_.empty()) return PriceTokenKind::kWhole;
    return digits_.empty() ? PriceTokenKind::kDigits : PriceTokenKind::kUnsupported;
  }

  std::string reason() const {
    if (kind() != PriceTokenKind::kUnsupported) return "";
    return absl::StrCat("not whole: ", whole_, "; not digit by digit: ", digits_);
  }

 private:
  bool IsDigits(const std::string& text, const Ids& ids) const {
    if (ids.size() != text.size()) return false;
    for (size_t i = 0; i < text.size(); ++i) {
      if (ids[i] != digit_ids_[static_cast<size_t>(text[i] - '0')]) return false;
    }
    return true;
  }

  static void Object(std::string* objection, const std::string& text, absl::string_view problem) {
    if (objection->empty()) *objection = absl::StrCat(text, " ", problem);
  }

  const Tokenizer& tokenizer_;
  Ids digit_ids_ = Ids(10, -1);  // of those that are one token
  std::string whole_;
  std::string digits_;
};

absl::Status ProbeNumbers(const Tokenizer& tokenizer, const PromptTemplate& prompt,
                          TokenizerProbe* probe) {
  ASSIGN_OR_RETURN(const PriceEncoder encoder, PriceEncoder::Create(tokenizer, prompt));
  Judge judge(tokenizer);
  probe->tokens_by_digits.resize(4);
  for (int number = 0; number < kProbedNumbers; ++number) {
    const std::string text = absl::StrCat(number);
    ASSIGN_OR_RETURN(const std::optional<Ids> ids, encoder.Encode(text));
    if (ids.has_value()) {
      ++probe->tokens_by_digits[text.size() - 1][static_cast<int64_t>(ids->size())];
    } else {
      ++probe->joined;
    }
    RETURN_IF_ERROR(judge.See(number, ids));
  }
  probe->price_tokens = judge.kind();
  probe->reason = judge.reason();
  ASSIGN_OR_RETURN(const std::optional<Ids> decimal, encoder.Encode(kProbedDecimal));
  if (!decimal.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(probe->decimal, Spellings(tokenizer, *decimal));
  return absl::OkStatus();
}

absl::Status ProbeSpecialTokens(const Tokenizer& tokenizer, const ModelConfig& model,
                                TokenizerProbe* probe) {
  ASSIGN_OR_RETURN(const Tokenizer::Encoding encoding,
                   tokenizer.EncodeWithOffsets("x", /*add_special_tokens=*/true));
  const Ids leading(encoding.ids.begin(),
                    encoding.ids.begin() + static_cast<int64_t>(encoding.leading_special));
  const Ids trailing(encoding.ids.end() - static_cast<int64_t>(encoding.trailing_special),
                     encoding.ids.end());
  ASSIGN_OR_RETURN(probe->leading_special, Spellings(tokenizer, leading));
  ASSIGN_OR_RETURN(probe->trailing_special, Spellings(tokenizer, trailing));
  if (!model.bos_token_id.has_value()) return absl::OkStatus();
  const auto bos = static_cast<int32_t>(*model.bos_token_id);
  ASSIGN_OR_RETURN(probe->bos, tokenizer.Decode({bos}, /*skip_special_tokens=*/false));
  probe->adds_bos = std::count(leading.begin(), leading.end(), bos) > 0;
  return absl::OkStatus();
}

}  // namespace

absl::string_view PriceTokenKindName(PriceTokenKind kind) {
  switch (kind) {
    case PriceTokenKind::kWhole:
      return "whole";
    case PriceTokenKind::kDigits:
      return "digits";
    case PriceTokenKind::kUnsupported:
      break;
  }
  return "unsupported";
}

absl::StatusOr<TokenizerProbe> ProbeTokenizer(const Tokenizer& tokenizer, const ModelConfig& model,
                                              const PromptTemplate& prompt) {
  TokenizerProbe probe;
  probe.vocabulary_size = tokenizer.vocabulary_size();
  RETURN_IF_ERROR(ProbeNumbers(tokenizer, prompt, &probe));
  RETURN_IF_ERROR(ProbeSpecialTokens(tokenizer, model, &probe));
  const absl::Status makes_prompt = EncodePrompt(prompt, tokenizer, "x").status();
  if (!makes_prompt.ok()) probe.prompt_problem = std::string(makes_prompt.message());
  return probe;
}

}  // namespace pricer

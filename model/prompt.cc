#include "model/prompt.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "model/json_fields.h"
#include "model/model_config.h"

namespace pricer {
namespace {

constexpr absl::string_view kSeparator = "\n\n";
// Longer texts are first tokenized up to here; see EncodeHeadOfText.
constexpr size_t kMinHeadBytes = 16 << 10;
constexpr size_t kHeadBytesPerToken = 16;
// No added token is longer; within so many bytes of a cut, text may be split otherwise than the
// whole is.
constexpr size_t kCutMarginBytes = 1 << 10;
constexpr size_t kMaxWordsBytes = 64 << 10;

// The prompt around a text, and where the text lies in it.
struct Rendered {
  std::string prompt;
  size_t text_begin = 0;
  size_t text_end = 0;
};

Rendered RenderParts(const PromptTemplate& prompt, absl::string_view text) {
  Rendered rendered;
  rendered.text_begin = prompt.question.size() + kSeparator.size();
  rendered.text_end = rendered.text_begin + text.size();
  rendered.prompt = absl::StrCat(prompt.question, kSeparator, text, kSeparator, prompt.prefix);
  return rendered;
}

// An encoded prompt, and which of its ids belong to the text alone: those before `text_first` cover
// some of the question or the separator after it, those from `text_last` on some of what follows.
struct Encoded {
  Tokenizer::Encoding tokens;
  size_t text_first = 0;
  size_t text_last = 0;

  size_t size() const { return tokens.ids.size(); }
};

absl::StatusOr<Encoded> EncodeParts(const PromptTemplate& prompt, const Tokenizer& tokenizer,
                                    absl::string_view text) {
  const Rendered rendered = RenderParts(prompt, text);
  Encoded encoded;
  ASSIGN_OR_RETURN(encoded.tokens, tokenizer.EncodeWithOffsets(rendered.prompt, true));
  const auto& offsets = encoded.tokens.byte_offsets;
  const size_t last = encoded.size() - encoded.tokens.trailing_special;
  size_t i = encoded.tokens.leading_special;
  while (i < last && offsets[i].first < rendered.text_begin) ++i;
  encoded.text_first = i;
  while (i < last && offsets[i].second <= rendered.text_end) ++i;
  encoded.text_last = i;
  return encoded;
}

// Whether the ids from `i` on can be dropped without cutting a character in two.
bool IsCharacterBoundary(const Encoded& encoded, size_t i) {
  return i == encoded.text_first || i >= encoded.text_last ||
         encoded.tokens.byte_offsets[i].first >= encoded.tokens.byte_offsets[i - 1].second;
}

// `ids` are the prompt's; `tokens` tell what the tokenizer adds.
absl::Status CheckBos(const Tokenizer::Encoding& tokens, const std::vector<int32_t>& ids) {
  if (tokens.leading_special == 0) return absl::OkStatus();
  const int32_t bos = ids[0];
  // A tokenizer may end its texts with the same token.
  const auto last = ids.end() - static_cast<int64_t>(tokens.trailing_special);
  const auto count = std::count(ids.begin(), last, bos);
  if (count == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "prompt: expected the beginning-of-sequence token ", bos,
      " once, as the tokenizer adds it, got it ", count, " times: the text spells it out"));
}

// How many ids of `encoded`, whose text is the first `head_bytes` of a longer one, are the longer
// one's too. Ids are made piece by piece, and a cut changes nothing before the last piece in front
// of it. Where one piece fills most of the head, ids in its first quarter count as settled in a
// head of at least `settled_bytes`: merges do not reach that far.
size_t CountSettled(const Encoded& encoded, size_t text_begin, size_t head_bytes,
                    size_t settled_bytes) {
  const auto& pieces = encoded.tokens.pieces;
  const auto& offsets = encoded.tokens.byte_offsets;
  const size_t margin_end = text_begin + head_bytes - kCutMarginBytes;
  const size_t quarter_end = head_bytes < settled_bytes ? 0 : text_begin + head_bytes / 4;
  size_t i = encoded.text_first;
  for (; i < encoded.text_last; ++i) {
    const bool in_earlier_piece = pieces[i] < pieces[encoded.text_last - 1];
    const bool settled = in_earlier_piece && offsets[i].second <= margin_end;
    if (!settled && offsets[i].second > quarter_end) break;
  }
  return i - encoded.text_first;
}

// Encodes no more of a long text than fills the prompt, with `text_last` where the ids end that are
// the whole text's. Nothing where the head of the text does not fill the prompt.
absl::StatusOr<std::optional<Encoded>> EncodeHeadOfText(const PromptTemplate& prompt,
                                                        const Tokenizer& tokenizer,
                                                        absl::string_view text) {
  const size_t limit = prompt.max_prompt_tokens;
  const size_t text_begin = prompt.question.size() + kSeparator.size();
  const size_t least = std::max(kMinHeadBytes, kHeadBytesPerToken * limit);
  for (size_t bytes = least; bytes < text.size(); bytes *= 4) {
    const absl::string_view head = Utf8Prefix(text, bytes);
    ASSIGN_OR_RETURN(Encoded encoded, EncodeParts(prompt, tokenizer, head));
    if (encoded.text_last == encoded.text_first) continue;
    const size_t settled = CountSettled(encoded, text_begin, head.size(), 2 * least);
    encoded.text_last = encoded.text_first + settled;
    if (settled >= limit) return encoded;
  }
  return std::nullopt;
}

// Ids of everything behind the text, special tokens included.
absl::StatusOr<std::vector<int32_t>> EncodeTail(const PromptTemplate& prompt,
                                                const Tokenizer& tokenizer) {
  // Any letter does: the separator starts a new line.
  constexpr absl::string_view kLetter = "x";
  ASSIGN_OR_RETURN(const Encoded encoded, EncodeParts(prompt, tokenizer, kLetter));
  if (encoded.text_last == encoded.text_first) {
    return absl::InvalidArgumentError(
        "prompt: the tokenizer joins an item's text with the question or the price prefix");
  }
  const auto& ids = encoded.tokens.ids;
  return std::vector<int32_t>(ids.begin() + encoded.text_last, ids.end());
}

absl::StatusOr<EncodedPrompt> Truncate(const PromptTemplate& prompt, const Tokenizer& tokenizer,
                                       const Encoded& encoded) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> tail, EncodeTail(prompt, tokenizer));
  const size_t limit = prompt.max_prompt_tokens;
  const size_t fixed = encoded.text_first + tail.size();
  if (fixed > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: question and prefix alone have ", fixed,
                     " tokens; expected at most max_prompt_tokens = ", limit));
  }
  size_t end = encoded.text_first + std::min(limit - fixed, encoded.text_last - encoded.text_first);
  while (!IsCharacterBoundary(encoded, end)) --end;
  const auto& ids = encoded.tokens.ids;
  EncodedPrompt result;
  result.truncated = true;
  result.ids.assign(ids.begin(), ids.begin() + end);
  result.ids.insert(result.ids.end(), tail.begin(), tail.end());
  return result;
}

absl::Status CheckWords(absl::string_view field, absl::string_view text) {
  if (text.size() <= kMaxWordsBytes && IsValidUtf8(text)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("prompt ", field, ": expected UTF-8 of at most ",
                                                 kMaxWordsBytes, " bytes, got ", Quoted(text)));
}

}  // namespace

absl::StatusOr<CurrencyWords> WordsOfCurrency(absl::string_view currency) {
  if (currency.size() != 3 || !std::all_of(currency.begin(), currency.end(), absl::ascii_isupper)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "currency: expected an ISO 4217 code of three capital letters, got ", Quoted(currency)));
  }
  if (currency == "USD") return CurrencyWords{"US dollars", "$"};
  return CurrencyWords{std::string(currency), absl::StrCat(currency, " ")};
}

absl::StatusOr<PromptTemplate> PromptTemplate::Preset(absl::string_view name,
                                                      absl::string_view currency) {
  ASSIGN_OR_RETURN(const CurrencyWords words, WordsOfCurrency(currency));
  PromptTemplate prompt;
  prompt.preset = std::string(name);
  if (name == "default") {
    prompt.question =
        absl::StrCat("What is a fair price for this product, in whole ", words.unit, "?");
    prompt.prefix = absl::StrCat("Price: ", words.symbol);
    return prompt;
  }
  if (name != "reference") {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt preset: expected default or reference, got ", Quoted(name)));
  }
  if (currency != "USD") {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt preset: reference asks for dollars; expected the currency USD, got ", currency));
  }
  prompt.question = "How much does this cost to the nearest dollar?";
  prompt.prefix = "Price is $";
  return prompt;
}

absl::Status PromptTemplate::Validate() const {
  RETURN_IF_ERROR(CheckWords("question", question));
  RETURN_IF_ERROR(CheckWords("prefix", prefix));
  if (prefix.empty() || absl::ascii_isspace(prefix[0])) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt prefix: expected text that does not begin with a space, got ", Quoted(prefix)));
  }
  if (max_prompt_tokens < 1 || max_prompt_tokens > kMaxPromptTokens) {
    return absl::InvalidArgumentError(absl::StrCat("prompt max_prompt_tokens: expected 1 to ",
                                                   kMaxPromptTokens, ", got ", max_prompt_tokens));
  }
  return absl::OkStatus();
}

std::string PromptTemplate::Render(absl::string_view item_text) const {
  return RenderParts(*this, item_text).prompt;
}

absl::StatusOr<EncodedPrompt> EncodePrompt(const PromptTemplate& prompt, const Tokenizer& tokenizer,
                                           absl::string_view item_text) {
  RETURN_IF_ERROR(prompt.Validate());
  if (item_text.empty()) return absl::InvalidArgumentError("item text: expected some, got none");
  if (const size_t invalid = FindInvalidUtf8(item_text); invalid != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("item text: expected UTF-8, got an invalid sequence at byte ", invalid));
  }
  ASSIGN_OR_RETURN(std::optional<Encoded> encoded, EncodeHeadOfText(prompt, tokenizer, item_text));
  if (!encoded) {
    ASSIGN_OR_RETURN(encoded, EncodeParts(prompt, tokenizer, item_text));
  }
  EncodedPrompt result;
  if (encoded->size() <= static_cast<size_t>(prompt.max_prompt_tokens)) {
    result.ids = encoded->tokens.ids;
  } else {
    ASSIGN_OR_RETURN(result, Truncate(prompt, tokenizer, *encoded));
  }
  RETURN_IF_ERROR(CheckBos(encoded->tokens, result.ids));
  RETURN_IF_ERROR(tokenizer.CheckIds(result.ids));
  return result;
}

}  // namespace pricer

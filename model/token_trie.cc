#include "model/token_trie.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

// How far probabilities that were computed in single precision may sum to more than 1.
constexpr double kSumTolerance = 1e-3;

using Ids = std::vector<int32_t>;

std::string Spelled(const Tokenizer& tokenizer, absl::Span<const int32_t> ids) {
  if (ids.empty()) return "nothing";
  return absl::StrJoin(ids, " ", [&](std::string* out, int32_t id) {
    const auto text = tokenizer.Decode({id}, false);
    absl::StrAppend(out, text.ok() ? Quoted(*text) : "?", " (", id, ")");
  });
}

// Tokens where a prompt and its continuation part: that place and the one before it.
std::string SpelledAround(const Tokenizer& tokenizer, const Ids& ids, size_t place) {
  const size_t begin = place > 0 ? place - 1 : 0;
  const size_t end = std::min(place + 1, ids.size());
  return Spelled(tokenizer, absl::MakeConstSpan(ids).subspan(begin, end - begin));
}

// A prompt, and what the tokenizer makes of texts that follow it.
class Continuations {
 public:
  static absl::StatusOr<Continuations> Create(const Tokenizer& tokenizer,
                                              absl::string_view prompt) {
    ASSIGN_OR_RETURN(Ids ids, tokenizer.Encode(prompt, true));
    return Continuations(&tokenizer, prompt, std::move(ids));
  }

  absl::StatusOr<Ids> Encode(absl::string_view text) const {
    ASSIGN_OR_RETURN(const Ids ids, tokenizer_->Encode(absl::StrCat(prompt_, text), true));
    const auto [own, continued] =
        std::mismatch(prompt_ids_.begin(), prompt_ids_.end(), ids.begin(), ids.end());
    if (own == prompt_ids_.end()) return Ids(continued, ids.end());
    const auto place = static_cast<size_t>(own - prompt_ids_.begin());
    return absl::FailedPreconditionError(
        absl::StrCat("price tokens: expected the prompt to keep its tokens when ", Quoted(text),
                     " follows, got ", SpelledAround(*tokenizer_, ids, place), " where it has ",
                     SpelledAround(*tokenizer_, prompt_ids_, place), " alone"));
  }

 private:
  Continuations(const Tokenizer* tokenizer, absl::string_view prompt, Ids ids)
      : tokenizer_(tokenizer), prompt_(prompt), prompt_ids_(std::move(ids)) {}

  const Tokenizer* tokenizer_;
  absl::string_view prompt_;
  Ids prompt_ids_;
};

// -1 where a digit is not one token.
Ids DigitIds(absl::Span<const Ids> prices) {
  Ids digits;
  for (int digit = 0; digit < 10; ++digit) {
    digits.push_back(prices[digit].size() == 1 ? prices[digit][0] : -1);
  }
  return digits;
}

bool IsDigitByDigit(int64_t price, const Ids& ids, const Ids& digit_ids) {
  const std::string text = absl::StrCat(price);
  return std::equal(text.begin(), text.end(), ids.begin(), ids.end(),
                    [&](char digit, int32_t id) { return digit_ids[digit - '0'] == id; });
}

// The first price that is not one token; kWholePriceCount where all are.
int64_t FirstSplit(absl::Span<const Ids> prices) {
  return std::find_if(prices.begin(), prices.end(),
                      [](const Ids& ids) { return ids.size() != 1; }) -
         prices.begin();
}

// As FirstSplit, of not being the tokens of its digits.
int64_t FirstNotDigitByDigit(absl::Span<const Ids> prices, const Ids& digit_ids) {
  int64_t price = 0;
  while (price < kWholePriceCount && IsDigitByDigit(price, prices[price], digit_ids)) ++price;
  return price;
}

// `ids` are of 0, 1, 2, ...
absl::Status CheckDistinct(const Tokenizer& tokenizer, const Ids& ids) {
  std::map<int32_t, size_t> numbers;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto [same, is_new] = numbers.emplace(ids[i], i);
    if (is_new) continue;
    return absl::UnimplementedError(
        absl::StrCat("price tokens: expected tokens that tell prices apart, got ",
                     Spelled(tokenizer, {ids[i]}), " for ", same->second, " and for ", i));
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> CommaId(const Tokenizer& tokenizer, const Continuations& prompt,
                                const Ids& digit_ids) {
  int32_t comma = -1;
  for (int digit = 0; digit < 10; ++digit) {
    const std::string text = absl::StrCat(digit, ",");
    ASSIGN_OR_RETURN(const Ids ids, prompt.Encode(text));
    if (digit == 0 && ids.size() == 2) comma = ids[1];
    if (ids != Ids{digit_ids[digit], comma}) {
      return absl::UnimplementedError(
          absl::StrCat("price tokens: expected a comma to be a token of its own, the same behind "
                       "every digit, got ",
                       Spelled(tokenizer, ids), " for ", Quoted(text)));
    }
  }
  return comma;
}

absl::Status CheckProbabilities(std::span<const double, 10> digits, double comma,
                                absl::string_view where) {
  const auto fail = [&](absl::string_view expected, absl::string_view what, double got) {
    return absl::InvalidArgumentError(
        absl::StrCat("price tree: ", where, ": expected ", expected, " as ", what, ", got ", got));
  };
  constexpr absl::string_view kProbability = "a number of at least 0";
  double sum = comma;
  for (size_t digit = 0; digit < digits.size(); ++digit) {
    if (!(digits[digit] >= 0.0 && std::isfinite(digits[digit]))) {
      return fail(kProbability, absl::StrCat("probability of the digit ", digit), digits[digit]);
    }
    sum += digits[digit];
  }
  if (!(comma >= 0.0 && std::isfinite(comma))) {
    return fail(kProbability, "probability of the comma", comma);
  }
  if (sum > 1.0 + kSumTolerance) return fail("at most 1", "sum of the probabilities", sum);
  return absl::OkStatus();
}

double Sum(std::span<const double, 10> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

absl::StatusOr<PriceTokens> PriceTokens::Probe(const Tokenizer& tokenizer,
                                               absl::string_view prompt_text) {
  ASSIGN_OR_RETURN(const Continuations prompt, Continuations::Create(tokenizer, prompt_text));
  std::vector<Ids> prices(kWholePriceCount);
  for (int price = 0; price < kWholePriceCount; ++price) {
    ASSIGN_OR_RETURN(prices[price], prompt.Encode(absl::StrCat(price)));
  }
  PriceTokens tokens;
  const int64_t split = FirstSplit(prices);
  if (split == kWholePriceCount) {
    for (const Ids& ids : prices) tokens.ids.push_back(ids[0]);
  } else {
    tokens.kind = Kind::kDigits;
    tokens.ids = DigitIds(prices);
    const int64_t joined = FirstNotDigitByDigit(prices, tokens.ids);
    if (joined < kWholePriceCount) {
      return absl::UnimplementedError(
          absl::StrCat("price tokens: expected a token for each price from 0 to 999, got ",
                       Spelled(tokenizer, prices[split]), " for ", split,
                       "; or else a token for each digit, got ", Spelled(tokenizer, prices[joined]),
                       " for ", joined));
    }
    ASSIGN_OR_RETURN(tokens.comma, CommaId(tokenizer, prompt, tokens.ids));
    RETURN_IF_ERROR(tokenizer.CheckIds({tokens.comma}));
  }
  RETURN_IF_ERROR(CheckDistinct(tokenizer, tokens.ids));
  RETURN_IF_ERROR(tokenizer.CheckIds(tokens.ids));
  return tokens;
}

PriceTree::PriceTree(const PriceTokens& tokens, double prune)
    : digit_ids_(tokens.ids), prune_(prune) {
  PRICER_CHECK(tokens.kind == PriceTokens::Kind::kDigits && digit_ids_.size() == 10);
  PRICER_CHECK(prune >= 0.0 && prune <= 1.0);
  result_.prices.resize(kWholePriceCount);
}

absl::Status PriceTree::SetRoot(std::span<const double, 10> digit_probabilities) {
  PRICER_CHECK(depth_ == 0);
  RETURN_IF_ERROR(CheckProbabilities(digit_probabilities, 0.0, "behind the prompt"));
  const double sum = Sum(digit_probabilities);
  const double scale = 1.0 / std::max(sum, 1.0);
  pruned_mass_ = prune_ * sum * scale;
  result_.not_a_price = std::max(1.0 - sum, 0.0);
  for (int32_t digit = 0; digit < 10; ++digit) {
    Add({.depth = 1, .prefix = digit}, digit_probabilities[digit] * scale);
  }
  depth_ = 1;
  return absl::OkStatus();
}

const std::vector<PriceNode>& PriceTree::Level(int depth) const {
  PRICER_CHECK(depth >= 1 && depth <= kMaxPriceDigits && depth <= depth_);
  return levels_[depth - 1].nodes;
}

absl::Status PriceTree::SetLevel(int depth, absl::Span<const NextTokenProbabilities> next) {
  const std::vector<PriceNode>& nodes = Level(depth);
  PRICER_CHECK(depth == depth_ && next.size() == nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    RETURN_IF_ERROR(CheckProbabilities(next[i].digits, next[i].comma,
                                       absl::StrCat("behind the digits ", nodes[i].prefix)));
  }
  for (size_t i = 0; i < nodes.size(); ++i) Spread(static_cast<int32_t>(i), next[i]);
  ++depth_;
  return absl::OkStatus();
}

void PriceTree::Spread(int32_t index, const NextTokenProbabilities& next) {
  const PriceNode node = levels_[depth_ - 1].nodes[index];
  const double mass = levels_[depth_ - 1].masses[index];
  const double digits = Sum(next.digits);
  const double sum = digits + next.comma;
  const double scaled = mass / std::max(sum, 1.0);
  result_.prices[node.prefix] += mass * std::max(1.0 - sum, 0.0);
  result_.overflow += scaled * next.comma;
  if (node.prefix == 0) {
    result_.not_a_price += scaled * digits;
  } else if (node.depth == kMaxPriceDigits) {
    result_.overflow += scaled * digits;
  } else {
    for (int32_t digit = 0; digit < 10; ++digit) {
      Add({.depth = node.depth + 1, .prefix = node.prefix * 10 + digit, .parent = index},
          scaled * next.digits[digit]);
    }
  }
}

void PriceTree::Add(PriceNode node, double mass) {
  if (mass < pruned_mass_) {
    result_.pruned += mass;
    return;
  }
  node.token = digit_ids_[node.prefix % 10];
  levels_[node.depth - 1].nodes.push_back(node);
  levels_[node.depth - 1].masses.push_back(mass);
}

const PriceTree::Result& PriceTree::result() const {
  PRICER_CHECK(depth_ > kMaxPriceDigits || (depth_ > 0 && Level(depth_).empty()));
  return result_;
}

}  // namespace pricer

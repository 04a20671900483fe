#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/tokenizer.h"

// The token head's arithmetic: which tokens the whole prices 0 to 999 are behind a prompt, and how
// their probabilities follow from those of single digits. No torch.

namespace pricer {

inline constexpr int kWholePriceCount = 1000;
inline constexpr int kMaxPriceDigits = 3;

// What a tokenizer makes of whole prices behind a prompt.
struct PriceTokens {
  enum class Kind {
    kWhole,   // each price is one token
    kDigits,  // each digit is one token, the same in every place
  };
  Kind kind = Kind::kWhole;
  // Distinct. kWhole: [1000], of each price. kDigits: [10], of each digit.
  std::vector<int32_t> ids;
  // Of a comma behind a digit; kDigits alone.
  int32_t comma = -1;

  // `prompt_text` ends in the price prefix: "... Price is $". Tokenizes it, with the special tokens
  // that the tokenizer adds, alone and followed by each price: a token of digits alone need not be
  // the one that they are in their place. Costs about a thousand times the prompt.
  //
  // FailedPrecondition: the tokens of the prompt change when digits follow, so that there is no
  // place to read a price at; names the tokens there. Unimplemented: prices are neither of the
  // kinds; names a price that is not, with its tokens. InvalidArgument: text that is no UTF-8, a
  // token that the model does not know (Tokenizer::CheckIds).
  static absl::StatusOr<PriceTokens> Probe(const Tokenizer& tokenizer,
                                           absl::string_view prompt_text);
};

// Some digits behind the prompt, behind which the model is to be asked for the next token. At
// `depth` d it stands d - 1 positions behind the first one after the prompt, and attends to the
// prompt, its ancestors and itself.
struct PriceNode {
  int32_t token = 0;    // of the last digit
  int depth = 1;        // 1 to kMaxPriceDigits: how many digits
  int32_t prefix = 0;   // 0 to 999: the digits as a number
  int32_t parent = -1;  // index in the level above; -1 at depth 1
};

// Of the tokens behind a node; what is left of 1 ends the number.
struct NextTokenProbabilities {
  std::array<double, 10> digits = {};
  double comma = 0;
};

// Nodes with a smaller share of the mass of all numbers (of the ten first digits) are not
// evaluated. A price then has its exact mass, or none where it or the digits that it begins with
// were pruned; what it lacks is less than this share. A share, because a base that was never tuned
// may hardly say numbers at all.
inline constexpr double kDefaultPrunedShare = 1e-5;

// Collects the probabilities of the whole prices of one item, level by level, where digits are
// tokens:
//   SetRoot(...); for each depth: SetLevel(depth, <evaluation of Level(depth)>); result().
// A number ends at any token but a digit or a comma. It has no leading zero: "0" alone is a price,
// and a digit behind it makes it none. Thread-compatible.
class PriceTree {
 public:
  // Parts of 1, to within 1e-12.
  struct Result {
    std::vector<double> prices;  // [1000]
    double pruned = 0;           // in nodes that were not evaluated
    double overflow = 0;         // a comma behind one to three digits, or a fourth digit
    double not_a_price = 0;      // no digit behind the prompt, or one behind a leading zero
  };

  // At most 1 / prune nodes of a level are evaluated, and not more than 10, 90 and 900. REQUIRES:
  // tokens of kDigits, 0 <= prune <= 1.
  explicit PriceTree(const PriceTokens& tokens, double prune = kDefaultPrunedShare);

  // Probabilities of the ten digits at the prompt's last token. InvalidArgument where one is not a
  // number of at least 0 or their sum exceeds 1 by more than rounding to single precision explains;
  // by less, they are scaled down to it. REQUIRES: called once.
  absl::Status SetRoot(std::span<const double, 10> digit_probabilities);

  // The nodes to evaluate at depth 1 to kMaxPriceDigits: those with a share of at least `prune`, in
  // ascending order. May be empty; then so are all below. REQUIRES: the level above is set.
  const std::vector<PriceNode>& Level(int depth) const;

  // What the model says behind each node of Level(depth). InvalidArgument as SetRoot, with the
  // digits; nothing is changed then. REQUIRES: one for each node; levels are set once, in order.
  absl::Status SetLevel(int depth, absl::Span<const NextTokenProbabilities> next);

  // REQUIRES: no level with nodes is left to set.
  const Result& result() const;

 private:
  struct Nodes {
    std::vector<PriceNode> nodes;
    std::vector<double> masses;  // of their digits, whatever follows
  };

  // Takes up a node, with the token of its last digit, or prunes it.
  void Add(PriceNode node, double mass);
  // Hands the mass of a node of the level to set next on to what may follow it.
  void Spread(int32_t index, const NextTokenProbabilities& next);

  std::vector<int32_t> digit_ids_;
  const double prune_;
  double pruned_mass_ = 0;                     // below which a node is not evaluated
  std::array<Nodes, kMaxPriceDigits> levels_;  // by depth - 1
  int depth_ = 0;                              // to set next; 0 is the root
  Result result_;
};

}  // namespace pricer

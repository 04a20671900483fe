#include "model/token_head.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

// Rows whose scores over the whole vocabulary are held at a time.
constexpr int64_t kScoredRows = 256;
// Nodes of the last level, which nothing follows, that are computed at a time.
constexpr int64_t kLeavesAtATime = 2048;

// Softmax probabilities of `tokens` [n, k] int64 behind the states [n, H]: [n, k] fp64, on the CPU.
at::Tensor ProbabilitiesOf(const Network& network, const at::Tensor& hidden,
                           const at::Tensor& tokens) {
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < hidden.size(0); begin += kScoredRows) {
    const int64_t count = std::min(kScoredRows, hidden.size(0) - begin);
    const at::Tensor scores = network.Logits(hidden.narrow(0, begin, count));
    const at::Tensor here = network.Place(tokens.narrow(0, begin, count));
    const at::Tensor wanted = scores.gather(1, here).to(at::kDouble);
    parts.push_back((wanted - at::logsumexp(scores, {1}, /*keepdim=*/true)).exp().cpu());
  }
  return at::cat(parts);
}

// The ten digits and the comma.
void AppendDigitTokens(const PriceTokens& tokens, std::vector<int64_t>& ids) {
  ids.insert(ids.end(), tokens.ids.begin(), tokens.ids.end());
  ids.push_back(tokens.comma);
}

constexpr int64_t kDigitTokens = 11;

absl::Status NameSequence(const absl::Status& status, int64_t sequence) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("sequence ", sequence, ": ", status.message()));
}

// The trees of all readings, computed side by side.
class Forest {
 public:
  Forest(const Network& network, absl::Span<const AdapterWeights* const> adapters,
         absl::Span<const TokenReading> readings, KvCache* cache, double prune)
      : network_(network),
        adapters_(adapters),
        readings_(readings.begin(), readings.end()),
        cache_(cache) {
    for (const TokenReading& reading : readings_) trees_.emplace_back(*reading.tokens, prune);
  }

  absl::Status SetRoots(const at::Tensor& hidden) {
    if (readings_.empty()) return absl::OkStatus();
    std::vector<int64_t> rows;
    std::vector<int64_t> ids;
    for (const TokenReading& reading : readings_) {
      rows.push_back(reading.sequence);
      AppendDigitTokens(*reading.tokens, ids);
    }
    const at::Tensor tokens = at::tensor(ids, at::kLong).view({-1, kDigitTokens});
    const at::Tensor probabilities =
        ProbabilitiesOf(network_,
                        hidden.index_select(0, network_.Place(at::tensor(rows, at::kLong))), tokens)
            .contiguous();
    const double* row = probabilities.const_data_ptr<double>();
    for (size_t r = 0; r < trees_.size(); ++r, row += kDigitTokens) {
      RETURN_IF_ERROR(NameSequence(trees_[r].SetRoot(std::span<const double, 10>(row, 10)),
                                   readings_[r].sequence));
    }
    return absl::OkStatus();
  }

  // Level by level, until no tree has nodes left.
  absl::Status Grow() {
    for (int depth = 1; depth <= kMaxPriceDigits; ++depth) {
      const NodeLevel level = LevelOf(depth);
      if (level.ids.empty()) return absl::OkStatus();
      RETURN_IF_ERROR(SetLevel(level, depth));
    }
    return absl::OkStatus();
  }

  const PriceTree::Result& result(size_t reading) const { return trees_[reading].result(); }

 private:
  absl::Status SetLevel(const NodeLevel& level, int depth) {
    const at::Tensor probabilities = Probabilities(level, depth).contiguous();
    const double* row = probabilities.const_data_ptr<double>();
    for (size_t r = 0; r < trees_.size(); ++r) {
      std::vector<NextTokenProbabilities> next(trees_[r].Level(depth).size());
      for (NextTokenProbabilities& node : next) {
        std::copy(row, row + 10, node.digits.begin());
        node.comma = row[10];
        row += kDigitTokens;
      }
      RETURN_IF_ERROR(NameSequence(trees_[r].SetLevel(depth, next), readings_[r].sequence));
    }
    return absl::OkStatus();
  }

  // All trees' nodes of one depth, in the batch's order.
  NodeLevel LevelOf(int depth) {
    NodeLevel level;
    level.ancestors.resize(depth - 1);
    level.offsets.assign(cache_->batch.sequence_count() + 1, 0);
    std::vector<int64_t> first(trees_.size());  // of each tree in this level
    for (size_t r = 0; r < trees_.size(); ++r) {
      first[r] = static_cast<int64_t>(level.ids.size());
      for (const PriceNode& node : trees_[r].Level(depth)) {
        level.ids.push_back(node.token);
        if (depth == 1) continue;
        const int64_t parent = first_[r] + node.parent;
        for (int above = 0; above + 2 < depth; ++above) {
          level.ancestors[above].push_back(ancestors_[above][parent]);
        }
        level.ancestors[depth - 2].push_back(parent);
      }
      level.offsets[readings_[r].sequence + 1] = static_cast<int64_t>(level.ids.size());
    }
    // Sequences that are not read have no nodes.
    for (size_t b = 1; b < level.offsets.size(); ++b) {
      level.offsets[b] = std::max(level.offsets[b], level.offsets[b - 1]);
    }
    first_ = std::move(first);
    ancestors_ = level.ancestors;
    return level;
  }

  at::Tensor Probabilities(const NodeLevel& level, int depth) {
    std::vector<int64_t> ids;
    for (size_t r = 0; r < trees_.size(); ++r) {
      for (size_t n = 0; n < trees_[r].Level(depth).size(); ++n) {
        AppendDigitTokens(*readings_[r].tokens, ids);
      }
    }
    const at::Tensor tokens = at::tensor(ids, at::kLong).view({-1, kDigitTokens});
    if (depth < kMaxPriceDigits) {
      const at::Tensor hidden = network_.ForwardNodes(level, adapters_, cache_);
      return ProbabilitiesOf(network_, hidden, tokens);
    }
    std::vector<at::Tensor> parts;
    const auto nodes = static_cast<int64_t>(level.ids.size());
    for (int64_t begin = 0; begin < nodes; begin += kLeavesAtATime) {
      const int64_t end = std::min(begin + kLeavesAtATime, nodes);
      const at::Tensor hidden =
          network_.ForwardLeaves(Slice(level, begin, end), adapters_, *cache_);
      parts.push_back(ProbabilitiesOf(network_, hidden, tokens.narrow(0, begin, end - begin)));
    }
    return at::cat(parts);
  }

  static NodeLevel Slice(const NodeLevel& level, int64_t begin, int64_t end) {
    NodeLevel slice;
    slice.ids.assign(level.ids.begin() + begin, level.ids.begin() + end);
    for (int64_t offset : level.offsets) {
      slice.offsets.push_back(std::clamp(offset, begin, end) - begin);
    }
    for (const std::vector<int64_t>& rows : level.ancestors) {
      slice.ancestors.emplace_back(rows.begin() + begin, rows.begin() + end);
    }
    return slice;
  }

  const Network& network_;
  const absl::Span<const AdapterWeights* const> adapters_;
  const std::vector<TokenReading> readings_;
  KvCache* const cache_;
  std::vector<PriceTree> trees_;
  // Of the level that was made last.
  std::vector<int64_t> first_;
  std::vector<std::vector<int64_t>> ancestors_;
};

absl::StatusOr<PriceTree::Result> WholeResult(const double* probabilities, int64_t sequence) {
  PriceTree::Result result;
  result.prices.assign(probabilities, probabilities + kWholePriceCount);
  double sum = 0;
  for (double price : result.prices) sum += price;
  if (!(sum >= 0)) {
    return NameSequence(absl::InvalidArgumentError("the probabilities are not finite"), sequence);
  }
  if (sum > 1) {
    for (double& price : result.prices) price /= sum;
  }
  result.not_a_price = std::max(0.0, 1.0 - sum);
  return result;
}

}  // namespace

absl::StatusOr<PriceTokens> ProbePriceTokens(const PromptTemplate& prompt,
                                             const Tokenizer& tokenizer) {
  return PriceTokens::Probe(tokenizer, prompt.Render("x"));
}

absl::StatusOr<std::vector<PriceTree::Result>> ReadTokenPrices(
    const Network& network, const at::Tensor& hidden,
    absl::Span<const AdapterWeights* const> adapters, absl::Span<const TokenReading> readings,
    KvCache* cache, double prune) {
  std::vector<TokenReading> digits;
  std::vector<int64_t> whole_rows;
  std::vector<int64_t> whole_ids;
  for (const TokenReading& reading : readings) {
    if (reading.tokens->kind == PriceTokens::Kind::kDigits) {
      digits.push_back(reading);
      continue;
    }
    whole_rows.push_back(reading.sequence);
    whole_ids.insert(whole_ids.end(), reading.tokens->ids.begin(), reading.tokens->ids.end());
  }
  at::Tensor whole;  // [readings of one token, 1000]
  if (!whole_rows.empty()) {
    whole = ProbabilitiesOf(
                network, hidden.index_select(0, network.Place(at::tensor(whole_rows, at::kLong))),
                at::tensor(whole_ids, at::kLong).view({-1, kWholePriceCount}))
                .contiguous();
  }
  Forest forest(network, adapters, digits, cache, prune);
  RETURN_IF_ERROR(forest.SetRoots(hidden));
  RETURN_IF_ERROR(forest.Grow());

  std::vector<PriceTree::Result> results;
  size_t tree = 0;
  int64_t row = 0;
  for (const TokenReading& reading : readings) {
    if (reading.tokens->kind == PriceTokens::Kind::kDigits) {
      results.push_back(forest.result(tree++));
      continue;
    }
    const double* const masses = whole.const_data_ptr<double>() + kWholePriceCount * row++;
    ASSIGN_OR_RETURN(PriceTree::Result result, WholeResult(masses, reading.sequence));
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace pricer

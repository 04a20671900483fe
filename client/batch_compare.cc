#include "client/batch_compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "catalog/byte_source.h"
#include "catalog/line_reader.h"
#include "client/batch_row.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

// Half a SHA-256 of the id: shorter than most ids.
using Key = std::pair<uint64_t, uint64_t>;

Key KeyOf(absl::string_view id) {
  const Sha256Bytes digest = Sha256Of(id);
  Key key;
  std::memcpy(&key.first, digest.data(), sizeof(key.first));
  std::memcpy(&key.second, digest.data() + sizeof(key.first), sizeof(key.second));
  return key;
}

struct Price {
  double price = 0;
  bool seen = false;  // in the later run
};

absl::Status ReadRows(const std::string& path,
                      const std::function<void(const BatchRow& row)>& take) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> bytes, OpenByteSource(path));
  LineReader lines(std::move(bytes), kMaxBatchLineBytes);
  LineReader::Line line;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) return absl::OkStatus();
    const absl::StatusOr<BatchRow> row = ParseBatchLine(line.text);
    if (!row.ok()) {
      return absl::DataLossError(
          absl::StrCat(path, ": line ", line.number, ": ", row.status().message()));
    }
    take(*row);
  }
}

void NoteVersion(const BatchRow& row, std::string* first, std::string* shown) {
  const std::string version = absl::StrCat(row.adapter, "/", row.version);
  if (first->empty()) {
    *first = *shown = version;
  } else if (version != *first) {
    *shown = *first + " and others";
  }
}

double LogRatio(const CompareReport::Move& move) { return std::log(move.after / move.before); }

// Keeps the `count` largest, as a heap with the least of them in front.
void NoteMove(CompareReport::Move move, size_t count, std::vector<CompareReport::Move>* largest) {
  const auto larger = [](const CompareReport::Move& a, const CompareReport::Move& b) {
    return std::abs(LogRatio(a)) > std::abs(LogRatio(b));
  };
  if (largest->size() == count) {
    if (count == 0 || !larger(move, largest->front())) return;
    std::pop_heap(largest->begin(), largest->end(), larger);
    largest->pop_back();
  }
  largest->push_back(std::move(move));
  std::push_heap(largest->begin(), largest->end(), larger);
}

std::string Percent(double share) { return absl::StrFormat("%+g %%", 100 * share); }

std::string BucketName(size_t bucket) {
  const auto& bounds = CompareReport::kBounds;
  if (bucket == 0) return "up to " + Percent(bounds[0]);
  if (bucket == bounds.size()) return "above " + Percent(bounds.back());
  return absl::StrCat(Percent(bounds[bucket - 1]), " to ", Percent(bounds[bucket]));
}

}  // namespace

absl::Status CompareOptions::Validate() const {
  if (before.empty()) return absl::InvalidArgumentError("--compare: expected a file, got nothing");
  if (after.empty()) return absl::InvalidArgumentError("--output: expected a file, got nothing");
  if (SameFile(before, after)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--compare: expected another file than --output, got ", before));
  }
  if (!(threshold > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--far: expected a share above 0, got ", threshold));
  }
  if (largest < 0 || largest > kMostMoves) {
    return absl::InvalidArgumentError(
        absl::StrCat("--largest-moves: expected 0 to ", kMostMoves, ", got ", largest));
  }
  if (!(max_far_share >= 0 && max_far_share <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-far-share: expected 0 to 1, got ", max_far_share));
  }
  return absl::OkStatus();
}

absl::StatusOr<CompareReport> CompareBatches(const CompareOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  CompareReport report;
  absl::flat_hash_map<Key, Price> prices;
  std::string first;
  RETURN_IF_ERROR(ReadRows(options.before, [&](const BatchRow& row) {
    if (row.failed()) {
      ++report.failed_before;
      return;
    }
    NoteVersion(row, &first, &report.version_before);
    prices[KeyOf(row.id)] = {.price = row.price};
  }));
  first.clear();
  double log_ratios = 0;
  RETURN_IF_ERROR(ReadRows(options.after, [&](const BatchRow& row) {
    if (row.failed()) {
      ++report.failed_after;
      return;
    }
    NoteVersion(row, &first, &report.version_after);
    const auto found = prices.find(KeyOf(row.id));
    if (found == prices.end()) {
      ++report.only_after;
      return;
    }
    found->second.seen = true;
    CompareReport::Move move = {.id = row.id, .before = found->second.price, .after = row.price};
    const double ratio = move.after / move.before;
    const double change = ratio - 1;
    ++report.both;
    report.unchanged += move.after == move.before ? 1 : 0;
    report.far += std::abs(change) > options.threshold ? 1 : 0;
    const auto& bounds = CompareReport::kBounds;
    ++report.histogram[std::lower_bound(bounds.begin(), bounds.end(), change) - bounds.begin()];
    log_ratios += std::log(ratio);
    if (move.after != move.before) {
      NoteMove(std::move(move), static_cast<size_t>(options.largest), &report.largest);
    }
  }));
  report.only_before = std::count_if(prices.begin(), prices.end(),
                                     [](const auto& entry) { return !entry.second.seen; });
  if (report.both > 0) report.mean_log_ratio = log_ratios / static_cast<double>(report.both);
  std::sort(report.largest.begin(), report.largest.end(),
            [](const CompareReport::Move& a, const CompareReport::Move& b) {
              return std::abs(LogRatio(a)) > std::abs(LogRatio(b));
            });
  return report;
}

std::string CompareReport::ToText(const CompareOptions& options) const {
  std::string text = absl::StrFormat(
      "%d prices in both: %d unchanged, %d moved by more than %g %% (%.2f %%; at most %g %% may)\n"
      "before: %s, %d rows with errors, %d prices that are gone\n"
      "after:  %s, %d rows with errors, %d prices that are new\n"
      "geometric mean of after / before: %.4f\n",
      both, unchanged, far, 100 * options.threshold, 100 * far_share(), 100 * options.max_far_share,
      version_before, failed_before, only_before, version_after, failed_after, only_after,
      std::exp(mean_log_ratio));
  for (size_t i = 0; i < histogram.size(); ++i) {
    if (histogram[i] == 0) continue;
    absl::StrAppendFormat(&text, "  %-20s %d\n", BucketName(i), histogram[i]);
  }
  if (!largest.empty()) absl::StrAppend(&text, "largest moves:\n");
  for (const Move& move : largest) {
    absl::StrAppendFormat(&text, "  %s: %g to %g (%+.1f %%)\n", move.id, move.before, move.after,
                          100 * (move.after / move.before - 1));
  }
  return text;
}

std::string CompareReport::ToJson(const CompareOptions& options) const {
  Json buckets = Json::array();
  for (size_t i = 0; i < histogram.size(); ++i) {
    buckets.push_back({{"above", i == 0 ? Json() : Json(kBounds[i - 1])},
                       {"to", i == kBounds.size() ? Json() : Json(kBounds[i])},
                       {"prices", histogram[i]}});
  }
  Json moves = Json::array();
  for (const Move& move : largest) {
    moves.push_back({{"id", move.id}, {"before", move.before}, {"after", move.after}});
  }
  const Json json = {
      {"passes", passes(options)},
      {"both", both},
      {"unchanged", unchanged},
      {"far", far},
      {"far_share", far_share()},
      {"threshold", options.threshold},
      {"max_far_share", options.max_far_share},
      {"mean_log_ratio", mean_log_ratio},
      {"before", {{"version", version_before}, {"errors", failed_before}, {"gone", only_before}}},
      {"after", {{"version", version_after}, {"errors", failed_after}, {"new", only_after}}},
      {"histogram", buckets},
      {"largest", moves}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace pricer

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

// Which versions of an adapter answer under which names: <adapters>/<name>/labels.json.
//
//   {
//     "format_version": "1.0",
//     "generation": 12,
//     "labels": {"canary": {"percent": 5.0, "version": 8}, "shadow": 8, "stable": 7},
//     "history": [{"at": "2026-01-31T12:00:00Z", "by": "...", "from": 6, "label": "stable", "to":
//     7}]
//   }
//
// The file is all the state there is: every server that polls the folder follows it, and so does
// one that starts anew. It is exchanged as a whole. No torch.

namespace pricer {

inline constexpr absl::string_view kLabelsFile = "labels.json";
// Answers calls that ask for no version.
inline constexpr absl::string_view kStableLabel = "stable";
// Answers a share of them.
inline constexpr absl::string_view kCanaryLabel = "canary";
// Prices what `stable` prices, beside it, and is compared with it.
inline constexpr absl::string_view kShadowLabel = "shadow";

inline constexpr size_t kMaxLabels = 16;
inline constexpr size_t kMaxLabelHistory = 10;
inline constexpr int kCanaryBuckets = 10'000;

// `[a-z0-9][a-z0-9._-]{0,62}`, and not a number alone, which would look like a version;
// InvalidArgument names the rule.
absl::Status ValidateLabel(absl::string_view label);

struct LabelTarget {
  int64_t version = 0;
  // Of `canary` alone: the share of items, above 0 and at most 100.
  double percent = 100;

  bool operator==(const LabelTarget&) const = default;
};

// Whether a label can have the target; InvalidArgument names what is wrong.
absl::Status ValidateLabelTarget(absl::string_view label, const LabelTarget& target);

// Who moves a label, for the eye, and when.
struct LabelAuthor {
  std::string by;
  absl::Time at;
};

struct LabelMove {
  std::string label;
  std::optional<LabelTarget> from;  // none = the label was not there
  std::optional<LabelTarget> to;    // none = it was taken away
  LabelAuthor author;
  bool rollback = false;
};

struct AdapterLabels {
  // Grows by 1 with every change; 0 = there is no file.
  int64_t generation = 0;
  std::map<std::string, LabelTarget> labels;
  std::vector<LabelMove> history;  // the latest last

  // What a label points to, or nothing.
  std::optional<LabelTarget> Target(absl::string_view label) const;

  // Where the label was before its latest move that has not been rolled back; inside, nothing means
  // that it was not there. FailedPrecondition where the history holds no such move.
  absl::StatusOr<std::optional<LabelTarget>> BeforeLatestMove(absl::string_view label) const;

  // These change the labels and note it in the history, or return an error and change nothing.

  // Points a label to a version; nothing changes where it does already. InvalidArgument names what
  // is wrong; ResourceExhausted where there are kMaxLabels already. Where `stable` is not set and
  // another label is, it is set to `newest`, the version that it follows: whoever tries a version
  // on some items does not mean it to answer all others.
  absl::Status Set(const std::string& label, const LabelTarget& target,
                   std::optional<int64_t> newest, const LabelAuthor& author);
  // Takes a label away; NotFound where there is none.
  absl::Status Remove(const std::string& label, const LabelAuthor& author);
  // Puts it back to BeforeLatestMove; FailedPrecondition with the words of `check` where that
  // version is not there. With `from`, only away from that version: nothing changes where the
  // label's latest move has rolled it back from there already, so that it may be done again;
  // FailedPrecondition where it leads to another, or led to that one before its latest move too.
  absl::Status RollBack(const std::string& label, std::optional<int64_t> from,
                        const std::function<absl::Status(int64_t version)>& check,
                        const LabelAuthor& author);

  std::string ToJson() const;
  // DataLoss names `source`, the field and what was expected; Unimplemented for another major
  // version of the format.
  static absl::StatusOr<AdapterLabels> Parse(absl::string_view json, absl::string_view source);

 private:
  void Apply(LabelMove move);
  bool IsRolledBackFrom(absl::string_view label, int64_t version) const;
};

// Of an adapter's directory; generation 0 where it has no labels.json. Other errors as Parse and
// ReadAdapterFile.
absl::StatusOr<AdapterLabels> ReadAdapterLabels(const std::string& adapter_directory);

// Reads the file, lets `change` work on it, and exchanges it for the result: one updater at a time,
// in all processes that lock by flock. The error of `change` leaves the file as it is.
// FailedPrecondition names the path that cannot be written; Unavailable where another updater holds
// the lock for seconds. Returns what was written. Blocks.
absl::StatusOr<AdapterLabels> UpdateAdapterLabels(
    const std::string& adapter_directory,
    const std::function<absl::Status(AdapterLabels* labels)>& change);

// In which of kCanaryBuckets an item falls, by its id or, where it has none, its text: the same on
// every server. An item is the canary's where its bucket is below percent * 100.
int CanaryBucket(absl::string_view adapter, absl::string_view item);

}  // namespace pricer

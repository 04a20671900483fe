#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/batch_compare.h"
#include "client/retry.h"

namespace pricer {

struct PromotionOptions {
  // Folder of adapters, writable, that all replicas poll.
  std::string adapters;
  std::string adapter;
  // 0 = the newest in the folder.
  int64_t version = 0;
  // Share of the items that it answers before it answers all.
  double percent = 5;
  // For how long it does.
  absl::Duration hold = absl::Minutes(10);
  // For all replicas to follow a move of a label, and for one that does not answer to come back.
  absl::Duration timeout = absl::Minutes(5);

  // InvalidArgument names the flag of `pricer adapters promote`.
  absl::Status Validate() const;
};

// What a promotion asks of the servers. One thread.
struct PromotionServers {
  // Which version answers the label on each replica, or why none does.
  std::function<absl::StatusOr<std::vector<absl::StatusOr<int64_t>>>(const std::string& label)>
      versions_of_label;
  // Takes the adapter, as it is in the folder, to where the servers look; none = they look there.
  std::function<absl::Status()> bring = nullptr;
  // How a sample's prices by the second version differ from those by the first; none = no gate.
  std::function<absl::StatusOr<CompareReport>(int64_t before, int64_t after)> compare;
  // Whether such a difference may be published.
  std::function<bool(const CompareReport& report)> passes;
};

enum class PromotionEnd {
  kPromoted,  // also where it was `stable` already
  kRefused,   // the gate was not passed; `canary` is taken away again
};

// Brings a version from the folder to all calls: `canary` to it, on every replica; a sample's
// prices compared with those by `stable`; `canary` held for a while; then `stable` to it, and
// `canary` away, in one move, on every replica. What is done already is not done again, so one that
// was interrupted goes on when it is called once more. Without a `stable` the version answers all
// calls already, as the newest: the label is set, and nothing is compared or held.
//
// NotFound where there is no such version, and the error of versions_of_label, before anything is
// moved; DeadlineExceeded names the replicas that have not
// followed, or says why `bring` could not; Aborted where somebody else has moved `canary` or
// `stable` meanwhile; Cancelled = environment.stop(). All of these leave the labels as they are.
// `say` gets a line for each step.
absl::StatusOr<PromotionEnd> Promote(const PromotionOptions& options,
                                     const PromotionServers& servers,
                                     const RetryEnvironment& environment,
                                     const std::function<void(const std::string& line)>& say);

}  // namespace pricer

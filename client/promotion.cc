#include "client/promotion.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "client/folder_labels.h"
#include "model/adapter_labels.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

constexpr absl::Duration kBetweenLooks = absl::Seconds(1);

std::optional<LabelTarget> TargetOf(const AdapterLabels& labels, absl::string_view label) {
  const auto found = labels.labels.find(std::string(label));
  if (found == labels.labels.end()) return std::nullopt;
  return found->second;
}

std::string Describe(const std::optional<LabelTarget>& target) {
  return target.has_value() ? absl::StrCat("version ", target->version) : "nothing";
}

// Since when the label has led to what it leads to; none where the history does not reach so far.
std::optional<absl::Time> MovedAt(const AdapterLabels& labels, absl::string_view label) {
  for (auto move = labels.history.rbegin(); move != labels.history.rend(); ++move) {
    if (move->label == label) return move->author.at;
  }
  return std::nullopt;
}

class Promotion {
 public:
  Promotion(const PromotionOptions& options, const PromotionServers& servers,
            const RetryEnvironment& environment,
            const std::function<void(const std::string& line)>& say)
      : options_(options),
        servers_(servers),
        environment_(environment),
        say_(say),
        version_(options.version) {}

  absl::StatusOr<PromotionEnd> Run() {
    ASSIGN_OR_RETURN(const int64_t newest,
                     NewestFolderVersion(options_.adapters, options_.adapter));
    if (version_ == 0) version_ = newest;
    ASSIGN_OR_RETURN(const AdapterLabels labels, Labels());
    const std::optional<LabelTarget> stable = TargetOf(labels, kStableLabel);
    const int64_t before = stable.has_value() ? stable->version : newest;
    if (before != version_) {
      stable_ = before;
      ASSIGN_OR_RETURN(const bool passed, TryAsCanary(labels, before));
      if (!passed) return PromotionEnd::kRefused;
    } else {
      say_(absl::StrCat("version ", version_, " answers all calls already"));
    }
    const auto check = [this](const AdapterLabels& now) {
      // Without a `stable` there was nothing that somebody could have moved.
      return stable_ == 0 ? absl::OkStatus() : Check(now);
    };
    RETURN_IF_ERROR(
        PromoteFolderVersion(options_.adapters, options_.adapter, version_, check).status());
    is_canary_ = false;
    stable_ = version_;
    RETURN_IF_ERROR(AwaitReplicas(kStableLabel));
    say_(absl::StrCat("stable is version ", version_));
    return PromotionEnd::kPromoted;
  }

 private:
  absl::StatusOr<AdapterLabels> Labels() const {
    return GetFolderLabels(options_.adapters, options_.adapter);
  }

  // Whether the version may answer all calls.
  absl::StatusOr<bool> TryAsCanary(const AdapterLabels& labels, int64_t before) {
    // Before anything is moved: a name that leads nowhere is no name of the servers.
    RETURN_IF_ERROR(servers_.versions_of_label(std::string(kStableLabel)).status());
    const LabelTarget target = {.version = version_, .percent = options_.percent};
    AdapterLabels moved = labels;
    if (TargetOf(labels, kCanaryLabel) != target) {
      ASSIGN_OR_RETURN(moved, SetFolderLabel(options_.adapters, options_.adapter,
                                             std::string(kCanaryLabel), target));
    }
    is_canary_ = true;
    RETURN_IF_ERROR(AwaitReplicas(kCanaryLabel));
    say_(absl::StrFormat("canary is version %d, for %g %% of the items", version_,
                         options_.percent));
    if (servers_.compare) {
      ASSIGN_OR_RETURN(const CompareReport report, servers_.compare(before, version_));
      if (!servers_.passes(report)) {
        RETURN_IF_ERROR(CheckLabels());
        RETURN_IF_ERROR(
            RemoveFolderLabel(options_.adapters, options_.adapter, std::string(kCanaryLabel))
                .status());
        RETURN_IF_ERROR(Bring());
        say_("the gate is not passed: canary is taken away");
        return false;
      }
    }
    RETURN_IF_ERROR(Hold(MovedAt(moved, kCanaryLabel).value_or(environment_.clock->Now())));
    return true;
  }

  // As long as it is held, all replicas must answer by it.
  absl::Status Hold(absl::Time since) {
    const absl::Time end = since + options_.hold;
    if (environment_.clock->Now() < end) {
      say_(absl::StrCat("held until ", absl::FormatTime("%H:%M:%SZ", end, absl::UTCTimeZone())));
    }
    while (environment_.clock->Now() < end) {
      RETURN_IF_ERROR(AwaitReplicas(kCanaryLabel));
      RETURN_IF_ERROR(Sleep(std::min(5 * kBetweenLooks, end - environment_.clock->Now())));
    }
    return absl::OkStatus();
  }

  absl::Status Bring() const {
    if (!servers_.bring) return absl::OkStatus();
    const absl::Time end = environment_.clock->Now() + options_.timeout;
    for (;;) {
      const absl::Status brought = servers_.bring();
      if (brought.ok()) return brought;
      if (environment_.clock->Now() >= end) {
        return absl::DeadlineExceededError(
            absl::StrCat("labels could not be taken to the servers within ",
                         absl::FormatDuration(options_.timeout), ": ", brought.message()));
      }
      RETURN_IF_ERROR(Sleep(kBetweenLooks));
    }
  }

  absl::Status AwaitReplicas(absl::string_view label) {
    RETURN_IF_ERROR(Bring());
    const absl::Time end = environment_.clock->Now() + options_.timeout;
    for (;;) {
      RETURN_IF_ERROR(CheckLabels());
      std::vector<std::string> behind;
      const auto versions = servers_.versions_of_label(std::string(label));
      if (versions.ok()) {
        for (const absl::StatusOr<int64_t>& version : *versions) {
          if (!version.ok()) {
            behind.emplace_back(version.status().message());
          } else if (*version != version_) {
            behind.push_back(absl::StrCat("version ", *version, " answers"));
          }
        }
        if (behind.empty()) return absl::OkStatus();
      } else if (absl::IsInvalidArgument(versions.status())) {
        return versions.status();
      } else {
        behind.emplace_back(versions.status().message());
      }
      if (environment_.clock->Now() >= end) {
        return absl::DeadlineExceededError(
            absl::StrCat(label, " to version ", version_, ": not followed within ",
                         absl::FormatDuration(options_.timeout), " by ", behind.size(),
                         " of the replicas: ", absl::StrJoin(behind, "; ")));
      }
      RETURN_IF_ERROR(Sleep(kBetweenLooks));
    }
  }

  // That nobody else has moved what this moves.
  absl::Status CheckLabels() const {
    ASSIGN_OR_RETURN(const AdapterLabels labels, Labels());
    return Check(labels);
  }
  absl::Status Check(const AdapterLabels& labels) const {
    const std::optional<LabelTarget> canary = TargetOf(labels, kCanaryLabel);
    if (is_canary_ && (!canary.has_value() || canary->version != version_)) {
      return absl::AbortedError(absl::StrCat("canary: expected version ", version_, ", got ",
                                             Describe(canary), ": somebody has moved it"));
    }
    const std::optional<LabelTarget> stable = TargetOf(labels, kStableLabel);
    if (!stable.has_value() || stable->version != stable_) {
      return absl::AbortedError(absl::StrCat("stable: expected version ", stable_, ", got ",
                                             Describe(stable), ": somebody has moved it"));
    }
    return absl::OkStatus();
  }

  absl::Status Sleep(absl::Duration duration) const {
    if (environment_.stop && environment_.stop()) return absl::CancelledError("interrupted");
    environment_.sleep(duration);
    return absl::OkStatus();
  }

  const PromotionOptions& options_;
  const PromotionServers& servers_;
  const RetryEnvironment& environment_;
  const std::function<void(const std::string& line)>& say_;
  int64_t version_;
  int64_t stable_ = 0;      // that `stable` must lead to meanwhile
  bool is_canary_ = false;  // whether `canary` must lead to the version
};

}  // namespace

absl::Status PromotionOptions::Validate() const {
  if (adapters.empty()) return absl::InvalidArgumentError("--adapters: expected a folder");
  RETURN_IF_ERROR(ValidateAdapterName(adapter));
  if (!(percent > 0 && percent <= 100)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--percent: expected above 0 and at most 100, got ", percent));
  }
  if (hold < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--hold: expected no negative duration");
  }
  if (timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--timeout: expected more than 0s");
  }
  return absl::OkStatus();
}

absl::StatusOr<PromotionEnd> Promote(const PromotionOptions& options,
                                     const PromotionServers& servers,
                                     const RetryEnvironment& environment,
                                     const std::function<void(const std::string& line)>& say) {
  RETURN_IF_ERROR(options.Validate());
  return Promotion(options, servers, environment, say).Run();
}

}  // namespace pricer

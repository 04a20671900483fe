#include "server/label_mover.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

std::string Describe(const std::optional<LabelTarget>& target) {
  if (!target.has_value()) return "none";
  if (target->percent == LabelTarget().percent) return absl::StrCat(target->version);
  return absl::StrCat(target->version, " at ", target->percent, " %");
}

void LogMove(const std::string& adapter, const LabelMove& move) {
  LogInfo(move.rollback ? "label rolled back" : "label moved", {{"adapter", adapter},
                                                                {"label", move.label},
                                                                {"from", Describe(move.from)},
                                                                {"to", Describe(move.to)},
                                                                {"by", move.author.by}});
}

absl::Status Named(absl::string_view what, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

}  // namespace

LabelMover::LabelMover(std::string root, AdapterRegistry* registry, GoldenChecker* golden,
                       RefreshFunction refresh, const Clock* clock)
    : root_(std::move(root)),
      registry_(registry),
      golden_(golden),
      refresh_(std::move(refresh)),
      clock_(clock) {}

absl::StatusOr<LabelMoveResult> LabelMover::Move(const std::string& adapter,
                                                 const std::string& label,
                                                 const LabelTarget& target,
                                                 const PromotionGate& gate, const std::string& by) {
  RETURN_IF_ERROR(ValidateAdapterName(adapter));
  RETURN_IF_ERROR(ValidateLabelTarget(label, target));
  if (!(gate.max_shift >= 0 && std::isfinite(gate.max_shift))) {
    return absl::InvalidArgumentError(
        absl::StrCat("gate.max_shift: expected a number of at least 0, got ", gate.max_shift));
  }
  LabelMoveResult result;
  ASSIGN_OR_RETURN(result.shift, PassGate(adapter, label, target.version, gate));
  ASSIGN_OR_RETURN(result.labels, Update(adapter, [&](AdapterLabels* labels) -> absl::Status {
                     // Anew, since a gate takes its time.
                     RETURN_IF_ERROR(registry_->Find(adapter, target.version).status());
                     std::optional<int64_t> newest;
                     const absl::StatusOr<AdapterHandle> stable =
                         registry_->Find(adapter, std::nullopt);
                     if (stable.ok()) newest = (*stable)->key.version;
                     return labels->Set(label, target, newest, {by, clock_->Now()});
                   }));
  return result;
}

absl::StatusOr<LabelMoveResult> LabelMover::Remove(const std::string& adapter,
                                                   const std::string& label,
                                                   const std::string& by) {
  LabelMoveResult result;
  ASSIGN_OR_RETURN(result.labels, Update(adapter, [&](AdapterLabels* labels) {
                     return labels->Remove(label, {by, clock_->Now()});
                   }));
  return result;
}

absl::StatusOr<LabelMoveResult> LabelMover::RollBack(const std::string& adapter,
                                                     const std::string& label,
                                                     std::optional<int64_t> from,
                                                     const std::string& by) {
  const auto check = [&](int64_t version) { return registry_->Find(adapter, version).status(); };
  LabelMoveResult result;
  ASSIGN_OR_RETURN(result.labels, Update(adapter, [&](AdapterLabels* labels) {
                     return labels->RollBack(label, from, check, {by, clock_->Now()});
                   }));
  return result;
}

absl::StatusOr<std::optional<double>> LabelMover::PassGate(const std::string& adapter,
                                                           const std::string& label,
                                                           int64_t version,
                                                           const PromotionGate& gate) {
  ASSIGN_OR_RETURN(const AdapterHandle candidate, registry_->Find(adapter, version));
  if (gate.golden_items) {
    if (candidate->manifest.golden.empty()) {
      return absl::FailedPreconditionError("gate: the version has no golden items");
    }
    const absl::Status status = golden_->Check(candidate);
    if (absl::IsFailedPrecondition(status)) {
      return absl::AbortedError(absl::StrCat("gate: ", status.message()));
    }
    if (!status.ok()) return Named("gate", status);
  }
  std::optional<double> shift;
  if (gate.max_shift == 0) return shift;
  ASSIGN_OR_RETURN(const AdapterHandle current, Current(adapter, label));
  const absl::StatusOr<double> measured = golden_->MeanShift(candidate, current);
  if (!measured.ok()) return Named("gate", measured.status());
  shift = *measured;
  if (*shift <= gate.max_shift) return shift;
  return absl::AbortedError(absl::StrCat(
      "gate: the golden items' prices differ from version ", current->key.version, "'s by ", *shift,
      " on average, as |ln(price / price)|; at most ", gate.max_shift, " is allowed"));
}

absl::StatusOr<AdapterHandle> LabelMover::Current(const std::string& adapter,
                                                  const std::string& label) const {
  ASSIGN_OR_RETURN(const AdapterLabelStatus status, registry_->Labels(adapter));
  std::optional<int64_t> version;
  if (const auto live = status.live.find(label); live != status.live.end()) version = live->second;
  absl::StatusOr<AdapterHandle> current = registry_->Find(adapter, version);
  if (!current.ok()) return Named("gate: no version to compare with", current.status());
  return current;
}

absl::StatusOr<AdapterLabelStatus> LabelMover::Update(
    const std::string& adapter, const std::function<absl::Status(AdapterLabels*)>& change) {
  RETURN_IF_ERROR(ValidateAdapterName(adapter));
  RETURN_IF_ERROR(registry_->Labels(adapter).status());
  int64_t generation = 0;
  ASSIGN_OR_RETURN(
      const AdapterLabels written,
      UpdateAdapterLabels(absl::StrCat(root_, "/", adapter), [&](AdapterLabels* labels) {
        generation = labels->generation;
        return change(labels);
      }));
  const auto moves = static_cast<std::ptrdiff_t>(written.generation - generation);
  for (auto move = written.history.end() - moves; move != written.history.end(); ++move) {
    LogMove(adapter, *move);
  }
  refresh_(adapter);
  return registry_->Labels(adapter);
}

}  // namespace pricer

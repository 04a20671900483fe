#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "model/adapter_labels.h"
#include "server/adapter_registry.h"
#include "server/golden_checker.h"

namespace pricer {

// What a version must show before a label moves to it.
struct PromotionGate {
  // It prices its golden items as its manifest says.
  bool golden_items = false;
  // GoldenChecker::MeanShift against the version that it follows is at most this; 0 = not compared.
  double max_shift = 0;
};

struct LabelMoveResult {
  AdapterLabelStatus labels;
  // What the gate measured.
  std::optional<double> shift;
};

// Moves labels: checks the version, writes labels.json, has the registry follow it, and logs who
// moved what from where to where. Thread-safe; all calls block.
class LabelMover {
 public:
  // Makes the registry know what was just written.
  using RefreshFunction = std::function<void(const std::string& adapter)>;

  // `root` is the adapter folder. All must outlive the mover.
  LabelMover(std::string root, AdapterRegistry* registry, GoldenChecker* golden,
             RefreshFunction refresh, const Clock* clock);

  // InvalidArgument names what is wrong with label, target or gate. Where the version is not
  // available, the registry's error; Aborted where the gate is not passed; otherwise
  // AdapterLabels::Set's and UpdateAdapterLabels'. Nothing has changed then.
  absl::StatusOr<LabelMoveResult> Move(const std::string& adapter, const std::string& label,
                                       const LabelTarget& target, const PromotionGate& gate,
                                       const std::string& by);
  // NotFound where there is no such label.
  absl::StatusOr<LabelMoveResult> Remove(const std::string& adapter, const std::string& label,
                                         const std::string& by);
  // FailedPrecondition where there is nothing to go back to, or that version is not available.
  // `from` as AdapterLabels::RollBack's.
  absl::StatusOr<LabelMoveResult> RollBack(const std::string& adapter, const std::string& label,
                                           std::optional<int64_t> from, const std::string& by);

 private:
  // Nothing = there is no gate for the shift.
  absl::StatusOr<std::optional<double>> PassGate(const std::string& adapter,
                                                 const std::string& label, int64_t version,
                                                 const PromotionGate& gate);
  // What `label` follows: its own version, else that of `stable`.
  absl::StatusOr<AdapterHandle> Current(const std::string& adapter, const std::string& label) const;
  absl::StatusOr<AdapterLabelStatus> Update(
      const std::string& adapter, const std::function<absl::Status(AdapterLabels*)>& change);

  const std::string root_;
  AdapterRegistry* const registry_;
  GoldenChecker* const golden_;
  const RefreshFunction refresh_;
  const Clock* const clock_;
};

}  // namespace pricer

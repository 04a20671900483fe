#include "trainer/trainer_state.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

// Sorted keys, as json.dumps(sort_keys=True) has them.
using Json = nlohmann::json;

// What the lines add up to, in their order.
class History {
 public:
  explicit History(int64_t training_items) : training_items_(training_items) {}

  absl::Status AddLine(const Json& line, const std::string& source) {
    ASSIGN_OR_RETURN(const JsonFields fields,
                     JsonFields::Create(line, source, "", absl::StatusCode::kDataLoss));
    if (fields.Has("validation")) return AddValidation(fields);
    if (fields.Has("loss")) return AddStep(line, fields);
    return absl::OkStatus();
  }

  Json State(const TrainerStateOptions& options) const;

 private:
  double Epoch() const { return static_cast<double>(rows_) / static_cast<double>(training_items_); }
  Json NewEntry(int64_t step) const { return {{"step", step}, {"epoch", Epoch()}}; }
  absl::Status AddStep(const Json& line, const JsonFields& fields);
  absl::Status AddValidation(const JsonFields& fields);
  Json Summary() const;

  const int64_t training_items_;
  Json entries_ = Json::array();
  int64_t steps_ = 0;        // lines of steps
  int64_t last_step_ = 0;    // the number of the last one
  int64_t total_steps_ = 0;  // as planned when it was made
  int64_t rows_ = 0;
  int64_t tokens_ = 0;
  double loss_sum_ = 0;
  double seconds_ = 0;
  Json best_mae_;   // null before the first validation
  Json best_step_;  // the same
};

absl::Status History::AddStep(const Json& line, const JsonFields& fields) {
  double loss = 0;
  int64_t rows = 0;
  int64_t tokens = 0;
  RETURN_IF_ERROR(fields.Require("step", &last_step_));
  RETURN_IF_ERROR(fields.Require("total_steps", &total_steps_));
  RETURN_IF_ERROR(fields.Require("loss", &loss));
  RETURN_IF_ERROR(fields.Require("rows", &rows));
  RETURN_IF_ERROR(fields.Require("tokens", &tokens));
  RETURN_IF_ERROR(fields.Require("seconds", &seconds_));
  ++steps_;
  loss_sum_ += loss;
  rows_ += rows;
  tokens_ += tokens;
  Json entry = NewEntry(last_step_);
  for (const auto& [name, value] : line.items()) {
    if (name == "step" || name == "total_steps" || !value.is_number()) continue;
    entry[name == "gradient_norm" ? "grad_norm" : name] = value;
  }
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::Status History::AddValidation(const JsonFields& fields) {
  int64_t step = 0;
  double mae = 0;
  RETURN_IF_ERROR(fields.Require("step", &step));
  ASSIGN_OR_RETURN(const JsonFields metrics, fields.Object("validation"));
  RETURN_IF_ERROR(metrics.Require("mae", &mae));
  if (best_mae_.is_null() || mae < best_mae_.get<double>()) {
    best_mae_ = mae;
    best_step_ = step;
  }
  Json entry = NewEntry(step);
  for (const auto& [name, value] : fields.Find("validation")->items()) {
    if (value.is_number()) entry["eval_" + name] = value;
  }
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

Json History::Summary() const {
  Json entry = NewEntry(last_step_);
  entry["train_loss"] = loss_sum_ / static_cast<double>(steps_);
  entry["train_runtime"] = seconds_;
  if (seconds_ > 0) {
    entry["train_samples_per_second"] = static_cast<double>(rows_) / seconds_;
    entry["train_steps_per_second"] = static_cast<double>(steps_) / seconds_;
  }
  return entry;
}

Json History::State(const TrainerStateOptions& options) const {
  const auto begun = static_cast<int64_t>(std::ceil(Epoch()));
  Json state = {{"epoch", Epoch()},
                {"global_step", last_step_},
                {"max_steps", total_steps_},
                {"num_train_epochs", options.epochs > 0 ? options.epochs : begun},
                {"num_input_tokens_seen", tokens_},
                {"logging_steps", 1},
                {"best_metric", best_mae_},
                {"best_global_step", best_step_},
                {"best_model_checkpoint", nullptr},
                {"is_local_process_zero", true},
                {"is_world_process_zero", true},
                {"is_hyper_param_search", false},
                {"trial_name", nullptr},
                {"trial_params", nullptr},
                {"log_history", entries_}};
  if (!options.best_model_checkpoint.empty()) {
    state["best_model_checkpoint"] = options.best_model_checkpoint;
  }
  if (steps_ > 0) state["log_history"].push_back(Summary());
  return state;
}

}  // namespace

absl::StatusOr<std::string> TrainerStateJson(absl::string_view metrics, absl::string_view source,
                                             const TrainerStateOptions& options) {
  PRICER_CHECK(options.training_items >= 1);
  History history(options.training_items);
  int64_t number = 0;
  for (const absl::string_view line : absl::StrSplit(metrics, '\n')) {
    ++number;
    if (line.empty()) continue;
    const std::string place = absl::StrCat(source, ": line ", number);
    ASSIGN_OR_RETURN(const Json json, ParseJson(line, place, absl::StatusCode::kDataLoss));
    RETURN_IF_ERROR(history.AddLine(json, place));
  }
  return history.State(options).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::Status WriteTrainerState(const std::string& run_directory,
                               const TrainerStateOptions& options) {
  const std::string metrics_path = run_directory + "/metrics.jsonl";
  ASSIGN_OR_RETURN(const std::string metrics, ReadFile(metrics_path));
  ASSIGN_OR_RETURN(const std::string json, TrainerStateJson(metrics, metrics_path, options));
  return WriteFileAtomically(run_directory + "/trainer_state.json", json);
}

}  // namespace pricer

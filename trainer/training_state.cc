#include "trainer/training_state.h"

#include <ATen/core/grad_mode.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/safetensors.h"
#include "model/torch_status.h"
#include "model/weights.h"

namespace pricer {
namespace {

constexpr absl::string_view kTrainerPrefix = "trainer/";
constexpr absl::string_view kBestPrefix = "best/";
constexpr absl::string_view kBestScores = "best_scores";
constexpr absl::string_view kWatchedLosses = "watch/losses";
constexpr absl::string_view kWatchedNorms = "watch/gradient_norms";
constexpr absl::string_view kIdentityPrefix = "identity/";

std::string ShapeText(const at::Tensor& tensor) {
  return absl::StrCat(at::toString(tensor.scalar_type()), " [",
                      absl::StrJoin(tensor.sizes().vec(), ", "), "]");
}

// Whole numbers of the metadata, as texts; each is required.
class Numbers {
 public:
  Numbers(const SafetensorsFile& file, absl::Status* status) : file_(file), status_(status) {}

  int64_t operator()(absl::string_view name) const {
    int64_t number = 0;
    const auto found = file_.metadata().find(name);
    const bool read = found != file_.metadata().end() && absl::SimpleAtoi(found->second, &number);
    if (!read && status_->ok()) {
      *status_ = absl::DataLossError(
          absl::StrCat(file_.path(), ": metadata ", Quoted(name), ": expected a whole number"));
    }
    return number;
  }

 private:
  const SafetensorsFile& file_;
  absl::Status* const status_;
};

absl::StatusOr<std::vector<double>> ReadWindow(const SafetensorsFile& file,
                                               absl::string_view name) {
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end() || found->second.dtype != Dtype::kF64 ||
      found->second.shape.size() != 1) {
    return absl::DataLossError(
        absl::StrCat(file.path(), ": tensor ", Quoted(name), ": expected F64 [values], got ",
                     found == file.tensors().end() ? "none" : found->second.ToString()));
  }
  const at::Tensor values = ToTensor(found->second);
  const double* const begin = values.const_data_ptr<double>();
  return std::vector<double>(begin, begin + values.numel());
}

}  // namespace

StateTensors NamedTensors(const AdapterWeights& weights) {
  StateTensors tensors;
  for (size_t layer = 0; layer < weights.layers.size(); ++layer) {
    for (size_t p = 0; p < weights.layers[layer].size(); ++p) {
      const LoraWeights& lora = weights.layers[layer][p];
      if (!lora.defined()) continue;
      const std::string name = absl::StrCat("lora.", layer, ".", p);
      tensors[name + ".a"] = lora.a;
      tensors[name + ".b"] = lora.b;
    }
  }
  if (weights.score.defined()) tensors["score"] = weights.score;
  return tensors;
}

absl::Status FillTensors(const StateTensors& from, const StateTensors& into) {
  for (const auto& [name, tensor] : into) {
    const auto found = from.find(name);
    if (found == from.end()) {
      return absl::DataLossError(absl::StrCat("tensor ", Quoted(name), " is missing"));
    }
    const at::Tensor& saved = found->second;
    if (saved.sizes() != tensor.sizes() || saved.scalar_type() != tensor.scalar_type()) {
      return absl::DataLossError(absl::StrCat("tensor ", Quoted(name), ": expected ",
                                              ShapeText(tensor), ", got ", ShapeText(saved)));
    }
  }
  for (const auto& [name, tensor] : from) {
    if (into.count(name) == 0) {
      return absl::DataLossError(absl::StrCat("tensor ", Quoted(name), " is extra"));
    }
  }
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : into) tensor.copy_(from.at(name));
  return absl::OkStatus();
}

std::string TrainingStateFile(const std::string& directory) {
  return directory + "/state.safetensors";
}

absl::Status WriteTrainingState(const TrainingState& state, const std::string& directory) {
  const std::string path = TrainingStateFile(directory);
  // Contiguous tensors on the CPU, alive until they are written.
  StateTensors held;
  const auto hold = [&held](const std::string& name, const at::Tensor& tensor) {
    held[name] = tensor.detach().to(at::kCPU).contiguous();
  };
  RETURN_IF_ERROR(CatchTorch(path, [&]() -> absl::Status {
    for (const auto& [name, tensor] : state.trainer) {
      hold(absl::StrCat(kTrainerPrefix, name), tensor);
    }
    for (const auto& [name, tensor] : state.best) hold(absl::StrCat(kBestPrefix, name), tensor);
    if (state.best_scores.defined()) hold(std::string(kBestScores), state.best_scores);
    hold(std::string(kWatchedLosses), at::tensor(state.watch.losses, at::kDouble));
    hold(std::string(kWatchedNorms), at::tensor(state.watch.gradient_norms, at::kDouble));
    return absl::OkStatus();
  }));
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : held) tensors.push_back({name, ToView(tensor)});
  std::map<std::string, std::string> metadata = {
      {"step", absl::StrCat(state.step)},
      {"total_steps", absl::StrCat(state.total_steps)},
      {"step_nanoseconds", absl::StrCat(absl::ToInt64Nanoseconds(state.step_time))},
      {"stale_validations", absl::StrCat(state.stale_validations)},
      {"validated", absl::StrCat(state.validated ? 1 : 0)},
      {"best_step", absl::StrCat(state.best_step)}};
  for (const auto& [name, text] : state.identity) {
    metadata[absl::StrCat(kIdentityPrefix, name)] = text;
  }
  return WriteSafetensors(path, tensors, metadata);
}

absl::StatusOr<TrainingState> ReadTrainingState(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                   SafetensorsFile::Open(TrainingStateFile(directory)));
  TrainingState state;
  absl::Status status;
  const Numbers number(*file, &status);
  state.step = number("step");
  state.total_steps = number("total_steps");
  state.step_time = absl::Nanoseconds(number("step_nanoseconds"));
  state.stale_validations = number("stale_validations");
  state.validated = number("validated") != 0;
  state.best_step = number("best_step");
  RETURN_IF_ERROR(status);
  for (const auto& [name, text] : file->metadata()) {
    absl::string_view rest = name;
    if (absl::ConsumePrefix(&rest, kIdentityPrefix)) state.identity[std::string(rest)] = text;
  }
  RETURN_IF_ERROR(CatchTorch(file->path(), [&]() -> absl::Status {
    ASSIGN_OR_RETURN(state.watch.losses, ReadWindow(*file, kWatchedLosses));
    ASSIGN_OR_RETURN(state.watch.gradient_norms, ReadWindow(*file, kWatchedNorms));
    for (const auto& [name, view] : file->tensors()) {
      absl::string_view rest = name;
      if (absl::ConsumePrefix(&rest, kTrainerPrefix)) {
        state.trainer[std::string(rest)] = ToTensor(view);
      } else if (absl::ConsumePrefix(&rest, kBestPrefix)) {
        state.best[std::string(rest)] = ToTensor(view);
      } else if (name == kBestScores) {
        state.best_scores = ToTensor(view);
      } else if (name != kWatchedLosses && name != kWatchedNorms) {
        return absl::DataLossError(
            absl::StrCat(file->path(), ": tensor ", Quoted(name), " is extra"));
      }
    }
    return absl::OkStatus();
  }));
  const bool has_scores = state.best_scores.defined() && state.best_scores.dim() == 2 &&
                          state.best_scores.scalar_type() == at::kFloat;
  if ((state.best_step > 0) != has_scores) {
    return absl::DataLossError(absl::StrCat(file->path(), ": best_step is ", state.best_step, ", ",
                                            has_scores ? "with" : "without", " fp32 scores"));
  }
  return state;
}

absl::Status CheckSameIdentity(const std::map<std::string, std::string>& saved,
                               const std::map<std::string, std::string>& now) {
  for (const auto& [name, text] : now) {
    const auto found = saved.find(name);
    if (found == saved.end() || found->second == text) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(name, " was ", Quoted(found->second), " when the run began and is ",
                     Quoted(text), " now; a run goes on only with what it began with"));
  }
  return absl::OkStatus();
}

}  // namespace pricer

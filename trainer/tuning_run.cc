#include "trainer/tuning_run.h"

#include <ATen/Parallel.h>

#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/build_info.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "catalog/median.h"
#include "model/torch_status.h"
#include "trainer/checkpoint_store.h"
#include "trainer/gemm_rate.h"
#include "trainer/inference.h"
#include "trainer/option_checks.h"
#include "trainer/process_group.h"
#include "trainer/publication.h"
#include "trainer/run_folder.h"
#include "trainer/run_log.h"
#include "trainer/step_reporter.h"
#include "trainer/trainer_state.h"
#include "trainer/training_state.h"
#include "trainer/tuning_group.h"
#include "trainer/tuning_inputs.h"
#include "trainer/tuning_memory.h"
#include "trainer/tuning_validation.h"

namespace pricer {
namespace {

absl::StatusOr<PeftAdapter> NewAdapter(const TuningOptions& options, const BaseModel& base) {
  PeftConfig config = LoraConfigOf(options);
  config.base_model_name = base.name;
  const int bins = config.task == PeftTask::kSeqCls ? options.bins : 0;
  return MakeAdapter(config, base.checkpoint->config(), bins, options.seed);
}

// Of the base's answer states, over the first training items.
absl::StatusOr<at::Tensor> MeanAnswerState(const Network& network, const TuningInputs& inputs,
                                           int64_t batch_tokens) {
  constexpr size_t kMeanItems = 64;
  std::vector<Prompt> prompts;
  for (const Example& example : inputs.train.examples) {
    if (prompts.size() == kMeanItems) break;
    prompts.push_back(example.ids);
  }
  at::Tensor sum = at::zeros({network.config().hidden_size}, at::kFloat);
  const auto add = [&](int64_t, const at::Tensor& hidden) -> absl::Status {
    sum += hidden.to(at::kFloat).sum(0).cpu();
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(ForEachBatch(network, /*weights=*/nullptr, prompts, batch_tokens, add));
  return sum / static_cast<double>(prompts.size());
}

absl::StatusOr<HeadBasis> MakeHeadBasis(const TuningOptions& options, const TuningInputs& inputs,
                                        const Network& network, ProcessGroup* group) {
  if (inputs.tokens.has_value() || options.head_basis == "rows") return HeadBasis::Rows();
  ASSIGN_OR_RETURN(const at::Tensor mean,
                   MeanAnswerState(network, inputs, options.micro_batch_tokens));
  RETURN_IF_ERROR(group->Broadcast(mean));
  return CatchTorch("head coordinates", [&]() -> absl::StatusOr<HeadBasis> {
    return HeadBasis::Cosine(options.bins, mean);
  });
}

// Checkpoints of a run, and what it goes on from. Only rank 0 has a log.
struct Resumption {
  CheckpointStore store;
  std::map<std::string, std::string> identity;
  std::optional<TrainingState> state;
};

absl::Status SaveState(const Resumption& run, const Trainer& trainer, const TrainPosition& position,
                       const TrainOutcome& outcome, const StepReporter& reporter) {
  TrainingState state;
  state.step = trainer.step();
  state.total_steps = position.total_steps;
  state.step_time = position.step_time;
  state.stale_validations = position.stale_validations;
  state.validated = position.validated;
  state.trainer = trainer.State();
  state.watch = reporter.watch_state();
  state.identity = run.identity;
  if (outcome.best_validation.has_value()) {
    state.best = NamedTensors(outcome.best);
    state.best_step = outcome.best_step;
    state.best_scores = ToMatrix(outcome.best_validation->scores);
  }
  return run.store.Save(state.step, [&](const std::string& directory) {
    return WriteTrainingState(state, directory);
  });
}

// Puts trainer and outcome where the saved run was.
absl::StatusOr<TrainPosition> Restore(const TrainingState& state, const TuningInputs& inputs,
                                      Trainer* trainer, TrainOutcome* outcome) {
  RETURN_IF_ERROR(trainer->Restore(state.trainer, state.step));
  if (state.best_step > 0) {
    outcome->best = trainer->CopyWeights();
    RETURN_IF_ERROR(FillTensors(state.best, NamedTensors(outcome->best)));
    outcome->best_step = state.best_step;
    ASSIGN_OR_RETURN(outcome->best_validation, Score(inputs, ToRows(state.best_scores)));
  }
  return TrainPosition{.total_steps = state.total_steps,
                       .step_time = state.step_time,
                       .stale_validations = state.stale_validations,
                       .validated = state.validated};
}

absl::StatusOr<std::unique_ptr<StepReporter>> MakeReporter(const TuningOptions& options,
                                                           const TuningInputs& inputs,
                                                           const Network& network,
                                                           const Resumption& run,
                                                           const Trainer& trainer, RunLog* log) {
  StepReporter::Options reporting;
  reporting.steps_before = trainer.step();
  if (run.state.has_value()) {
    reporting.time_before = run.state->step_time;
    reporting.watch = run.state->watch;
  }
  ASSIGN_OR_RETURN(const double rate, MeasureGemmRate(network, options.micro_batch_tokens));
  reporting.gemm_rate = rate * trainer.group()->size();
  return StepReporter::Create(log, &inputs.train, reporting);
}

absl::Status TrainAdapter(const TuningOptions& options, const TuningInputs& inputs,
                          const Network& network, const Resumption& run, Trainer* trainer,
                          RunLog* log, TrainOutcome* outcome) {
  ProcessGroup* const group = trainer->group();
  constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
  const int64_t default_epochs = options.max_steps > 0 ? kUnlimited : 1;
  Sampler sampler(inputs.train.Lengths(),
                  {.seed = options.seed,
                   .epochs = options.epochs > 0 ? options.epochs : default_epochs,
                   .batch_tokens = options.batch_tokens,
                   .batch_items = options.batch_items,
                   .order = options.order});
  TrainPlan plan;
  plan.max_steps = options.max_steps > 0 ? options.max_steps : kUnlimited;
  plan.micro_batch_tokens = options.micro_batch_tokens;
  plan.validation_every = options.validation_every;
  if (options.max_minutes > 0) plan.time_budget = absl::Minutes(options.max_minutes);
  plan.patience = options.patience;
  plan.save_interval = absl::Minutes(options.save_minutes);
  if (run.state.has_value()) {
    ASSIGN_OR_RETURN(plan.resumed, Restore(*run.state, inputs, trainer, outcome));
  }
  TrainHooks hooks;
  std::unique_ptr<StepReporter> reporter;
  if (log != nullptr) {
    ASSIGN_OR_RETURN(reporter, MakeReporter(options, inputs, network, run, *trainer, log));
    hooks.save = [&](const TrainPosition& position, const TrainOutcome& reached) {
      return SaveState(run, *trainer, position, reached, *reporter);
    };
  }
  hooks.validate = [&](const AdapterWeights& weights) {
    return Validate(network, inputs, weights, options.micro_batch_tokens, group);
  };
  hooks.on_step = [&](const StepResult& result, int64_t total) {
    return reporter == nullptr ? absl::OkStatus() : reporter->Step(result, total);
  };
  hooks.on_validation = [&](int64_t step, const Metrics& metrics) {
    return reporter == nullptr ? absl::OkStatus() : reporter->Validated(step, metrics);
  };
  hooks.make_micro_batch = [&](absl::Span<const int64_t> indices) {
    return inputs.tokens.has_value()
               ? MakeTokenMicroBatch(inputs.train.examples, indices)
               : MakeBinsMicroBatch(inputs.train.examples, indices, inputs.bins);
  };
  hooks.name_row = [&](int64_t index) { return inputs.train.NameOf(index); };
  hooks.stop = InterruptRequested;
  return Train(trainer, &sampler, plan, hooks, outcome);
}

Manifest NewManifest(const TuningOptions& options, const TuningInputs& inputs,
                     const Network& network, const TrainOutcome& outcome) {
  Manifest manifest = inputs.Reader();
  manifest.base_fingerprint = inputs.fingerprint;
  manifest.base_name = inputs.base.name;
  manifest.weights = std::string(WeightsKindName(network.options().weights));
  manifest.dtype = std::string(ComputeDtypeName(network.options().dtype));
  manifest.prompt = inputs.prompt;
  manifest.currency = options.currency;
  manifest.data_digest = inputs.data_digest;
  manifest.trainer_version = std::string(BuildVersion());
  for (auto& [name, value] : ResultOptions(options)) manifest.trainer_options[name] = value;
  manifest.trainer_options["steps"] = absl::StrCat(outcome.steps);
  manifest.trainer_options["published_step"] = absl::StrCat(outcome.best_step);
  return manifest;
}

// Keeps in the run's folder what cannot be published where it should be, as a version that can be
// evaluated and copied into place. `failure` with the place added.
absl::Status KeepInRun(const absl::Status& failure, const PeftAdapter& tuned, Manifest manifest,
                       int64_t step, const std::string& folder, const std::string& name) {
  const auto kept = PublishAdapter(tuned, std::move(manifest), folder, name);
  return absl::Status(
      failure.code(),
      absl::StrCat(failure.message(), "; the best tensors, those after step ", step,
                   kept.ok() ? ", are kept in " : ", could not be kept either: ",
                   kept.ok() ? kept->directory : std::string(kept.status().message())));
}

// What decides the bits of a run and is known before the data is read.
std::map<std::string, std::string> IdentityOf(const TuningOptions& options,
                                              const TuningInputs& inputs) {
  std::map<std::string, std::string> identity = {
      {"base", inputs.fingerprint},
      {"weights", options.base.weights},
      {"dtype", std::string(ComputeDtypeName(*ComputeDtypeOf(options.base)))},
      {"device", ParseDevice(options.base.device)->is_cpu() ? "cpu" : "cuda"},
      {"threads",
       absl::StrCat(options.base.threads > 0 ? options.base.threads : at::get_num_threads())},
      {"currency", options.currency},
      {"question", inputs.prompt.question},
      {"prefix", inputs.prompt.prefix},
      {"max_prompt_tokens", absl::StrCat(inputs.prompt.max_prompt_tokens)}};
  for (auto& [name, text] : ResultOptions(options)) identity[name] = text;
  return identity;
}

absl::Status InRun(const TuningOptions& options, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat("--resume ", options.resume, ": ", status.message()));
}

absl::Status RecordPublication(const std::string& run_directory, const PublishedVersion& version) {
  const nlohmann::ordered_json json = {{"directory", version.directory},
                                       {"version", version.version}};
  return WriteFileAtomically(
      PublishedFile(run_directory),
      json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

// The newest checkpoint of the run that is to go on.
absl::StatusOr<TrainingState> FindState(const TuningOptions& options, const Resumption& run) {
  if (IsPublished(options.resume)) {
    return absl::FailedPreconditionError(
        absl::StrCat("--resume ", options.resume, ": the run is done; what it published stands in ",
                     PublishedFile(options.resume)));
  }
  const absl::StatusOr<CheckpointStore::Found> found = run.store.FindNewest();
  RETURN_IF_ERROR(InRun(options, found.status()));
  for (const std::string& broken : found->skipped) LogWarning(absl::StrCat("passed over ", broken));
  absl::StatusOr<TrainingState> state = ReadTrainingState(found->directory);
  RETURN_IF_ERROR(InRun(options, state.status()));
  RETURN_IF_ERROR(InRun(options, CheckSameIdentity(state->identity, run.identity)));
  absl::FPrintF(stderr, "going on from %s: %d of %d steps are done\n", found->directory,
                state->step, state->total_steps);
  return state;
}

// The run's figures for other tools. What it publishes does not hang on them, and they are in
// metrics.jsonl too, so that it goes on without.
void LeaveTrainerState(const TuningOptions& options, const TuningInputs& inputs,
                       const std::string& run_directory, const std::string& published) {
  TrainerStateOptions state;
  state.training_items = static_cast<int64_t>(inputs.train.examples.size());
  state.epochs = options.epochs == 0 && options.max_steps == 0 ? 1 : options.epochs;
  if (!published.empty()) {
    std::error_code ignored;  // which leaves the path empty
    state.best_model_checkpoint = std::filesystem::relative(published, run_directory, ignored);
  }
  const absl::Status written = WriteTrainerState(run_directory, state);
  if (!written.ok()) LogWarning(written.message());
}

// Cancelled where the run was interrupted; `outcome` then says how far it came.
// `log` is null on all ranks but 0, which have files that they reject in `directory`.
absl::Status TuneAndPublish(const TuningOptions& options, TuningInputs inputs, PeftAdapter adapter,
                            Resumption run, RunLog* log, const std::string& directory,
                            ProcessGroup* group, TuningOutcome* outcome) {
  ASSIGN_OR_RETURN(run.state, ShareState(std::move(run.state), group));
  if (run.state.has_value()) {
    outcome->resumable = true;
    outcome->steps = run.state->step;
  }
  RETURN_IF_ERROR(LoadData(options, directory, &inputs));
  run.identity["data"] = inputs.data_digest;
  RETURN_IF_ERROR(CheckSameOnAllRanks(run.identity, group));
  if (run.state.has_value()) {
    RETURN_IF_ERROR(InRun(options, CheckSameIdentity(run.state->identity, run.identity)));
  }
  outcome->rejects = inputs.train.summary.rejects + inputs.validation.summary.rejects;
  if (group->leads()) DescribeInputs(options, inputs);
  BaseOptions base = options.base;
  if (options.memory_budget_bytes.has_value()) {
    ASSIGN_OR_RETURN(const TuningFit fit, FitMemoryBudget(options, inputs));
    if (group->leads()) DescribeFit(options, fit);
    outcome->recomputed_layers = fit.recomputed_layers;
    base.resident = fit.place == WeightsPlace::kGpuInNf4 ? "nf4" : "bf16";
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Network> network,
                   LoadNetwork(inputs.base, base, /*weights=*/"nf4"));
  const PeftConfig config = adapter.config;
  ASSIGN_OR_RETURN(const HeadBasis head_basis, MakeHeadBasis(options, inputs, *network, group));
  Trainer::Options training = options.training;
  training.dropout_seed = options.seed;
  training.recomputed_layers = outcome->recomputed_layers;
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::Create(network.get(), std::move(adapter), training, head_basis, group));
  TrainOutcome trained;
  absl::Status status = TrainAdapter(options, inputs, *network, run, trainer.get(), log, &trained);
  if (log != nullptr) LeaveTrainerState(options, inputs, directory, /*published=*/"");
  outcome->steps = trained.steps;
  outcome->out_of_patience = trained.out_of_patience;
  const bool saved = absl::IsUnavailable(status) || (trained.stopped && status.ok());
  if (saved && trained.steps > 0) outcome->resumable = true;
  if (trained.stopped && status.ok()) status = absl::CancelledError("tuning");
  if (absl::IsCancelled(status) || absl::IsUnavailable(status) || log == nullptr ||
      !trained.best_validation.has_value()) {
    return status;
  }

  outcome->best_step = trained.best_step;
  outcome->validation = trained.best_validation->metrics;
  Manifest manifest = NewManifest(options, inputs, *network, trained);
  RETURN_IF_ERROR(Calibrate(inputs.validation, trained.best_validation->scores,
                            Median(inputs.train.Prices()), &manifest));
  const PeftAdapter tuned{.config = config, .weights = std::move(trained.best)};
  if (status.ok()) {
    auto published = PublishAdapter(tuned, manifest, options.output, options.name);
    status = published.status();
    if (status.ok()) {
      outcome->published = *std::move(published);
      LeaveTrainerState(options, inputs, directory, outcome->published.directory);
      return RecordPublication(directory, outcome->published);
    }
  }
  return KeepInRun(status, tuned, std::move(manifest), outcome->best_step, directory + "/adapters",
                   options.name);
}

struct OpenedRun {
  std::optional<RunLog> log;  // rank 0's
  Resumption resumption;
};

// A new run, or the one that is to go on.
absl::StatusOr<OpenedRun> OpenRun(const TuningOptions& options, const TuningInputs& inputs) {
  if (options.launch.rank > 0) {
    return OpenedRun{std::nullopt,
                     {CheckpointStore("", 1), IdentityOf(options, inputs), std::nullopt}};
  }
  if (options.resume.empty()) {
    ASSIGN_OR_RETURN(RunLog log, RunLog::Create(options.runs, options.name));
    RETURN_IF_ERROR(log.WriteOptions(AllOptions(options, inputs.prompt)));
    CheckpointStore store(CheckpointsOf(log.directory()), options.keep_checkpoints);
    return OpenedRun{std::move(log), {std::move(store), IdentityOf(options, inputs), std::nullopt}};
  }
  Resumption resumption{
      .store = CheckpointStore(CheckpointsOf(options.resume), options.keep_checkpoints),
      .identity = IdentityOf(options, inputs),
      .state = std::nullopt};
  ASSIGN_OR_RETURN(resumption.state, FindState(options, resumption));
  absl::StatusOr<RunLog> log = RunLog::Reopen(options.resume, resumption.state->step);
  RETURN_IF_ERROR(InRun(options, log.status()));
  return OpenedRun{*std::move(log), std::move(resumption)};
}

// What rank 0 says needs no name.
std::string OfRank(const ProcessGroup& group, absl::string_view message) {
  return group.leads() ? std::string(message) : absl::StrCat("rank ", group.rank(), ": ", message);
}

absl::StatusOr<TuningOutcome> RunTogether(const TuningOptions& options, ProcessGroup* group) {
  ASSIGN_OR_RETURN(TuningInputs inputs, OpenInputs(options));
  // A run that cannot be should not read its data first.
  if (options.memory_budget_bytes.has_value()) {
    RETURN_IF_ERROR(FitMemoryBudget(options, inputs).status());
  }
  ASSIGN_OR_RETURN(PeftAdapter adapter, NewAdapter(options, inputs.base));
  if (group->leads()) {
    // What was tuned for hours must find a place.
    RETURN_IF_ERROR(
        MakeOutputDirectory("--output", absl::StrCat(options.output, "/", options.name)));
  }
  ASSIGN_OR_RETURN(OpenedRun run, OpenRun(options, inputs));
  std::optional<TemporaryDirectory> aside;
  TuningOutcome outcome;
  if (run.log.has_value()) {
    outcome.run_directory = run.log->directory();
  } else {
    ASSIGN_OR_RETURN(TemporaryDirectory made,
                     TemporaryDirectory::Create(std::filesystem::temp_directory_path()));
    aside.emplace(std::move(made));
  }
  RunLog* const log = run.log.has_value() ? &*run.log : nullptr;
  const absl::Status status =
      TuneAndPublish(options, std::move(inputs), std::move(adapter), std::move(run.resumption), log,
                     aside.has_value() ? aside->path() : outcome.run_directory, group, &outcome);
  outcome.interrupted = absl::IsCancelled(status);
  if (absl::IsUnavailable(status) && outcome.resumable) {
    outcome.interrupted = true;
    outcome.lost = OfRank(*group, status.message());
  }
  if (!outcome.interrupted) RETURN_IF_ERROR(status);
  return outcome;
}

}  // namespace

absl::StatusOr<TuningOutcome> RunTuning(const TuningOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  ASSIGN_OR_RETURN(const std::unique_ptr<ProcessGroup> group,
                   ProcessGroup::Join(options.launch, {.rank_timeout = options.rank_timeout}));
  absl::StatusOr<TuningOutcome> outcome = RunTogether(options, group.get());
  if (outcome.ok()) return outcome;
  return absl::Status(outcome.status().code(), OfRank(*group, outcome.status().message()));
}

}  // namespace pricer

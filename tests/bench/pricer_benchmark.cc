// Our side of tests/bench/run, which starts one process for each thing it measures and gives them
// work by turns: one JSON object a line on standard input, one answer a line on standard output.
// Every answer has `peak_rss_bytes`; the first one says what runs. An error ends the process.
//   prepare    writes the items that both sides work on, and ends
//   forward    {"items": [rows], "logits": FILE or ""} -> {"seconds", "tokens"}
//   tune       {"items": [rows]} -> {"seconds", "tokens", "loss", "gradient_norm"}
//   read       {"path": FILE} -> {"seconds", "rows", "tokens"}, as tuning reads its items
//   products   {"tokens": T, "backward": false} -> {"fused_seconds", "separate_seconds",
//   "packed_seconds", "flops"}

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/adapter.h"
#include "model/tensor_memory.h"
#include "model/torch_status.h"
#include "tests/bench/bench_items.h"
#include "tests/bench/matrix_products.h"
#include "trainer/base_model.h"
#include "trainer/dataset.h"
#include "trainer/inference.h"
#include "trainer/sampler.h"
#include "trainer/trainer.h"

namespace pricer {
namespace {

using Json = nlohmann::json;
using Handler = std::function<absl::StatusOr<Json>(const Json& command)>;

struct ServeOptions {
  BaseOptions base;
  std::string items;
  std::string adapter;
  int64_t batch_tokens = 2048;
  int64_t micro_batch_tokens = 1024;
  double learning_rate = 2e-4;
  double head_learning_rate = 5e-4;
};

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

absl::StatusOr<int64_t> PeakRssBytes() {
  ASSIGN_OR_RETURN(const std::string status, ReadFile("/proc/self/status"));
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    int64_t kibibytes = 0;
    if (absl::ConsumePrefix(&line, "VmHWM:") && absl::ConsumeSuffix(&line, "kB") &&
        absl::SimpleAtoi(line, &kibibytes)) {
      return kibibytes * 1024;
    }
  }
  return absl::NotFoundError("/proc/self/status: no line VmHWM");
}

absl::Status Answer(Json answer) {
  ASSIGN_OR_RETURN(answer["peak_rss_bytes"], PeakRssBytes());
  std::cout << answer.dump() << std::endl;
  return absl::OkStatus();
}

absl::Status Serve(const Handler& handler) {
  RETURN_IF_ERROR(Answer({{"pricer", PRICER_VERSION},
                          {"libtorch", TORCH_VERSION},
                          {"cpu_capability", at::get_cpu_capability()},
                          {"threads", at::get_num_threads()}}));
  for (std::string line; std::getline(std::cin, line);) {
    absl::StatusOr<Json> answer = absl::InternalError("not handled");
    try {
      answer = handler(Json::parse(line));
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("command ", line, ": ", error.what()));
    }
    RETURN_IF_ERROR(answer.status());
    RETURN_IF_ERROR(Answer(*std::move(answer)));
  }
  return absl::OkStatus();
}

struct Loaded {
  BenchItems items;
  std::unique_ptr<Network> network;
  PeftAdapter adapter;

  int64_t TokensOf(const std::vector<int64_t>& rows) const {
    int64_t tokens = 0;
    for (int64_t row : rows) tokens += static_cast<int64_t>(items.examples.at(row).ids.size());
    return tokens;
  }
};

absl::StatusOr<Loaded> Load(const ServeOptions& options) {
  Loaded loaded;
  ASSIGN_OR_RETURN(loaded.items, ReadBenchItems(options.items));
  ASSIGN_OR_RETURN(const BaseModel base, OpenBase(options.base, /*needs_tokenizer=*/false));
  ASSIGN_OR_RETURN(loaded.network, LoadNetwork(base, options.base, options.base.weights));
  ASSIGN_OR_RETURN(loaded.adapter, LoadPeftAdapter(options.adapter, loaded.network->config()));
  return loaded;
}

absl::Status WriteLogits(const std::string& path, const std::vector<std::vector<float>>& logits) {
  std::string bytes;
  for (const std::vector<float>& row : logits) {
    bytes.append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
  }
  return WriteFile(path, bytes);
}

absl::Status ServeForward(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const Loaded loaded, Load(options));
  return Serve([&](const Json& command) -> absl::StatusOr<Json> {
    const std::vector<int64_t> rows = command.at("items");
    const std::string path = command.at("logits");
    const auto start = std::chrono::steady_clock::now();
    std::vector<Prompt> prompts;
    for (int64_t row : rows) prompts.push_back(loaded.items.examples.at(row).ids);
    ASSIGN_OR_RETURN(const auto logits, ComputeBinLogits(*loaded.network, loaded.adapter.weights,
                                                         prompts, options.batch_tokens,
                                                         [](int64_t) { return absl::OkStatus(); }));
    const double seconds = SecondsSince(start);
    if (!path.empty()) RETURN_IF_ERROR(WriteLogits(path, logits));
    return Json{{"seconds", seconds}, {"tokens", loaded.TokensOf(rows)}};
  });
}

absl::Status ServeTune(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const Loaded loaded, Load(options));
  Trainer::Options training;
  training.learning_rate = options.learning_rate;
  training.head_learning_rate = options.head_learning_rate;
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::Create(loaded.network.get(), loaded.adapter, training));
  // So long a schedule that the rates are constant.
  trainer->set_schedule({.total_steps = std::numeric_limits<int32_t>::max(), .warmup_steps = 0});
  std::vector<int64_t> lengths;
  for (const Example& example : loaded.items.examples) {
    lengths.push_back(static_cast<int64_t>(example.ids.size()));
  }
  return Serve([&](const Json& command) -> absl::StatusOr<Json> {
    const std::vector<int64_t> rows = command.at("items");
    const int64_t tokens = loaded.TokensOf(rows);
    const auto start = std::chrono::steady_clock::now();
    std::vector<MicroBatch> micro_batches;
    for (const auto& run : SplitByTokens(rows, lengths, options.micro_batch_tokens)) {
      micro_batches.push_back(MakeBinsMicroBatch(loaded.items.examples, run, loaded.items.bins));
    }
    ASSIGN_OR_RETURN(const StepResult result, trainer->TrainStep(micro_batches));
    return Json{{"seconds", SecondsSince(start)},
                {"tokens", tokens},
                {"loss", result.loss},
                {"gradient_norm", result.gradient_norm}};
  });
}

absl::Status ServeRead(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const BaseModel base, OpenBase(options.base, /*needs_tokenizer=*/true));
  ASSIGN_OR_RETURN(PromptTemplate prompt, PromptTemplate::Preset("default", "USD"));
  prompt.max_prompt_tokens = kMaxPromptTokens;
  DatasetOptions reading;
  reading.threads = options.base.threads;
  return Serve([&](const Json& command) -> absl::StatusOr<Json> {
    const auto start = std::chrono::steady_clock::now();
    ASSIGN_OR_RETURN(const Dataset dataset,
                     LoadDataset(command.at("path"), prompt, *base.tokenizer, reading));
    const double seconds = SecondsSince(start);
    int64_t tokens = 0;
    for (const int64_t length : dataset.Lengths()) tokens += length;
    return Json{{"seconds", seconds}, {"rows", dataset.examples.size()}, {"tokens", tokens}};
  });
}

absl::Status ServeProducts(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const ModelConfig config,
                   ModelConfig::FromFile(options.base.directory + "/config.json"));
  ASSIGN_OR_RETURN(const at::ScalarType dtype, ParseComputeDtype(options.base.dtype));
  if (options.base.threads > 0) at::set_num_threads(options.base.threads);
  ASSIGN_OR_RETURN(MatrixProducts products,
                   CatchTorch("making weights", [&]() -> absl::StatusOr<MatrixProducts> {
                     return MatrixProducts(config, dtype);
                   }));
  return Serve([&](const Json& command) -> absl::StatusOr<Json> {
    const MatrixProducts::Time time =
        products.Measure(command.at("tokens"), command.at("backward"));
    return Json{{"fused_seconds", time.fused_seconds},
                {"separate_seconds", time.separate_seconds},
                {"packed_seconds", time.packed_seconds},
                {"flops", time.flops}};
  });
}

CLI::App* AddServe(CLI::App& app, const std::string& name, const std::string& about,
                   ServeOptions* options) {
  CLI::App* serve = app.add_subcommand(name, about);
  serve->add_option("--base", options->base.directory, "Checkpoint directory")->required();
  serve->add_option("--dtype", options->base.dtype, "fp32 or bf16")->required();
  serve->add_option("--threads", options->base.threads, "0 = all cores");
  if (name == "products" || name == "read") return serve;
  serve->add_option("--items", options->items, "Folder that prepare has written")->required();
  serve->add_option("--adapter", options->adapter, "PEFT directory with a bins head")->required();
  serve->add_option("--batch-tokens", options->batch_tokens, "Tokens of one forward pass");
  serve->add_option("--micro-batch-tokens", options->micro_batch_tokens,
                    "Tokens of one forward and backward pass");
  serve->add_option("--lr", options->learning_rate, "Of the LoRA matrices");
  serve->add_option("--head-lr", options->head_learning_rate, "Of the head");
  return serve;
}

CLI::App* AddPrepare(CLI::App& app, BenchItemsOptions* options) {
  CLI::App* prepare = app.add_subcommand("prepare", "Write the items that both sides work on");
  prepare->add_option("--base", options->base, "Checkpoint directory")->required();
  prepare->add_option("--data", options->data,
                      "JSON lines of items; a synthetic catalogue if not given");
  prepare->add_option("--items", options->items, "How many")->capture_default_str();
  prepare->add_option("--seed", options->seed, "Of the catalogue")->capture_default_str();
  prepare->add_option("--output", options->output, "Folder to write")->required();
  return prepare;
}

int Main(int argc, char** argv) {
  CLI::App app{"Our side of tests/bench/run"};
  app.require_subcommand(1);
  BenchItemsOptions items;
  ServeOptions serve;
  CLI::App* prepare = AddPrepare(app, &items);
  CLI::App* forward = AddServe(app, "forward", "Prices items", &serve);
  CLI::App* tune = AddServe(app, "tune", "Makes training steps", &serve);
  CLI::App* read = AddServe(app, "read", "Reads and tokenizes a file of items", &serve);
  AddServe(app, "products", "Multiplies matrices alone", &serve);
  CLI11_PARSE(app, argc, argv);
  // The linear layers are rounded to what is computed in.
  serve.base.weights = serve.base.dtype;
  const absl::Status status = prepare->parsed()   ? WriteBenchItems(items)
                              : forward->parsed() ? ServeForward(serve)
                              : tune->parsed()    ? ServeTune(serve)
                              : read->parsed()    ? ServeRead(serve)
                                                  : ServeProducts(serve);
  if (status.ok()) return 0;
  absl::FPrintF(stderr, "pricer_benchmark: %s\n", status.message());
  return 1;
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) {
  pricer::TensorMemory::Install();  // as the programs do
  return pricer::Main(argc, argv);
}

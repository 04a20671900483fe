#include "tests/bench/bench_adapters.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/adapter.h"
#include "model/adapter_directory.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

constexpr char kWrittenName[] = "written";

}  // namespace

absl::Status WriteBenchAdapters(const BenchAdapterOptions& options, const Checkpoint& base,
                                const std::string& directory) {
  PeftConfig config;
  config.task = PeftTask::kSeqCls;
  config.r = options.rank;
  config.alpha = 2.0 * static_cast<double>(options.rank);
  config.target_modules = options.targets;
  Manifest manifest;
  ASSIGN_OR_RETURN(manifest.base_fingerprint, base.Fingerprint());
  manifest.base_name = "bench";
  manifest.weights = options.weights;
  manifest.dtype = options.dtype;
  manifest.currency = "USD";
  ASSIGN_OR_RETURN(manifest.prompt, PromptTemplate::Preset("default", manifest.currency));
  manifest.bins = {.bins = 128, .min_price = 1, .max_price = 1000};
  manifest.trainer_version = "bench";
  for (int i = 0; i < kWrittenBenchAdapters; ++i) {
    ASSIGN_OR_RETURN(
        const PeftAdapter adapter,
        MakeAdapter(config, base.config(), manifest.bins.bins, static_cast<uint64_t>(i)));
    RETURN_IF_ERROR(PublishAdapter(adapter, manifest, directory, kWrittenName).status());
  }
  return absl::OkStatus();
}

void LinkBenchAdapter(const std::string& from, int64_t n, const std::string& root,
                      const std::string& name, int64_t version) {
  const fs::path directory = fs::path(root) / name / absl::StrCat(version);
  const fs::path source =
      fs::path(from) / kWrittenName / absl::StrCat(1 + n % kWrittenBenchAdapters);
  const fs::path marker = std::string(kReadyFile);
  fs::create_directories(directory);
  for (const auto& file : fs::directory_iterator(source)) {
    const fs::path file_name = file.path().filename();
    if (file_name != marker) fs::create_hard_link(file.path(), directory / file_name);
  }
  fs::create_hard_link(source / marker, directory / marker);
}

std::string BenchAdapterName(int64_t n) { return absl::StrCat("adapter-", n); }

}  // namespace pricer

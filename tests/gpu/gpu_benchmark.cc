// Measures kernels, tuning and serving at the shapes of an 8B model with random weights. Writes one
// JSON object: {"<part>": {"ok": true, figures} or {"ok": false, "error": ...}, ...}. Run by
// tests/gpu/run:
//   gpu_benchmark [--parts matmul,kernels,tuning,serving] [--seconds 60] [--json FILE] [--small]

#include <CLI/CLI.hpp>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "model/torch_status.h"
#include "tests/gpu/speed.h"
#include "tests/testing/test_gpu.h"

namespace pricer::gpu {
namespace {

using Part = absl::Status (*)(const Bench& bench, nlohmann::json* figures);

const std::map<std::string, Part>& Parts() {
  static const std::map<std::string, Part> parts = {{"matmul", MeasureMatmul},
                                                    {"kernels", MeasureKernels},
                                                    {"tuning", MeasureTuning},
                                                    {"serving", MeasureServing}};
  return parts;
}

// Whether every part that was asked for gave its figures.
bool Run(const Bench& bench, const std::vector<std::string>& names, nlohmann::json* report) {
  bool all = true;
  for (const std::string& name : names) {
    nlohmann::json figures;
    const absl::Status status = CatchTorch(name, [&] { return Parts().at(name)(bench, &figures); });
    figures["ok"] = status.ok();
    if (!status.ok()) figures["error"] = std::string(status.message());
    all = all && status.ok();
    std::cout << name << ": " << figures.dump() << std::endl;
    (*report)[name] = std::move(figures);
  }
  return all;
}

int Main(int argc, char** argv) {
  CLI::App app("Measures kernels, tuning and serving on a GPU");
  std::vector<std::string> names = {"matmul", "kernels", "tuning", "serving"};
  Bench bench;
  std::string json;
  app.add_option("--parts", names, "Which")->delimiter(',')->check([](const std::string& name) {
    return Parts().count(name) > 0 ? std::string() : "there is no part " + name;
  });
  app.add_option("--seconds", bench.part_seconds, "About as long as one part measures");
  app.add_option("--json", json, "File for the figures");
  app.add_flag("--small", bench.small, "Tiny shapes, to try the program");
  CLI11_PARSE(app, argc, argv);
  const auto gpu = testing::TestGpu::Enter();
  if (gpu == nullptr) {
    std::cerr << "no device\n";
    return 1;
  }
  bench.device = gpu->device();
  nlohmann::json report;
  const bool all = Run(bench, names, &report);
  if (!json.empty()) {
    const absl::Status written = WriteFileAtomically(json, report.dump(1) + "\n");
    if (!written.ok()) {
      std::cerr << written.message() << "\n";
      return 1;
    }
  }
  return all ? 0 : 1;
}

}  // namespace
}  // namespace pricer::gpu

int main(int argc, char** argv) { return pricer::gpu::Main(argc, argv); }

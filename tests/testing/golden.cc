#include "tests/testing/golden.h"

#include <cstdlib>
#include <iostream>
#include <limits>

#include "base/file.h"
#include "model/weights.h"

namespace pricer::testing {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << "golden file: " << value.status() << std::endl;
    std::abort();
  }
  return *std::move(value);
}

}  // namespace

std::string GoldenPath(const std::string& relative) {
  const char* root = std::getenv("PRICER_TEST_DATA");
  return std::string(root != nullptr ? root : PRICER_TEST_DATA) + "/" + relative;
}

nlohmann::json GoldenJson(const std::string& relative) {
  return nlohmann::json::parse(OrDie(ReadFile(GoldenPath(relative))));
}

GoldenTensors::GoldenTensors(const std::string& relative)
    : file_(OrDie(SafetensorsFile::Open(GoldenPath(relative)))) {}

at::Tensor GoldenTensors::Get(const std::string& name) const {
  const auto found = file_->tensors().find(name);
  if (found == file_->tensors().end()) {
    std::cerr << file_->path() << ": no tensor " << name << std::endl;
    std::abort();
  }
  return ToTensor(found->second);
}

std::vector<std::vector<int32_t>> GoldenSequences(const nlohmann::json& golden) {
  return golden.at("sequences").get<std::vector<std::vector<int32_t>>>();
}

std::unique_ptr<Checkpoint> OpenCheckpoint(const std::string& relative) {
  return OrDie(Checkpoint::Open(GoldenPath(relative)));
}

std::unique_ptr<Network> LoadNetwork(const Checkpoint& checkpoint, WeightsKind weights,
                                     at::ScalarType dtype) {
  return OrDie(Network::Load(checkpoint, {.weights = weights, .dtype = dtype}));
}

PackedBatch PackAll(const std::vector<std::vector<int32_t>>& sequences, int32_t adapter) {
  std::vector<PackedSequence> packed;
  for (const std::vector<int32_t>& ids : sequences) packed.push_back({ids, adapter});
  return Pack(packed);
}

double MaxAbsDifference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  if (a.numel() == 0) return 0;
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace pricer::testing

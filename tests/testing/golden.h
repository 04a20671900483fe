#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/network.h"
#include "model/safetensors.h"

// Access to the golden files of tests/data; failures end the process, since tests cannot go on
// without them.

namespace pricer::testing {

// Absolute path of a golden file or folder.
std::string GoldenPath(const std::string& relative);

nlohmann::json GoldenJson(const std::string& relative);

// The tensors of one golden.safetensors.
class GoldenTensors {
 public:
  explicit GoldenTensors(const std::string& relative);
  at::Tensor Get(const std::string& name) const;

 private:
  std::unique_ptr<SafetensorsFile> file_;
};

// golden.json's `sequences`.
std::vector<std::vector<int32_t>> GoldenSequences(const nlohmann::json& golden);

std::unique_ptr<Checkpoint> OpenCheckpoint(const std::string& relative);
std::unique_ptr<Network> LoadNetwork(const Checkpoint& checkpoint, WeightsKind weights,
                                     at::ScalarType dtype = at::kFloat);

// One packed batch of all sequences, each with the adapter index given.
PackedBatch PackAll(const std::vector<std::vector<int32_t>>& sequences, int32_t adapter = -1);

// Largest absolute difference; infinite where shapes differ.
double MaxAbsDifference(const at::Tensor& a, const at::Tensor& b);

}  // namespace pricer::testing

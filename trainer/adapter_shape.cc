#include "trainer/adapter_shape.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

std::vector<std::string> ProjectionNames() {
  std::vector<std::string> names;
  for (int p = 0; p < kProjectionCount; ++p) {
    const std::pair<std::string, std::string> path =
        absl::StrSplit(ProjectionPath(static_cast<Projection>(p)), '.');
    names.push_back(path.second);
  }
  return names;
}

}  // namespace

absl::StatusOr<AdapterShape> AdapterShape::Of(const PeftConfig& config, const ModelConfig& model,
                                              int64_t bins) {
  PeftConfig named = config;
  if (named.target_modules == std::vector<std::string>{std::string(kAllLinear)}) {
    named.target_modules = ProjectionNames();
  }
  for (const std::string& module : named.target_modules) {
    PeftConfig single;
    single.task = named.task;
    single.target_modules = {module};
    RETURN_IF_ERROR(single.Targets(model).status());
  }
  ASSIGN_OR_RETURN(const auto targets, named.Targets(model));
  AdapterShape shape;
  for (const auto& layer : targets) {
    std::vector<int64_t>& ranks = shape.ranks.emplace_back();
    for (const PeftConfig::Target& target : layer) ranks.push_back(target.rank);
  }
  shape.dropout = config.dropout;
  shape.bins = bins;
  return shape;
}

int64_t AdapterShape::LoraValues(const ModelConfig& model) const {
  int64_t values = 0;
  for (const std::vector<int64_t>& layer : ranks) {
    for (int p = 0; p < kProjectionCount; ++p) {
      const LinearShape linear = ProjectionShape(model, static_cast<Projection>(p));
      values += layer[p] * (linear.in + linear.out);
    }
  }
  return values;
}

int64_t AdapterShape::ScoreValues(const ModelConfig& model) const {
  return bins * model.hidden_size;
}

int64_t AdapterShape::HeadValues(const ModelConfig& model) const {
  return (cosine_head && bins > 0 ? bins - 1 : bins) * model.hidden_size;
}

int64_t AdapterShape::RecomputableLayers() const {
  const auto lowest = std::find_if(ranks.begin(), ranks.end(), [](const auto& layer) {
    return std::any_of(layer.begin(), layer.end(), [](int64_t rank) { return rank > 0; });
  });
  return std::max<int64_t>(ranks.end() - lowest - 1, 0);
}

}  // namespace pricer

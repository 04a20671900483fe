#include "tests/bench/bench_items.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "catalog/synthetic.h"
#include "trainer/base_model.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

// Four fifths of a synthetic catalogue are its training items.
int64_t CatalogueSize(int64_t training_items) { return training_items * 5 / 4 + 10; }

absl::StatusOr<std::string> ItemsFile(const BenchItemsOptions& options) {
  if (!options.data.empty()) return options.data;
  const std::string directory = options.output + "/catalogue";
  RETURN_IF_ERROR(
      WriteSyntheticCatalog(
          {.items = CatalogueSize(options.items), .seed = options.seed, .output = directory})
          .status());
  return directory + "/train.jsonl";
}

absl::StatusOr<Dataset> LoadItems(const BenchItemsOptions& options) {
  ASSIGN_OR_RETURN(const std::string path, ItemsFile(options));
  ASSIGN_OR_RETURN(const BaseModel base,
                   OpenBase({.directory = options.base, .weights = "fp32"}, true));
  ASSIGN_OR_RETURN(const PromptTemplate prompt, MakePrompt({}, "USD"));
  DatasetOptions dataset_options;
  dataset_options.limit = options.items;
  ASSIGN_OR_RETURN(Dataset dataset, LoadDataset(path, prompt, *base.tokenizer, dataset_options));
  if (static_cast<int64_t>(dataset.examples.size()) < options.items) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": ", dataset.examples.size(), " good items; ", options.items, " are wanted"));
  }
  return dataset;
}

// Runs `parse` and names `where` if it throws.
template <typename Parse>
absl::Status ParseAt(const std::string& where, Parse parse) {
  try {
    parse();
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat(where, ": ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteBenchItems(const BenchItemsOptions& options) {
  RETURN_IF_ERROR(MakeDirectories(options.output));
  ASSIGN_OR_RETURN(const Dataset dataset, LoadItems(options));
  ASSIGN_OR_RETURN(const BinsSpec bins, BinsSpec::FromPrices(dataset.Prices()));
  std::string lines;
  std::string targets;
  for (const Example& example : dataset.examples) {
    absl::StrAppend(&lines, Json{{"ids", example.ids}, {"price", example.price}}.dump(), "\n");
    const std::vector<float> target = bins.Target(example.price);
    targets.append(reinterpret_cast<const char*>(target.data()), target.size() * sizeof(float));
  }
  const Json bins_json = {{"bins", bins.bins},
                          {"min_price", bins.min_price},
                          {"max_price", bins.max_price},
                          {"sigma", bins.sigma}};
  RETURN_IF_ERROR(WriteFileAtomically(options.output + "/bins.json", bins_json.dump() + "\n"));
  RETURN_IF_ERROR(WriteFileAtomically(options.output + "/targets.f32", targets));
  return WriteFileAtomically(options.output + "/items.jsonl", lines);
}

absl::StatusOr<BenchItems> ReadBenchItems(const std::string& directory) {
  BenchItems items;
  const std::string bins_path = directory + "/bins.json";
  ASSIGN_OR_RETURN(const std::string bins_text, ReadFile(bins_path));
  RETURN_IF_ERROR(ParseAt(bins_path, [&]() {
    const Json json = Json::parse(bins_text);
    items.bins = {.bins = json.at("bins"),
                  .min_price = json.at("min_price"),
                  .max_price = json.at("max_price"),
                  .sigma = json.at("sigma")};
  }));
  RETURN_IF_ERROR(items.bins.Validate());

  const std::string items_path = directory + "/items.jsonl";
  ASSIGN_OR_RETURN(const std::string lines, ReadFile(items_path));
  for (absl::string_view line : absl::StrSplit(lines, '\n', absl::SkipEmpty())) {
    const std::string where = absl::StrCat(items_path, ":", items.examples.size() + 1);
    RETURN_IF_ERROR(ParseAt(where, [&]() {
      const Json json = Json::parse(line.begin(), line.end());
      items.examples.push_back({.ids = json.at("ids"), .price = json.at("price")});
    }));
    if (items.examples.back().ids.empty()) {
      return absl::DataLossError(absl::StrCat(where, ": no ids"));
    }
  }
  return items;
}

}  // namespace pricer

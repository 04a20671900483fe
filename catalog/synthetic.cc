#include "catalog/synthetic.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "catalog/item.h"
#include "catalog/item_json.h"
#include "catalog/median.h"
#include "catalog/random.h"
#include "catalog/synthetic_item.h"

namespace pricer {
namespace {

constexpr int64_t kMinItems = 10;
constexpr int64_t kMaxItems = 10'000'000;

// FNV-1a, 64 bits: a hash that is the same in every process.
uint64_t StableHash(absl::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

struct Part {
  std::vector<double> prices;
  std::vector<double> noiseless;
};

class Generator {
 public:
  Generator(uint64_t seed, const std::function<bool()>& stop) : random_(seed), stop_(stop) {}

  // Writes `count` items to a new file at `path`, which appears when the writer is committed.
  absl::StatusOr<AtomicFileWriter> WritePart(const std::string& path, int64_t count, Part* part) {
    ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::Create(path));
    for (int64_t i = 0; i < count; ++i) {
      if (stop_ && stop_()) return absl::CancelledError("stopped on request");
      SyntheticProduct product;
      Item item = NewItem(&product);
      const double log_price = SyntheticLogPrice(product);
      const double noisy = std::exp(log_price + kSyntheticNoiseSigma * random_.Normal());
      item.id = absl::StrFormat("item-%07d", ++made_);
      item.price = std::max(0.01, std::round(100 * noisy) / 100);
      item.currency = "USD";
      RETURN_IF_ERROR(writer.Append(ItemToJson(item) + "\n"));
      part->prices.push_back(*item.price);
      part->noiseless.push_back(std::exp(log_price));
    }
    return writer;
  }

 private:
  Item NewItem(SyntheticProduct* product) {
    for (;;) {
      *product = DrawSyntheticProduct(&random_);
      Item item = DescribeSyntheticProduct(*product, &random_);
      if (texts_.insert(StableHash(ItemText(item))).second) return item;
    }
  }

  Random random_;
  const std::function<bool()> stop_;
  absl::flat_hash_set<uint64_t> texts_;
  int64_t made_ = 0;
};

SyntheticCatalogSummary Summarize(uint64_t seed, const Part& train, const Part& validation,
                                  const Part& test) {
  SyntheticCatalogSummary summary;
  SyntheticTruth& truth = summary.truth;
  truth.seed = seed;
  truth.train = train.prices.size();
  truth.validation = validation.prices.size();
  truth.test = test.prices.size();
  truth.noise_sigma = kSyntheticNoiseSigma;
  truth.train_median = Median(train.prices);
  truth.best_reachable = ComputePriceErrors(test.prices, test.noiseless);
  truth.constant_median =
      ComputePriceErrors(test.prices, std::vector<double>(test.prices.size(), truth.train_median));
  std::vector<double> all = train.prices;
  for (const Part* part : {&validation, &test}) {
    all.insert(all.end(), part->prices.begin(), part->prices.end());
  }
  const auto [min, max] = std::minmax_element(all.begin(), all.end());
  summary.min_price = *min;
  summary.max_price = *max;
  summary.median_price = Median(std::move(all));
  return summary;
}

}  // namespace

absl::Status SyntheticCatalogOptions::Validate() const {
  if (items < kMinItems || items > kMaxItems) {
    return absl::InvalidArgumentError(
        absl::StrCat("items: expected ", kMinItems, " to ", kMaxItems, ", got ", items));
  }
  if (output.empty()) return absl::InvalidArgumentError("output: expected a directory, got \"\"");
  return absl::OkStatus();
}

absl::StatusOr<SyntheticCatalogSummary> WriteSyntheticCatalog(
    const SyntheticCatalogOptions& options, const std::function<bool()>& stop) {
  RETURN_IF_ERROR(options.Validate());
  RETURN_IF_ERROR(MakeDirectories(options.output));
  const int64_t tenth = options.items / 10;
  Generator generator(options.seed, stop);
  Part train, validation, test;
  ASSIGN_OR_RETURN(AtomicFileWriter train_file,
                   generator.WritePart(absl::StrCat(options.output, "/train.jsonl"),
                                       options.items - 2 * tenth, &train));
  ASSIGN_OR_RETURN(
      AtomicFileWriter validation_file,
      generator.WritePart(absl::StrCat(options.output, "/validation.jsonl"), tenth, &validation));
  ASSIGN_OR_RETURN(AtomicFileWriter test_file,
                   generator.WritePart(absl::StrCat(options.output, "/test.jsonl"), tenth, &test));
  const SyntheticCatalogSummary summary = Summarize(options.seed, train, validation, test);
  for (AtomicFileWriter* file : {&train_file, &validation_file, &test_file}) {
    RETURN_IF_ERROR(file->Commit());
  }
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(options.output, "/truth.json"),
                                      SyntheticTruthJson(summary.truth)));
  return summary;
}

}  // namespace pricer

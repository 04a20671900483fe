#include "client/load_call_source.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "catalog/item.h"
#include "catalog/synthetic_item.h"

namespace pricer {
namespace {

// More than the longest text, so that texts may begin at many places.
constexpr size_t kWordBytes = size_t{1} << 18;

std::string Words(Random* random) {
  std::string words;
  while (words.size() < kWordBytes) {
    const SyntheticProduct product = DrawSyntheticProduct(random);
    absl::StrAppend(&words, ItemText(DescribeSyntheticProduct(product, random)), "\n");
  }
  // So that texts may begin and end anywhere.
  std::replace_if(
      words.begin(), words.end(), [](char c) { return !absl::ascii_isascii(c); }, '-');
  return words;
}

std::vector<double> PopularityShares(size_t count, double exponent) {
  std::vector<double> shares;
  double sum = 0;
  for (size_t i = 1; i <= count; ++i) {
    shares.push_back(sum += std::pow(static_cast<double>(i), -exponent));
  }
  for (double& share : shares) share /= sum;
  return shares;
}

}  // namespace

LoadCallSource::LoadCallSource(const LoadTestOptions& options)
    : options_(options),
      random_(options.seed),
      shares_(PopularityShares(options.adapters.size(), options.zipf)),
      words_(Words(&random_)) {}

const std::string& LoadCallSource::DrawAdapter() {
  const auto found = std::upper_bound(shares_.begin(), shares_.end(), random_.Uniform());
  const auto index = static_cast<size_t>(found - shares_.begin());
  return options_.adapters[std::min(index, shares_.size() - 1)];
}

std::string LoadCallSource::DrawText() {
  if (!options_.texts.empty()) {
    return options_.texts[static_cast<size_t>(items_++) % options_.texts.size()];
  }
  const auto bytes =
      static_cast<size_t>(options_.text_bytes[random_.Index(options_.text_bytes.size())]);
  std::string text = absl::StrCat("no. ", items_++, "\n");
  if (text.size() < bytes) {
    const size_t rest = bytes - text.size();
    text.append(words_, random_.Index(words_.size() - rest + 1), rest);
  }
  return text;
}

LoadCall LoadCallSource::Next(absl::Time deadline) {
  LoadCall call;
  call.deadline = deadline;
  call.options.set_lane(options_.lane);
  // What another test has asked for may be kept.
  call.options.set_no_cache(true);
  if (!shares_.empty()) call.adapter.set_name(DrawAdapter());
  call.texts.reserve(static_cast<size_t>(options_.items_per_call));
  for (int i = 0; i < options_.items_per_call; ++i) call.texts.push_back(DrawText());
  return call;
}

}  // namespace pricer

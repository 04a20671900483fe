#pragma once

#include <memory>
#include <string>

#include "server/price_answer.h"
#include "tests/server/fakes.h"

namespace pricer::testing {

// A version with so many golden items, whose texts begin with a, b, c and so on, and whose prices
// are what the fake predictor says, times `factor`. Tolerates 0.1 %.
inline std::shared_ptr<LoadedAdapter> MakeGoldenAdapter(const std::string& name, int64_t version,
                                                        int golden_items, double factor = 1) {
  auto adapter = MakeLoadedAdapter(name, version);
  adapter->manifest.golden_tolerance = 0.001;
  const PriceAnswer answer =
      AnswerFrom(FakeDistribution(*adapter), adapter->manifest, PriceOptions());
  for (int i = 0; i < golden_items; ++i) {
    const std::string text = std::string(1, static_cast<char>('a' + i)) + " " + name;
    adapter->manifest.golden.push_back(
        {text, answer.price * factor, answer.intervals[0].low, answer.intervals[0].high});
  }
  return adapter;
}

}  // namespace pricer::testing

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/adapter.h"
#include "server/engine.h"
#include "server/predictor.h"

namespace pricer::testing {

// A version with its tensors.
struct TinyAdapter final : ModelAdapter, ModelTensors {};

// A LoRA adapter with random weights and a head of 16 bins from 5 to 500 US dollars, for the base
// in a directory. Tuned, as it claims, on fp32 weights in fp32. Same seed, same weights.
absl::StatusOr<TinyAdapter> MakeTinyAdapter(const std::string& base, uint64_t seed);

// The same without a head of bins: prices are read off the base's own.
absl::StatusOr<TinyAdapter> MakeTinyTokenAdapter(const std::string& base, uint64_t seed);

// Publishes the first as the next version of `name`, with 8 golden items whose prices `engine`
// gives, times `golden_factor`.
absl::StatusOr<PublishedVersion> PublishTinyAdapter(const std::string& base, Engine* engine,
                                                    const std::string& root,
                                                    const std::string& name, uint64_t seed,
                                                    double golden_factor = 1.0);
// The same of the second.
absl::StatusOr<PublishedVersion> PublishTinyTokenAdapter(const std::string& base, Engine* engine,
                                                         const std::string& root,
                                                         const std::string& name, uint64_t seed,
                                                         double golden_factor = 1.0);

// Places the second at <root>/<name>/1 as PEFT saves it, with an empty marker.
absl::Status PlacePlainAdapter(const std::string& base, const std::string& root,
                               const std::string& name, uint64_t seed);

}  // namespace pricer::testing

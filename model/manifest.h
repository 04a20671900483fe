#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/price_distribution.h"
#include "model/price_head.h"
#include "model/prompt.h"

namespace pricer {

inline constexpr absl::string_view kManifestFormatVersion = "1.0";

// What prices are read from: a head of bins that was trained with the adapter, or the base's own
// head, of which the whole prices 0 to 999 are read.
enum class HeadKind { kBins, kToken };

// What its prices should be, to check a loaded adapter with: the median of the distribution and its
// interval of kDefaultIntervalCoverage, both with the manifest's calibration.
struct GoldenItem {
  std::string item;  // rendered item text
  double price = 0;
  double low = 0;
  double high = 0;
};

// pricer.json: what a PEFT directory does not say about a price adapter. No time, host or path is
// in it, so that a resumed run publishes the same bytes.
struct Manifest {
  std::string base_fingerprint;  // empty = unknown
  std::string base_name;
  std::string weights;  // nf4, bf16 or fp32: what it was tuned on; empty = unknown
  std::string dtype;    // fp32 or bf16: what it was tuned in; empty = unknown
  PromptTemplate prompt;
  std::string currency;
  HeadKind head = HeadKind::kBins;
  // Of kBins. min_price and max_price stand under price_space in the file.
  BinsSpec bins;
  double temperature = 1.0;
  std::map<std::string, double> conformal;  // coverage, as text -> offset in ln(price)
  std::map<std::string, double> evaluation;
  std::vector<GoldenItem> golden;
  double golden_tolerance = 0.001;           // share of the price
  std::map<std::string, std::string> files;  // name -> sha256
  std::string trainer_version;
  std::map<std::string, std::string> trainer_options;
  std::string data_digest;

  // What PriceDistribution::CentralInterval takes for `coverage`; 0 where nothing was fitted for
  // it.
  double ConformalOffset(double coverage) const {
    for (const auto& [text, offset] : conformal) {
      double fitted = 0;
      if (absl::SimpleAtod(text, &fitted) && std::abs(fitted - coverage) < 1e-9) return offset;
    }
    return 0;
  }

  // What the scores of one item say: of kBins the logits of the bins, tempered; of kToken the
  // masses of the whole prices. InvalidArgument where they are not finite or without mass.
  absl::StatusOr<PriceDistribution> Distribution(absl::Span<const float> scores) const;

  // Sorted keys, UTF-8, two-space indent, newline at the end. Same manifest, same bytes.
  std::string ToJson() const;
  // Unknown major format version: Unimplemented, naming it. Missing or wrong fields: DataLoss
  // naming source and field.
  static absl::StatusOr<Manifest> FromJson(absl::string_view json, absl::string_view source);
};

}  // namespace pricer

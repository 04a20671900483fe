#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace pricer {

// The first number of a text that grows at its end.
struct FirstNumber {
  // Absent where there is no digit yet.
  std::optional<double> value;
  // Whether the number cannot change any more, whatever text follows.
  bool complete = false;
};

// Digits, with commas before groups of exactly three ("1,299"), and an optional fraction ("12.50",
// ".5"). Currency signs, words and signs before it are skipped: "$1,299.00" is 1299, "12,5" is 12,
// "3." is 3.
FirstNumber FindFirstNumber(absl::string_view text);

// A number as text that reads back as the same number, with 6 digits where they do.
std::string RoundTripText(double value);

}  // namespace pricer

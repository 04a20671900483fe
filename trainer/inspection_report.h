#pragma once

#include <cstdint>
#include <string>

#include "trainer/inspection.h"

namespace pricer {

// For people: a section each for base, tokenizer, memory and data, then what is warned of.
std::string InspectionText(const Inspection& inspection);

// The same as JSON with sorted keys, two-space indent and a newline at the end; sizes in bytes,
// shares as fractions, what is absent null.
std::string InspectionJson(const Inspection& inspection);

}  // namespace pricer

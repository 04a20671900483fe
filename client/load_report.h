#pragma once

#include <string>

#include "client/load_test.h"

namespace pricer {

// What a load test found, as a table to read.
std::string LoadReportText(const LoadTestResult& result);
// The same as one JSON object: times in milliseconds.
std::string LoadReportJson(const LoadTestResult& result);

}  // namespace pricer

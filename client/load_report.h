#pragma once

#include <string>

#include "client/load_test.h"

namespace pricer {

// What a load test found, as a table to read.
std::string LoadReportText(const LoadTestResult& result);
// The same as one JSON object: times in milliseconds.
std::string LoadReportJson(const LoadTestResult& result);
// A page that needs nothing beside it: charts, the same figures as tables, and the command that
// made them.
std::string LoadReportHtml(const LoadTestResult& result, const std::string& command);

}  // namespace pricer

#pragma once

#include "base/command.h"

namespace pricer {

// `evaluate`: prices the items of a file and measures the errors. See trainer/evaluation.h.
Command AddEvaluateCommand(CLI::App& parent);

}  // namespace pricer

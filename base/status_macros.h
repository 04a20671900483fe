#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Early returns for absl::Status, in Abseil's own names; Abseil 20220623 has none.

#define PRICER_CONCAT_IMPL(a, b) a##b
#define PRICER_CONCAT(a, b) PRICER_CONCAT_IMPL(a, b)

#define RETURN_IF_ERROR(expression)                                                 \
  do {                                                                              \
    if (absl::Status status_macro_value = (expression); !status_macro_value.ok()) { \
      return status_macro_value;                                                    \
    }                                                                               \
  } while (false)

#define ASSIGN_OR_RETURN(target, expression) \
  PRICER_ASSIGN_OR_RETURN_IMPL(PRICER_CONCAT(status_or_macro_, __LINE__), target, expression)

#define PRICER_ASSIGN_OR_RETURN_IMPL(name, target, expression) \
  auto name = (expression);                                    \
  if (!name.ok()) return std::move(name).status();             \
  target = *std::move(name)

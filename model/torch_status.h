#pragma once

#include <ATen/ATen.h>

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace pricer {

// Calls `body`, which returns a Status or a StatusOr, and turns what libtorch throws inside it into
// one: ResourceExhausted where memory ran out, else Internal. `what` says what was being done
// ("training step 12").
template <typename Body>
auto CatchTorch(absl::string_view what, Body&& body) -> decltype(std::forward<Body>(body)()) {
  try {
    return std::forward<Body>(body)();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    const absl::string_view reason = error.what_without_backtrace();
    // The CPU's allocator throws no class of its own.
    const bool memory = absl::StrContains(reason, "DefaultCPUAllocator: can't allocate memory");
    const std::string message = absl::StrCat(what, ": ", reason);
    return memory ? absl::ResourceExhaustedError(message) : absl::InternalError(message);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": out of memory"));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(what, ": ", error.what()));
  }
}

}  // namespace pricer

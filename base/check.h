#pragma once

#include <cstdio>
#include <cstdlib>

// Ends the process when one of our own invariants is broken. Never for input: that returns
// absl::Status.
#define PRICER_CHECK(condition)                                                          \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

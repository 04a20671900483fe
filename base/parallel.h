#pragma once

#include <cstdint>
#include <functional>

namespace pricer {

// Calls work(i) for every i from 0 to count - 1, each once and in no order, on up to `threads`
// threads, the caller's among them; 0 = as many as the machine has processors. Returns when all are
// done. For work of at least some microseconds each, which must not throw.
void ParallelFor(int64_t count, int threads, const std::function<void(int64_t)>& work);

}  // namespace pricer

#pragma once

namespace pricer {

// From now on the first SIGINT or SIGTERM is remembered and the second one ends the process as
// usual. Call once, from main, before threads start.
void CatchInterrupts();

// Whether one has come. Thread-safe.
bool InterruptRequested();

}  // namespace pricer

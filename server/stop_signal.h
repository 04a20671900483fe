#pragma once

namespace pricer {

// SIGTERM and SIGINT, for a process that has one server. Before StopSignalServing there is nothing
// to drain: the process ends at once, with 0. After it WaitForStopSignal returns; a second signal
// then ends the process at once, with 130.

// Once, before other threads start.
void InstallStopSignal();
void StopSignalServing();
void WaitForStopSignal();

}  // namespace pricer

#pragma once

// Exit codes of all programs.

namespace pricer {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
// The command line or the configuration file is wrong.
inline constexpr int kExitWrongUsage = 2;
// Done, but some rows were rejected.
inline constexpr int kExitDoneWithRejects = 3;
// What was to be checked did not pass.
inline constexpr int kExitGateNotPassed = 4;
// Interrupted; what was saved lets it go on.
inline constexpr int kExitResumable = 75;
// Interrupted, with nothing kept.
inline constexpr int kExitInterrupted = 130;

}  // namespace pricer

#include "base/interrupt.h"

#include <csignal>

namespace pricer {
namespace {

volatile std::sig_atomic_t g_requested = 0;

// The second signal, of whichever kind, ends the process as usual.
void Remember(int /*signal*/) {
  g_requested = 1;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

}  // namespace

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = Remember;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool InterruptRequested() { return g_requested != 0; }

}  // namespace pricer

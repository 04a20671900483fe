#include "base/interrupt.h"

#include <csignal>

namespace pricer {
namespace {

volatile std::sig_atomic_t g_requested = 0;

void Remember(int /*signal*/) { g_requested = 1; }

}  // namespace

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = Remember;
  sigemptyset(&action.sa_mask);
  // The handler is gone after the first signal; system calls go on.
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool InterruptRequested() { return g_requested != 0; }

}  // namespace pricer

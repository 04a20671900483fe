#include "server/stop_signal.h"

#include <semaphore.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "base/exit_codes.h"

namespace pricer {
namespace {

// What a signal handler may touch.
sem_t requested;
std::atomic<bool> serving{false};
std::atomic<bool> stopping{false};

void OnSignal(int /*signal*/) {
  if (!serving.load()) _exit(0);
  if (stopping.exchange(true)) _exit(kExitInterrupted);
  sem_post(&requested);
}

}  // namespace

void InstallStopSignal() {
  sem_init(&requested, 0, 0);
  std::signal(SIGTERM, OnSignal);
  std::signal(SIGINT, OnSignal);
}

void StopSignalServing() { serving.store(true); }

void WaitForStopSignal() {
  // Other signals interrupt the wait.
  while (sem_wait(&requested) != 0) continue;
}

}  // namespace pricer

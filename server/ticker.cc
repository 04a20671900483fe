#include "server/ticker.h"

#include <utility>

namespace pricer {

Ticker::Ticker(absl::Duration interval, std::function<void()> tick)
    : interval_(interval), tick_(std::move(tick)), thread_([this] { Run(); }) {}

Ticker::~Ticker() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void Ticker::Run() {
  while (WaitForNext()) tick_();
}

bool Ticker::WaitForNext() {
  MutexLock lock(&mutex_);
  if (!stopping_) changed_.WaitWithTimeout(&mutex_, interval_);
  return !stopping_;
}

}  // namespace pricer

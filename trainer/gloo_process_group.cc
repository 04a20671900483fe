#include <c10/util/Logging.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>
#include <string>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "trainer/heartbeats.h"
#include "trainer/process_group.h"

namespace pricer {
namespace {

using StorePointer = c10::intrusive_ptr<c10d::Store>;

// What is thrown goes on over many lines, with a stack.
std::string FirstLine(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

StorePointer OpenStore(const LaunchEnvironment& launch, bool serve, absl::Duration timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.master_port);
  options.isServer = serve;
  options.numWorkers = launch.size;
  options.waitWorkers = false;
  options.timeout = absl::ToChronoMilliseconds(timeout);
  return c10::make_intrusive<c10d::PrefixStore>(
      absl::StrCat("pricer/", launch.attempt),
      c10::make_intrusive<c10d::TCPStore>(launch.master_address, options));
}

std::shared_ptr<gloo::transport::Device> OpenDevice() {
  const std::optional<std::string> interface = EnvironmentVariable("GLOO_SOCKET_IFNAME");
  return interface.has_value() ? c10d::ProcessGroupGloo::createDeviceForInterface(*interface)
                               : c10d::ProcessGroupGloo::createDefaultDevice();
}

class GlooProcessGroup : public ProcessGroup {
 public:
  // Throws what store and backend throw.
  GlooProcessGroup(const LaunchEnvironment& launch, const Options& options)
      : ProcessGroup(launch.rank, launch.size),
        rank_timeout_(options.rank_timeout),
        serves_(launch.rank == 0 && !launch.agent_keeps_store),
        agent_keeps_store_(launch.agent_keeps_store) {
    const StorePointer store = OpenStore(launch, serves_, options.join_timeout);
    const auto gloo =
        c10d::ProcessGroupGloo::Options::create(absl::ToChronoMilliseconds(options.join_timeout));
    gloo->devices.push_back(OpenDevice());
    backend_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank(), size(), gloo);
    // Only signs of life end a wait from here on: others may be busy for hours.
    gloo->timeout = std::chrono::hours(24 * 365);
    backend_->setTimeout(gloo->timeout);
    const StorePointer beat_store =
        OpenStore(launch, /*serve=*/false, std::min(options.join_timeout, options.rank_timeout));
    beats_ = std::make_unique<Heartbeats>(rank(), size(), [beat_store](int rank, int64_t by) {
      return beat_store->add(absl::StrCat("beat/", rank), by);
    });
  }

  ~GlooProcessGroup() override {
    // The others read from the store who has stopped.
    const absl::Time end = absl::Now() + 4 * kSilence;
    while (broken_ && serves_ && absl::Now() < end &&
           static_cast<int>(beats_->SilentFor(kSilence).size()) + 1 < size()) {
      absl::SleepFor(Heartbeats::kInterval / 5);
    }
    beats_.reset();
    // Its destructor would wait for operations that nobody answers.
    if (broken_) backend_.release();
  }

  absl::Status Sum(const at::Tensor& values) override {
    std::vector<at::Tensor> tensors = {values};
    return Wait([&] { return backend_->allreduce(tensors); });
  }

  absl::Status Broadcast(const at::Tensor& values) override {
    std::vector<at::Tensor> tensors = {values};
    return Wait([&] { return backend_->broadcast(tensors); });
  }

 private:
  template <typename Start>
  absl::Status Wait(const Start& start) {
    c10::intrusive_ptr<c10d::Work> work;
    for (;;) {
      try {
        if (work == nullptr) work = start();
        work->wait(absl::ToChronoMilliseconds(Heartbeats::kInterval));
        return absl::OkStatus();
      } catch (const std::exception& error) {
        if (work == nullptr || work->isCompleted()) return Broken(FirstLine(error));
      }
      const std::vector<int> silent = beats_->SilentFor(rank_timeout_);
      if (!silent.empty()) {
        return Gone(absl::StrCat(NameRanks(silent), " has given no sign for ",
                                 absl::FormatDuration(rank_timeout_)));
      }
      if (beats_->store_silence() >= rank_timeout_) return Gone(LostStore());
    }
  }

  // A connection broke: whose falls silent is gone. The others' connections break too, since each
  // process ends that meets one.
  absl::Status Broken(const std::string& error) {
    const absl::Time end = absl::Now() + 4 * kSilence;
    while (absl::Now() < end) {
      if (beats_->store_is_gone()) return Gone(LostStore());
      const std::vector<int> silent = beats_->SilentFor(kSilence);
      if (!silent.empty()) return Gone(absl::StrCat(NameRanks(silent), " has stopped"));
      absl::SleepFor(Heartbeats::kInterval / 5);
    }
    return Gone(absl::StrCat("the connection to another rank broke: ", error));
  }

  std::string LostStore() const {
    return agent_keeps_store_ ? "torchrun's agent, which keeps the group's store, has stopped"
                              : "rank 0 has stopped";
  }

  absl::Status Gone(const std::string& what) {
    broken_ = true;
    return absl::UnavailableError(what);
  }

  // A process that has stopped is known by this.
  static constexpr absl::Duration kSilence = absl::Milliseconds(1500);

  const absl::Duration rank_timeout_;
  const bool serves_;
  const bool agent_keeps_store_;
  bool broken_ = false;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> backend_;
  std::unique_ptr<Heartbeats> beats_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinGloo(const LaunchEnvironment& launch,
                                                       const ProcessGroup::Options& options) {
  // What the library logs of a connection, stacks and all, is said by our errors.
  if (!EnvironmentVariable("TORCH_CPP_LOG_LEVEL").has_value()) {
    constexpr int kFatal = 3;
    FLAGS_caffe2_log_level = kFatal;
  }
  // Writing to a process that is gone is an error of the write, not the end of this one.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return std::make_unique<GlooProcessGroup>(launch, options);
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("rank ", launch.rank, " of ", launch.size,
                                               " cannot join the others at ", launch.master_address,
                                               ":", launch.master_port,
                                               " (MASTER_ADDR, MASTER_PORT): ", FirstLine(error)));
  }
}

}  // namespace pricer

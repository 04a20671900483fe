#include "server/adapter_memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

absl::string_view FlagOf(MemoryTier tier) {
  return tier == MemoryTier::kHost ? "--adapter-memory" : "--adapter-device-memory";
}

absl::Status StoppingError() { return absl::UnavailableError("the server is stopping"); }

absl::Status CheckLimit(MemoryTier tier, int64_t bytes) {
  if (bytes >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(FlagOf(tier), ": expected at least 1 byte, got ", bytes));
}

std::string Describe(const LoadedAdapter& adapter) {
  return absl::StrCat("adapter \"", adapter.key.name, "\" version ", adapter.key.version);
}

}  // namespace

absl::Status AdapterMemoryOptions::Validate() const {
  RETURN_IF_ERROR(CheckLimit(MemoryTier::kHost, host_bytes));
  return CheckLimit(MemoryTier::kDevice, device_bytes);
}

AdapterMemory::AdapterMemory(const AdapterMemoryOptions& options, AdapterTensorSource source,
                             Metrics* metrics, const Clock* clock)
    : options_(options),
      source_(std::move(source)),
      metrics_(metrics),
      clock_(clock),
      compute_(source_.copy_to_device != nullptr ? MemoryTier::kDevice : MemoryTier::kHost),
      thread_([this] { Run(); }) {
  MutexLock lock(&mutex_);
  for (const MemoryTier tier : {MemoryTier::kHost, MemoryTier::kDevice}) {
    TierOf(tier).tier = tier;
    TierOf(tier).limit = tier == MemoryTier::kHost ? options_.host_bytes : options_.device_bytes;
  }
}

AdapterMemory::~AdapterMemory() { Stop(); }

absl::Status AdapterMemory::CheckFits(int64_t bytes) const {
  const auto check = [bytes](MemoryTier tier, int64_t limit) {
    if (bytes <= limit) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("its tensors take ", bytes, " bytes, and ", FlagOf(tier), " allows ", limit));
  };
  RETURN_IF_ERROR(check(MemoryTier::kHost, options_.host_bytes));
  return has_device() ? check(MemoryTier::kDevice, options_.device_bytes) : absl::OkStatus();
}

void AdapterMemory::Add(const AdapterHandle& adapter, TensorsHandle host, TensorsHandle device) {
  {
    MutexLock lock(&mutex_);
    std::shared_ptr<Slot>& slot = slots_[adapter.get()];
    PRICER_CHECK(slot == nullptr);
    slot = std::make_shared<Slot>();
    slot->adapter = adapter;
    slot->bytes = adapter->memory_bytes;
    if (MakeRoom(MemoryTier::kHost, slot->bytes, /*spare_gone=*/true)) {
      Put(MemoryTier::kHost, slot.get(), std::move(host));
    }
    if (device != nullptr && MakeRoom(MemoryTier::kDevice, slot->bytes, /*spare_gone=*/true)) {
      Put(MemoryTier::kDevice, slot.get(), std::move(device));
    }
  }
  FreeDropped();
}

TierBytes AdapterMemory::Remove(const LoadedAdapter* adapter) {
  TierBytes bytes{};
  {
    MutexLock lock(&mutex_);
    const auto found = slots_.find(adapter);
    if (found == slots_.end()) return bytes;
    Slot* const slot = found->second.get();
    for (const MemoryTier tier : {MemoryTier::kHost, MemoryTier::kDevice}) {
      if (slot->tensors[static_cast<int>(tier)] == nullptr) continue;
      bytes[static_cast<int>(tier)] = slot->bytes;
      Drop(tier, slot);
      Report(tier);
    }
    std::erase(wanted_, found->second);
    slot->removed = true;
    slots_.erase(found);
    wake_.SignalAll();
  }
  FreeDropped();
  return bytes;
}

absl::StatusOr<TensorsHandle> AdapterMemory::Get(const AdapterHandle& adapter) {
  MutexLock lock(&mutex_);
  if (stopping_) return StoppingError();
  const auto found = slots_.find(adapter.get());
  PRICER_CHECK(found != slots_.end());
  const std::shared_ptr<Slot>& slot = found->second;
  const TensorsHandle& tensors = slot->tensors[static_cast<int>(compute_)];
  if (tensors != nullptr && !slot->closing) {
    Touch(compute_, slot.get());
    return tensors;
  }
  if (!slot->failure.ok() && clock_->Now() < slot->retry_at) return slot->failure;
  Want(slot);
  return TensorsHandle();
}

absl::Status AdapterMemory::Fetch(const AdapterHandle& adapter, absl::Time deadline) {
  {
    MutexLock lock(&mutex_);
    const auto found = slots_.find(adapter.get());
    PRICER_CHECK(found != slots_.end());
    found->second->failure = absl::OkStatus();
  }
  while (true) {
    absl::StatusOr<TensorsHandle> tensors = Get(adapter);
    RETURN_IF_ERROR(tensors.status());
    if (*std::exchange(tensors, TensorsHandle()) != nullptr) {
      Released();
      return absl::OkStatus();
    }
    MutexLock lock(&mutex_);
    const std::shared_ptr<Slot> slot = slots_.at(adapter.get());
    while (slot->wanted && running_ && !stopping_) {
      const absl::Duration left = deadline - clock_->Now();
      if (left <= absl::ZeroDuration()) {
        return absl::DeadlineExceededError(
            absl::StrCat(Describe(*adapter), " was not in memory in time"));
      }
      if (deadline == absl::InfiniteFuture()) {
        fetched_.Wait(&mutex_);
      } else {
        fetched_.WaitWithTimeout(&mutex_, left);
      }
    }
  }
}

absl::Status AdapterMemory::SetPinned(const AdapterHandle& adapter, bool pinned) {
  MutexLock lock(&mutex_);
  const auto found = slots_.find(adapter.get());
  PRICER_CHECK(found != slots_.end());
  const std::shared_ptr<Slot>& slot = found->second;
  if (slot->pinned == pinned) return absl::OkStatus();
  if (pinned) {
    int64_t bytes = slot->bytes;
    for (const auto& [_, other] : slots_) bytes += other->pinned ? other->bytes : 0;
    if (bytes > TierOf(compute_).limit) {
      return absl::ResourceExhaustedError(
          absl::StrCat("with ", Describe(*adapter), " pinned adapters would take ", bytes,
                       " bytes, and ", FlagOf(compute_), " allows ", TierOf(compute_).limit));
    }
    if (slot->tensors[static_cast<int>(compute_)] == nullptr) Want(slot);
  }
  slot->pinned = pinned;
  // It may be, or make, the room that is waited for.
  slot->closing = false;
  wake_.SignalAll();
  return absl::OkStatus();
}

void AdapterMemory::SetGone(const AdapterHandle& adapter) {
  MutexLock lock(&mutex_);
  const auto found = slots_.find(adapter.get());
  PRICER_CHECK(found != slots_.end());
  found->second->gone = true;
}

AdapterPlace AdapterMemory::PlaceOf(const LoadedAdapter* adapter) const {
  MutexLock lock(&mutex_);
  AdapterPlace place;
  const auto found = slots_.find(adapter);
  if (found == slots_.end()) return place;
  const Slot& slot = *found->second;
  place.tier = MemoryTier::kDisk;
  place.pinned = slot.pinned;
  if (!slot.failure.ok()) place.error = std::string(slot.failure.message());
  for (const MemoryTier tier : {MemoryTier::kHost, MemoryTier::kDevice}) {
    if (slot.tensors[static_cast<int>(tier)] != nullptr) place.tier = tier;
  }
  return place;
}

void AdapterMemory::SetListener(Listener listener) {
  MutexLock lock(&listener_mutex_);
  listener_ = std::move(listener);
}

void AdapterMemory::Released() {
  MutexLock lock(&mutex_);
  if (waiting_for_room_) wake_.SignalAll();
}

void AdapterMemory::RequestStop() {
  MutexLock lock(&mutex_);
  stopping_ = true;
  wake_.SignalAll();
  fetched_.SignalAll();
}

bool AdapterMemory::Stop(absl::Time deadline) {
  RequestStop();
  {
    MutexLock lock(&mutex_);
    while (running_ && deadline != absl::InfiniteFuture()) {
      const absl::Duration left = deadline - clock_->Now();
      if (left <= absl::ZeroDuration()) return false;
      fetched_.WaitWithTimeout(&mutex_, left);
    }
  }
  if (thread_.joinable()) thread_.join();
  return true;
}

void AdapterMemory::Put(MemoryTier tier, Slot* slot, TensorsHandle tensors) {
  slot->tensors[static_cast<int>(tier)] = std::move(tensors);
  Tier& to = TierOf(tier);
  slot->used[static_cast<int>(tier)] = to.used.insert(to.used.end(), slot);
  to.bytes += slot->bytes;
  Report(tier);
}

void AdapterMemory::Drop(MemoryTier tier, Slot* slot) {
  Tier& from = TierOf(tier);
  from.used.erase(slot->used[static_cast<int>(tier)]);
  from.bytes -= slot->bytes;
  freed_.push_back(std::exchange(slot->tensors[static_cast<int>(tier)], nullptr));
  if (tier == compute_) slot->closing = false;
}

void AdapterMemory::Touch(MemoryTier tier, Slot* slot) {
  std::list<Slot*>& used = TierOf(tier).used;
  used.splice(used.end(), used, slot->used[static_cast<int>(tier)]);
}

bool AdapterMemory::MayMakeRoom(MemoryTier tier, const Slot& slot, bool spare_gone) const {
  return !(slot.pinned && tier == compute_) && !(slot.gone && spare_gone);
}

bool AdapterMemory::WouldDo(MemoryTier tier, int64_t bytes, bool spare_gone) {
  const Tier& in = TierOf(tier);
  int64_t needed = in.Excess(bytes);
  for (const Slot* const slot : in.used) {
    if (MayMakeRoom(tier, *slot, spare_gone)) needed -= slot->bytes;
  }
  return needed <= 0;
}

bool AdapterMemory::MakeRoom(MemoryTier tier, int64_t bytes, bool spare_gone) {
  Tier& in = TierOf(tier);
  for (auto it = in.used.begin(); it != in.used.end() && in.Excess(bytes) > 0;) {
    Slot* const slot = *it++;
    const bool held = slot->tensors[static_cast<int>(tier)].use_count() > 1;
    if (held || !MayMakeRoom(tier, *slot, spare_gone)) continue;
    Drop(tier, slot);
    metrics_->AdapterEvicted(tier, slot->bytes);
  }
  Report(tier);
  return in.Excess(bytes) <= 0;
}

void AdapterMemory::CloseForRoom(MemoryTier tier, int64_t bytes, bool spare_gone) {
  if (tier != compute_) return;
  const Tier& in = TierOf(tier);
  int64_t needed = in.Excess(bytes);
  for (Slot* const slot : in.used) {
    if (needed <= 0) break;
    if (!MayMakeRoom(tier, *slot, spare_gone)) continue;
    slot->closing = true;
    needed -= slot->bytes;
  }
}

void AdapterMemory::ReopenAll() {
  for (Slot* const slot : TierOf(compute_).used) slot->closing = false;
}

void AdapterMemory::Want(const std::shared_ptr<Slot>& slot) {
  if (std::exchange(slot->wanted, true)) return;
  wanted_.push_back(slot);
  wake_.SignalAll();
}

void AdapterMemory::Report(MemoryTier tier) {
  const Tier& of = TierOf(tier);
  metrics_->AdapterMemoryChanged(tier, static_cast<int64_t>(of.used.size()), of.bytes);
}

void AdapterMemory::Run() {
  while (true) {
    AdapterHandle adapter;
    absl::Status status;
    {
      MutexLock lock(&mutex_);
      while (wanted_.empty() && !stopping_) wake_.Wait(&mutex_);
      if (stopping_) break;
      const std::shared_ptr<Slot> slot = wanted_.front();
      wanted_.pop_front();
      adapter = slot->adapter.lock();
      if (adapter == nullptr) continue;
      status = FetchNow(*adapter, slot.get());
      slot->wanted = false;
      slot->failure = status;
      slot->retry_at = clock_->Now() + kRetryDelay;
      ReopenAll();
      fetched_.SignalAll();
    }
    if (!status.ok() && !absl::IsUnavailable(status)) {
      LogWarning("an adapter cannot be fetched", {{"adapter", adapter->key.name},
                                                  {"version", absl::StrCat(adapter->key.version)},
                                                  {"error", std::string(status.message())}});
    }
    FreeDropped();
    Tell(adapter.get(), status);
  }
  MutexLock lock(&mutex_);
  running_ = false;
  fetched_.SignalAll();
}

absl::Status AdapterMemory::FetchNow(const LoadedAdapter& adapter, Slot* slot) {
  // Closed to make room for another, and not needed for it in the end.
  if (slot->tensors[static_cast<int>(compute_)] != nullptr) return absl::OkStatus();
  const TensorsHandle& host = slot->tensors[static_cast<int>(MemoryTier::kHost)];
  if (host != nullptr) {
    Touch(MemoryTier::kHost, slot);
  } else if (slot->gone) {
    return absl::NotFoundError(absl::StrCat(
        Describe(adapter), " is gone from the folder, and there was no room to keep it in memory"));
  } else {
    RETURN_IF_ERROR(Bring(MemoryTier::kHost, slot, [&] { return source_.read(adapter); }));
  }
  if (!has_device() || slot->removed) return absl::OkStatus();
  return Bring(MemoryTier::kDevice, slot,
               [&, from = host] { return source_.copy_to_device(adapter, from); });
}

absl::Status AdapterMemory::Bring(MemoryTier tier, Slot* slot,
                                  const std::function<absl::StatusOr<TensorsHandle>()>& bring) {
  RETURN_IF_ERROR(WaitForRoom(tier, slot->bytes));
  TierOf(tier).reserved += slot->bytes;
  mutex_.Unlock();
  FreeDropped();
  const absl::Time start = clock_->Now();
  absl::StatusOr<TensorsHandle> tensors = bring();
  const absl::Duration time = clock_->Now() - start;
  mutex_.Lock();
  TierOf(tier).reserved -= slot->bytes;
  const MemoryTier from = tier == MemoryTier::kHost ? MemoryTier::kDisk : MemoryTier::kHost;
  metrics_->AdapterFetched(from, time, tensors.ok());
  RETURN_IF_ERROR(tensors.status());
  if (!slot->removed) Put(tier, slot, *std::move(tensors));
  return absl::OkStatus();
}

absl::Status AdapterMemory::WaitForRoom(MemoryTier tier, int64_t bytes) {
  while (true) {
    const bool spare_gone = WouldDo(tier, bytes, /*spare_gone=*/true);
    if (!spare_gone && !WouldDo(tier, bytes, /*spare_gone=*/false)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("there is no room for ", bytes, " bytes beside pinned adapters; ",
                       FlagOf(tier), " allows ", TierOf(tier).limit));
    }
    if (MakeRoom(tier, bytes, spare_gone)) return absl::OkStatus();
    if (stopping_) return StoppingError();
    CloseForRoom(tier, bytes, spare_gone);
    waiting_for_room_ = true;
    wake_.Wait(&mutex_);
    waiting_for_room_ = false;
  }
}

void AdapterMemory::Tell(const LoadedAdapter* adapter, const absl::Status& status) {
  MutexLock lock(&listener_mutex_);
  if (listener_ != nullptr) listener_(adapter, status);
}

void AdapterMemory::FreeDropped() {
  std::vector<TensorsHandle> freed;
  MutexLock lock(&mutex_);
  freed.swap(freed_);
  // `freed` goes after the lock: it was declared before it.
}

}  // namespace pricer

#include "server/adapter_proto.h"

#include <string>

#include "server/proto_text.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

v1::AdapterState StateToProto(AdapterState state) {
  switch (state) {
    case AdapterState::kStart:
      return v1::ADAPTER_STATE_START;
    case AdapterState::kLoading:
      return v1::ADAPTER_STATE_LOADING;
    case AdapterState::kAvailable:
      return v1::ADAPTER_STATE_AVAILABLE;
    case AdapterState::kUnloading:
      return v1::ADAPTER_STATE_UNLOADING;
    case AdapterState::kEnd:
      return v1::ADAPTER_STATE_END;
  }
  return v1::ADAPTER_STATE_UNSPECIFIED;
}

v1::MemoryTier TierToProto(MemoryTier tier) {
  switch (tier) {
    case MemoryTier::kDisk:
      return v1::MEMORY_TIER_DISK;
    case MemoryTier::kHost:
      return v1::MEMORY_TIER_HOST;
    case MemoryTier::kDevice:
      return v1::MEMORY_TIER_DEVICE;
  }
  return v1::MEMORY_TIER_UNSPECIFIED;
}

}  // namespace

void AdapterStatusToProto(const AdapterStatus& status, v1::AdapterVersion* proto) {
  proto->set_name(status.key.name);
  proto->set_version(status.key.version);
  proto->set_state(StateToProto(status.state));
  proto->set_reason(ToValidUtf8(status.reason));
  proto->set_digest(status.digest);
  proto->set_memory_bytes(status.memory_bytes);
  SetDuration(status.load_time, proto->mutable_load_time());
  SetTimestamp(status.changed_at, proto->mutable_changed_at());
  proto->set_serves_by_default(status.serves_by_default);
  for (const std::string& label : status.labels) proto->add_labels(label);
  if (status.state != AdapterState::kAvailable || status.key == BaseKey()) return;
  proto->set_tier(TierToProto(status.place.tier));
  proto->set_pinned(status.place.pinned);
  proto->set_fetch_error(ToValidUtf8(status.place.error));
}

}  // namespace pricer

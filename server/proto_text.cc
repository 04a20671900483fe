#include "server/proto_text.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace pricer {

std::string ToValidUtf8(absl::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t invalid = FindInvalidUtf8(text);
    absl::StrAppend(&valid, text.substr(0, invalid));
    if (invalid == absl::string_view::npos) break;
    valid += '?';
    text.remove_prefix(invalid + 1);
  }
  return valid;
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* proto) {
  proto->set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
}

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* proto) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  proto->set_seconds(seconds);
  proto->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

}  // namespace pricer

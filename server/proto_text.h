#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace pricer {

// The text with every byte that is no UTF-8 replaced by '?': a string field with such a byte makes
// a whole message unreadable, and messages about broken files may carry them.
std::string ToValidUtf8(absl::string_view text);

void SetDuration(absl::Duration duration, google::protobuf::Duration* proto);
void SetTimestamp(absl::Time time, google::protobuf::Timestamp* proto);

}  // namespace pricer

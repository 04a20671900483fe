#include "server/outcome.h"

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

// Version of the format, checksum, adapter version, price, low, high, adapter name.
constexpr char kFormat = 1;
constexpr size_t kChecksumBytes = 8;
constexpr size_t kFixedBytes = 1 + kChecksumBytes + 4 * sizeof(double);

template <typename T>
std::string Bytes(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

template <typename T>
T Read(absl::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

std::string Checksum(absl::string_view payload, absl::string_view adapter_digest) {
  const Sha256Bytes digest = Sha256Of(absl::StrCat(adapter_digest, payload));
  return std::string(digest.begin(), digest.begin() + kChecksumBytes);
}

absl::Status NoToken() {
  return absl::InvalidArgumentError("outcome_token: expected one that a prediction came with");
}

absl::StatusOr<std::string> Decode(absl::string_view token) {
  std::string bytes;
  if (!absl::WebSafeBase64Unescape(token, &bytes) || bytes.size() <= kFixedBytes ||
      bytes[0] != kFormat) {
    return NoToken();
  }
  return bytes;
}

}  // namespace

std::string OutcomeToken(const PredictedPrice& predicted, absl::string_view adapter_digest) {
  const std::string payload =
      absl::StrCat(Bytes(predicted.adapter.version), Bytes(predicted.price), Bytes(predicted.low),
                   Bytes(predicted.high), predicted.adapter.name);
  return absl::WebSafeBase64Escape(
      absl::StrCat(std::string(1, kFormat), Checksum(payload, adapter_digest), payload));
}

absl::StatusOr<AdapterKey> AdapterOfToken(absl::string_view token) {
  ASSIGN_OR_RETURN(const std::string bytes, Decode(token));
  AdapterKey key{bytes.substr(kFixedBytes), Read<int64_t>(bytes, 1 + kChecksumBytes)};
  if (key != BaseKey() && !ValidateAdapterName(key.name).ok()) return NoToken();
  return key;
}

absl::StatusOr<PredictedPrice> ReadOutcomeToken(absl::string_view token,
                                                absl::string_view adapter_digest) {
  PredictedPrice predicted;
  ASSIGN_OR_RETURN(predicted.adapter, AdapterOfToken(token));
  ASSIGN_OR_RETURN(const std::string bytes, Decode(token));
  const std::string payload = bytes.substr(1 + kChecksumBytes);
  if (Checksum(payload, adapter_digest) != bytes.substr(1, kChecksumBytes)) return NoToken();
  predicted.price = Read<double>(payload, sizeof(int64_t));
  predicted.low = Read<double>(payload, sizeof(int64_t) + sizeof(double));
  predicted.high = Read<double>(payload, sizeof(int64_t) + 2 * sizeof(double));
  return predicted;
}

}  // namespace pricer

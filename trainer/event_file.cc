#include "trainer/event_file.h"

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "tensorboard/event.pb.h"
#include "trainer/crc32c.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kPrefix = "events.out.tfevents.";
// Older ones have no session logs.
constexpr char kFileVersion[] = "brain.Event:2";

// Data that holds checksums of its own would defeat a plain one (tsl/lib/hash/crc32c.h).
uint32_t MaskedCrc(absl::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8;
}

template <typename T>
void AppendLittleEndian(std::string* out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

std::string Record(const tensorboard::Event& event) {
  const std::string data = event.SerializeAsString();
  std::string record;
  AppendLittleEndian(&record, uint64_t{data.size()});
  AppendLittleEndian(&record, MaskedCrc(record));
  record += data;
  AppendLittleEndian(&record, MaskedCrc(data));
  return record;
}

tensorboard::Event NewEvent(absl::Time time, int64_t step) {
  tensorboard::Event event;
  event.set_wall_time(static_cast<double>(absl::ToUnixMicros(time)) / 1e6);
  event.set_step(step);
  return event;
}

// In the names of the event files that are there, which have ten digits; -1 without any.
absl::StatusOr<int64_t> LatestSeconds(const std::string& directory) {
  int64_t latest = -1;
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    absl::string_view rest = name;
    int64_t seconds = 0;
    if (!absl::ConsumePrefix(&rest, kPrefix)) continue;
    rest = rest.substr(0, rest.find('.'));
    if (rest.size() == 10 && absl::SimpleAtoi(rest, &seconds)) latest = std::max(latest, seconds);
  }
  if (!error) return latest;
  errno = error.value();
  return ErrnoStatus("cannot list", directory);
}

}  // namespace

absl::StatusOr<EventFile> EventFile::Create(const std::string& directory, int64_t first_step,
                                            const Clock* clock) {
  RETURN_IF_ERROR(MakeDirectories(directory));
  ASSIGN_OR_RETURN(const int64_t latest, LatestSeconds(directory));
  const absl::Time now = clock->Now();
  const int64_t seconds = std::max(absl::ToUnixSeconds(now), latest + 1);
  const std::string path = absl::StrFormat("%s/%s%010d.pricer", directory, kPrefix, seconds);
  FileDescriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644));
  if (!file.ok()) return ErrnoStatus("cannot create", path);
  EventFile events(path, std::move(file), clock);
  tensorboard::Event version = NewEvent(now, 0);
  version.set_file_version(kFileVersion);
  tensorboard::Event start = NewEvent(now, first_step);
  start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  RETURN_IF_ERROR(events.Append(Record(version) + Record(start)));
  return events;
}

absl::Status EventFile::Add(int64_t step, absl::Span<const Scalar> scalars) {
  tensorboard::Event event = NewEvent(clock_->Now(), step);
  for (const Scalar& scalar : scalars) {
    tensorboard::Summary::Value* const value = event.mutable_summary()->add_value();
    value->set_tag(std::string(scalar.tag));
    value->set_simple_value(static_cast<float>(scalar.value));
  }
  return Append(Record(event));
}

absl::Status EventFile::Append(absl::string_view records) {
  absl::string_view rest = records;
  while (!rest.empty()) {
    const ssize_t n = write(file_.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      absl::Status status = ErrnoStatus("cannot write", path_);
      // Behind a part of a record no later one would be found.
      if (ftruncate(file_.get(), size_bytes_) != 0) {
        return absl::Status(status.code(),
                            absl::StrCat(status.message(), "; the last record is cut off"));
      }
      return status;
    }
    rest.remove_prefix(n);
  }
  size_bytes_ += static_cast<int64_t>(records.size());
  return absl::OkStatus();
}

}  // namespace pricer

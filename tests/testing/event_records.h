#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/file.h"
#include "tensorboard/event.pb.h"
#include "trainer/crc32c.h"

// Reads TensorBoard's event files; what is wrong with one fails the test.

namespace pricer::testing {

inline uint32_t MaskedCrc32c(absl::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <typename T>
T TakeNumber(absl::string_view* bytes) {
  T number = 0;
  if (bytes->size() < sizeof(T)) {
    ADD_FAILURE() << "the file ends within a number";
    return 0;
  }
  std::memcpy(&number, bytes->data(), sizeof(T));
  bytes->remove_prefix(sizeof(T));
  return number;
}

// The records of a file, their checksums looked at.
inline std::vector<tensorboard::Event> ReadEvents(const std::string& path) {
  std::vector<tensorboard::Event> events;
  const auto contents = ReadFile(path);
  EXPECT_TRUE(contents.ok()) << contents.status();
  if (!contents.ok()) return events;
  absl::string_view rest = *contents;
  while (!rest.empty()) {
    const absl::string_view length_bytes = rest.substr(0, 8);
    const auto length = TakeNumber<uint64_t>(&rest);
    EXPECT_EQ(TakeNumber<uint32_t>(&rest), MaskedCrc32c(length_bytes));
    if (rest.size() < length + 4) {
      ADD_FAILURE() << "record " << events.size() << " is cut off";
      break;
    }
    const absl::string_view data = rest.substr(0, length);
    rest.remove_prefix(length);
    EXPECT_EQ(TakeNumber<uint32_t>(&rest), MaskedCrc32c(data));
    EXPECT_TRUE(events.emplace_back().ParseFromString(std::string(data)));
  }
  return events;
}

}  // namespace pricer::testing

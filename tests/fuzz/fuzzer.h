#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"

// A fuzz target is one function over bytes that somebody may send or leave in a folder: whatever
// they are, it returns. scripts/fuzz has libFuzzer look for bytes by which it does not; the tests
// run it on the committed seeds and on many changes of them (replay_test.cc).

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace pricer::testing {

// A file in memory with the input in it, for what reads files by their path.
class InputFile {
 public:
  InputFile(const uint8_t* data, size_t size) : descriptor_(memfd_create("input", MFD_CLOEXEC)) {
    PRICER_CHECK(descriptor_ >= 0);
    PRICER_CHECK(write(descriptor_, data, size) == static_cast<ssize_t>(size));
  }
  ~InputFile() { close(descriptor_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::string path() const { return absl::StrCat("/proc/self/fd/", descriptor_); }

 private:
  const int descriptor_;
};

inline std::string InputText(const uint8_t* data, size_t size) {
  return std::string(reinterpret_cast<const char*>(data), size);
}

}  // namespace pricer::testing

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace pricer::testing {

// A program of ours that runs beside the test, its output in files. Killed, if need be, by the
// destructor.
class Process {
 public:
  // `program` is a name in the folder of built programs. Standard output and error go to <log>.out
  // and <log>.err.
  Process(const std::string& program, const std::vector<std::string>& arguments,
          const std::string& log);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void Signal(int signal);
  // Exit code, 128 + the signal that ended it, or -1 if it still runs after `limit`.
  int Wait(absl::Duration limit = absl::Seconds(120));
  bool running();

  std::string Output() const;
  std::string ErrorOutput() const;

 private:
  const std::string log_;
  pid_t pid_ = -1;
  int exit_code_ = -1;
};

}  // namespace pricer::testing

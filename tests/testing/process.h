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
  // Standard output and error go to <log>.out and <log>.err.
  Process(const std::string& program, const std::vector<std::string>& arguments,
          const std::string& log);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void Signal(int signal);
  // Exit code, 128 + the signal that ended it, or -1 if it still runs after `limit`.
  int Wait(absl::Duration limit = absl::Minutes(10));
  bool running();

  // So far.
  std::string Output() const;
  std::string ErrorOutput() const;

  // The first line of the error output that has `part` in it; empty if there is none when the
  // program has ended or after `limit`.
  std::string WaitForErrorLine(const std::string& part, absl::Duration limit = absl::Minutes(5));

 private:
  const std::string log_;
  pid_t pid_ = -1;
  int exit_code_ = -1;
};

struct Outcome {
  int exit_code = -1;
  std::string output;
};

// Runs a shell's command to its end; `output` is its standard output.
Outcome RunShell(const std::string& command);

}  // namespace pricer::testing

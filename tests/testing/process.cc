#include "tests/testing/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/file.h"

extern char** environ;

namespace pricer::testing {
namespace {

std::string Contents(const std::string& path) {
  const absl::StatusOr<std::string> contents = ReadFile(path);
  return contents.ok() ? *contents : "";
}

}  // namespace

Process::Process(const std::string& program, const std::vector<std::string>& arguments,
                 const std::string& log)
    : log_(log) {
  std::string path = program;
  std::vector<char*> argv = {path.data()};
  std::vector<std::string> copies = arguments;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const std::string out = log + ".out";
  const std::string err = log + ".err";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  const int flags = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), flags, 0644);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), flags, 0644);
  PRICER_CHECK(posix_spawn(&pid_, path.c_str(), &actions, nullptr, argv.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
}

Process::~Process() {
  if (!running()) return;
  Signal(SIGKILL);
  Wait();
}

void Process::Signal(int signal) {
  if (pid_ > 0) kill(pid_, signal);
}

bool Process::running() {
  if (pid_ <= 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == 0) return true;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  pid_ = -1;
  return false;
}

int Process::Wait(absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  while (running()) {
    if (absl::Now() > end) return -1;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return exit_code_;
}

std::string Process::Output() const { return Contents(log_ + ".out"); }
std::string Process::ErrorOutput() const { return Contents(log_ + ".err"); }

std::string Process::WaitForErrorLine(const std::string& part, absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  while (true) {
    // Asked before the output is read: what the program wrote last is seen.
    const bool last = !running() || absl::Now() > end;
    const std::string output = ErrorOutput();
    // Whole lines only.
    const absl::string_view whole(output.data(), output.rfind('\n') + 1);
    for (absl::string_view line : absl::StrSplit(whole, '\n')) {
      if (absl::StrContains(line, part)) return std::string(line);
    }
    if (last) return "";
    absl::SleepFor(absl::Milliseconds(20));
  }
}

Outcome RunShell(const std::string& command) {
  Outcome outcome;
  std::FILE* pipe = popen(command.c_str(), "r");
  PRICER_CHECK(pipe != nullptr);
  char buffer[4096];
  while (const size_t size = std::fread(buffer, 1, sizeof(buffer), pipe)) {
    outcome.output.append(buffer, size);
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

}  // namespace pricer::testing

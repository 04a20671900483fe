#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace pricer {

// How far a long job is: one line that is redrawn on a terminal, a plain line now and then
// elsewhere. One thread.
class Progress {
 public:
  struct Options {
    // What is done, as the line begins: "tuning".
    std::string label;
    // What is counted: "steps".
    std::string unit;
    // 0 = unknown.
    int64_t total = 0;
    // Of the total, done before this job began; it tells nothing about the speed.
    int64_t done_before = 0;
    bool terminal = false;
    // Of the terminal, whose line is shortened to fit; 0 = as it says of itself.
    int64_t columns = 0;
    // Between two plain lines.
    absl::Duration plain_interval = absl::Seconds(10);
    const Clock* clock = Clock::System();
  };

  // `out` must outlive the object.
  Progress(std::FILE* out, Options options);
  // Ends the redrawn line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void set_total(int64_t total) { options_.total = total; }
  void set_done_before(int64_t done) { options_.done_before = done; }

  // `done` of the total are done; `detail` follows the bar ("12.3 items/s  loss 3.21").
  void Update(int64_t done, absl::string_view detail);

  // A whole line that stays.
  void Print(absl::string_view line);

  absl::Duration elapsed() const { return options_.clock->Now() - start_; }

 private:
  std::string Line(int64_t done, absl::string_view detail, absl::Time now, bool with_bar) const;
  std::string TerminalLine(int64_t done, absl::string_view detail, absl::Time now) const;

  std::FILE* const out_;
  Options options_;
  const absl::Time start_;
  absl::Time last_plain_;
  bool drawn_ = false;
};

// Progress on standard error; a terminal is recognised by itself.
Progress::Options StderrProgress(std::string label, std::string unit, int64_t total);

// "2m05s", "43s", "1h02m".
std::string ShortDuration(absl::Duration duration);

}  // namespace pricer

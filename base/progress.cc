#include "base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace pricer {
namespace {

constexpr int64_t kBarWidth = 24;

std::string Bar(int64_t done, int64_t total) {
  const int64_t filled = std::min(kBarWidth, kBarWidth * done / total);
  return absl::StrCat("[", std::string(filled, '#'), std::string(kBarWidth - filled, '.'), "]");
}

// As many as there may be where `out` does not tell.
int64_t TerminalColumns(std::FILE* out) {
  winsize size = {};
  const bool known = ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : std::numeric_limits<int64_t>::max();
}

}  // namespace

std::string ShortDuration(absl::Duration duration) {
  const int64_t seconds =
      std::max<int64_t>(0, absl::ToInt64Seconds(duration + absl::Milliseconds(500)));
  if (seconds < 60) return absl::StrFormat("%ds", seconds);
  if (seconds < 3600) return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
}

Progress::Options StderrProgress(std::string label, std::string unit, int64_t total) {
  Progress::Options options;
  options.label = std::move(label);
  options.unit = std::move(unit);
  options.total = total;
  options.terminal = isatty(STDERR_FILENO) == 1;
  return options;
}

Progress::Progress(std::FILE* out, Options options)
    : out_(out),
      options_(std::move(options)),
      start_(options_.clock->Now()),
      last_plain_(absl::InfinitePast()) {}

Progress::~Progress() {
  if (drawn_) std::fputs("\n", out_);
}

std::string Progress::Line(int64_t done, absl::string_view detail, absl::Time now,
                           bool with_bar) const {
  std::string line = absl::StrCat(options_.label, " ");
  if (options_.total <= 0) {
    absl::StrAppend(&line, done, " ", options_.unit, "  ", detail);
    return line;
  }
  if (with_bar) absl::StrAppend(&line, Bar(done, options_.total), " ");
  absl::StrAppend(&line, done, "/", options_.total, " ", options_.unit, "  ", detail);
  const int64_t done_here = done - options_.done_before;
  if (done_here > 0 && done < options_.total) {
    const absl::Duration left = (now - start_) * (options_.total - done) / done_here;
    absl::StrAppend(&line, "  ", ShortDuration(left), " left");
  }
  return line;
}

// A line that wraps could not be redrawn: first the bar goes, then the end.
std::string Progress::TerminalLine(int64_t done, absl::string_view detail, absl::Time now) const {
  const int64_t columns = options_.columns > 0 ? options_.columns : TerminalColumns(out_);
  std::string line;
  for (const bool with_bar : {true, false}) {
    line = Line(done, detail, now, with_bar);
    if (static_cast<int64_t>(line.size()) < columns) return line;
  }
  return line.substr(0, columns - 1);
}

void Progress::Update(int64_t done, absl::string_view detail) {
  const absl::Time now = options_.clock->Now();
  if (options_.terminal) {
    // \033[K clears what a longer line has left behind.
    std::fprintf(out_, "\r%s\033[K", TerminalLine(done, detail, now).c_str());
    drawn_ = true;
  } else {
    if (done != options_.total && now - last_plain_ < options_.plain_interval) return;
    last_plain_ = now;
    std::fprintf(out_, "%s\n", Line(done, detail, now, /*with_bar=*/false).c_str());
  }
  std::fflush(out_);
}

void Progress::Print(absl::string_view line) {
  if (drawn_) std::fputs("\r\033[K", out_);
  drawn_ = false;
  std::fprintf(out_, "%.*s\n", static_cast<int>(line.size()), line.data());
  std::fflush(out_);
}

}  // namespace pricer

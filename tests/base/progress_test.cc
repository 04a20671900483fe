#include "base/progress.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <memory>

namespace pricer {
namespace {

class FakeClock : public Clock {
 public:
  absl::Time Now() const override { return now; }
  absl::Time now = absl::FromUnixSeconds(1000);
};

// What is printed between construction and Take.
class Captured {
 public:
  Captured() : file_(open_memstream(&text_, &size_)) {}
  ~Captured() {
    std::fclose(file_);
    std::free(text_);
  }
  std::FILE* file() { return file_; }
  std::string Take() {
    std::fflush(file_);
    std::string taken(text_, size_);
    std::rewind(file_);
    return taken;
  }

 private:
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* file_;
};

TEST(ShortDurationTest, UsesTheTwoLargestUnits) {
  EXPECT_EQ(ShortDuration(absl::Seconds(43)), "43s");
  EXPECT_EQ(ShortDuration(absl::Seconds(125)), "2m05s");
  EXPECT_EQ(ShortDuration(absl::Seconds(3725)), "1h02m");
  EXPECT_EQ(ShortDuration(-absl::Seconds(5)), "0s");
}

TEST(ProgressTest, RedrawsOneLineOnATerminal) {
  FakeClock clock;
  Captured out;
  {
    Progress progress(
        out.file(),
        {.label = "tuning", .unit = "steps", .total = 4, .terminal = true, .clock = &clock});
    clock.now += absl::Seconds(30);
    progress.Update(1, "loss 3.2");
    EXPECT_EQ(out.Take(),
              "\rtuning [######..................] 1/4 steps  loss 3.2  1m30s left\033[K");
    progress.Update(4, "loss 3.1");
    EXPECT_EQ(out.Take(), "\rtuning [########################] 4/4 steps  loss 3.1\033[K");
  }
  EXPECT_EQ(out.Take().substr(0, 1), "\n");
}

TEST(ProgressTest, GivesUpTheBarAndThenTheEndOnANarrowTerminal) {
  FakeClock clock;
  const auto drawn = [&](int64_t columns) {
    Captured out;
    Progress progress(out.file(), {.label = "tuning",
                                   .unit = "steps",
                                   .total = 4,
                                   .terminal = true,
                                   .columns = columns,
                                   .clock = &clock});
    progress.Update(4, "loss 3.1");
    return out.Take();
  };
  const std::string whole = "\rtuning [########################] 4/4 steps  loss 3.1\033[K";
  EXPECT_EQ(drawn(54), whole);  // one column stays free, so that nothing wraps
  EXPECT_EQ(drawn(53), "\rtuning 4/4 steps  loss 3.1\033[K");
  EXPECT_EQ(drawn(27), "\rtuning 4/4 steps  loss 3.1\033[K");
  EXPECT_EQ(drawn(26), "\rtuning 4/4 steps  loss 3.\033[K");
}

TEST(ProgressTest, PrintsWholeLinesOverTheRedrawnOne) {
  FakeClock clock;
  Captured out;
  Progress progress(
      out.file(),
      {.label = "tuning", .unit = "steps", .total = 4, .terminal = true, .clock = &clock});
  progress.Update(1, "x");
  out.Take();
  progress.Print("validation: fine");
  EXPECT_EQ(out.Take().substr(0, 21), "\r\033[Kvalidation: fine\n");
}

TEST(ProgressTest, PrintsPlainLinesNowAndThenElsewhere) {
  FakeClock clock;
  Captured out;
  Progress progress(out.file(), {.label = "tuning",
                                 .unit = "steps",
                                 .total = 4,
                                 .terminal = false,
                                 .plain_interval = absl::Seconds(10),
                                 .clock = &clock});
  progress.Update(1, "a");
  clock.now += absl::Seconds(9);
  progress.Update(2, "b");
  clock.now += absl::Seconds(2);
  progress.Update(3, "c");
  progress.Update(4, "d");
  EXPECT_EQ(out.Take(),
            "tuning 1/4 steps  a  0s left\ntuning 3/4 steps  c  4s left\ntuning 4/4 steps  d\n");
}

TEST(ProgressTest, SaysNoTimeLeftWithoutATotal) {
  FakeClock clock;
  Captured out;
  Progress progress(
      out.file(),
      {.label = "reading", .unit = "rows", .total = 0, .terminal = false, .clock = &clock});
  progress.Update(7, "fine");
  EXPECT_EQ(out.Take(), "reading 7 rows  fine\n");
}

}  // namespace
}  // namespace pricer

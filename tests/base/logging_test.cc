#include "base/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

std::vector<Json> LinesOf(const std::string& output) {
  std::vector<Json> lines;
  for (const absl::string_view line : absl::StrSplit(output, '\n', absl::SkipEmpty())) {
    lines.push_back(Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false));
  }
  return lines;
}

TEST(LoggingTest, WritesOneJsonObjectPerLine) {
  ::testing::internal::CaptureStderr();
  LogWarning("two\nlines", {{"path", "a\"b"}, {"bytes", "\xff"}});
  LogInfo("next");
  const std::vector<Json> lines = LinesOf(::testing::internal::GetCapturedStderr());
  ASSERT_EQ(lines.size(), 2);
  ASSERT_TRUE(lines[0].is_object());
  EXPECT_EQ(lines[0]["level"], "warning");
  EXPECT_EQ(lines[0]["message"], "two\nlines");
  EXPECT_EQ(lines[0]["path"], "a\"b");
  EXPECT_EQ(lines[0]["bytes"], "\xEF\xBF\xBD");
  EXPECT_EQ(lines[1]["message"], "next");
  absl::Time time;
  std::string error;
  EXPECT_TRUE(
      absl::ParseTime(absl::RFC3339_full, lines[0]["time"].get<std::string>(), &time, &error))
      << error;
}

TEST(LoggingTest, DropsLinesBelowTheLevel) {
  ::testing::internal::CaptureStderr();
  Log(LogLevel::kDebug, "dropped by default");
  SetLogLevel(LogLevel::kError);
  LogWarning("dropped");
  LogError("kept");
  SetLogLevel(LogLevel::kInfo);
  const std::vector<Json> lines = LinesOf(::testing::internal::GetCapturedStderr());
  ASSERT_EQ(lines.size(), 1);
  EXPECT_EQ(lines[0]["level"], "error");
}

TEST(LoggingTest, LinesOfSeveralThreadsDoNotMix) {
  ::testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 50; ++i) LogInfo(std::string(300, 'x'));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<Json> lines = LinesOf(::testing::internal::GetCapturedStderr());
  EXPECT_EQ(lines.size(), 200);
  for (const Json& line : lines) EXPECT_TRUE(line.is_object());
}

}  // namespace
}  // namespace pricer

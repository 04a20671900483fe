#include "catalog/line_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "catalog/byte_source.h"
#include "tests/catalog/gzip.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::GzipOf;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kTooLong[] = "<too long>";

std::vector<std::string> LinesOf(const std::string& contents, size_t max_line_bytes = 1 << 20) {
  const TempDir dir;
  EXPECT_OK(WriteFile(dir.File("a"), contents));
  absl::StatusOr<std::unique_ptr<ByteSource>> bytes = OpenByteSource(dir.File("a"));
  EXPECT_OK(bytes);
  LineReader reader(*std::move(bytes), max_line_bytes);
  std::vector<std::string> lines;
  LineReader::Line line;
  for (;;) {
    const absl::StatusOr<bool> more = reader.Next(&line);
    EXPECT_OK(more);
    if (!more.ok() || !*more) return lines;
    EXPECT_EQ(line.number, static_cast<int64_t>(lines.size()) + 1);
    lines.push_back(line.too_long ? kTooLong : std::string(line.text));
  }
}

TEST(LineReaderTest, SplitsAtLineFeedsAndKeepsEmptyLines) {
  EXPECT_THAT(LinesOf(""), IsEmpty());
  EXPECT_THAT(LinesOf("\n"), ElementsAre(""));
  EXPECT_THAT(LinesOf("a\n\nb\n"), ElementsAre("a", "", "b"));
  EXPECT_THAT(LinesOf("a\r\nb"), ElementsAre("a\r", "b"));
  EXPECT_THAT(LinesOf(std::string("a\0b\nc", 5)), ElementsAre(std::string("a\0b", 3), "c"));
}

TEST(LineReaderTest, SkipsAByteOrderMarkOnlyAtTheHead) {
  EXPECT_THAT(LinesOf("\xEF\xBB\xBF{}\n\xEF\xBB\xBF{}"), ElementsAre("{}", "\xEF\xBB\xBF{}"));
}

TEST(LineReaderTest, MarksLinesThatAreTooLongAndGoesOn) {
  EXPECT_THAT(LinesOf("12345\n123456\n1\n", 5), ElementsAre("12345", kTooLong, "1"));
  EXPECT_THAT(LinesOf("123456", 5), ElementsAre(kTooLong));
  EXPECT_THAT(LinesOf("12345", 5), ElementsAre("12345"));
}

TEST(LineReaderTest, DropsALineThatIsLongerThanItsBuffer) {
  const std::string huge(3'000'000, 'x');
  EXPECT_THAT(LinesOf("a\n" + huge + "\nb\n" + huge, 1000),
              ElementsAre("a", kTooLong, "b", kTooLong));
}

TEST(LineReaderTest, GrowsForALongLineThatIsAllowed) {
  const std::string long_line(1'500'000, 'x');
  EXPECT_THAT(LinesOf("a\n" + long_line + "\nb", 1'500'000), ElementsAre("a", long_line, "b"));
}

TEST(LineReaderTest, LinesOfEverySizeCrossTheBufferUnharmed) {
  std::string contents;
  std::vector<std::string> expected;
  for (int i = 0; i < 4000; ++i) {
    expected.push_back(
        absl::StrCat(i, std::string(i * 37 % 1500, static_cast<char>('a' + i % 26))));
    absl::StrAppend(&contents, expected.back(), "\n");
  }
  EXPECT_EQ(LinesOf(contents), expected);
  EXPECT_EQ(LinesOf(GzipOf(contents)), expected);
}

TEST(LineReaderTest, GivesTheWholeLinesBeforeItFindsTheFileCut) {
  const TempDir dir;
  std::string contents;
  for (int i = 0; i < 100'000; ++i) absl::StrAppend(&contents, i * 7919, "\n");
  const std::string whole = GzipOf(contents);
  ASSERT_OK(WriteFile(dir.File("a.gz"), whole.substr(0, whole.size() / 2)));
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<ByteSource> bytes, OpenByteSource(dir.File("a.gz")));
  LineReader reader(std::move(bytes), 100);
  LineReader::Line line;
  absl::StatusOr<bool> more = true;
  while (more.ok() && *more) more = reader.Next(&line);
  EXPECT_THAT(more, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_GT(line.number, 1000);
}

}  // namespace
}  // namespace pricer

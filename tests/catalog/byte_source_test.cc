#include "catalog/byte_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/file.h"
#include "base/status_macros.h"
#include "tests/catalog/gzip.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::GzipOf;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

absl::StatusOr<std::string> ReadAll(const std::string& path, size_t piece = 1 << 16) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenByteSource(path));
  std::string all;
  std::string buffer(piece, '\0');
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, source->Read(buffer.data(), buffer.size()));
    if (n == 0) return all;
    all.append(buffer, 0, n);
  }
}

std::string Noise(size_t size) {
  std::string bytes;
  uint32_t state = 1;
  for (size_t i = 0; i < size; ++i) {
    state = state * 1664525 + 1013904223;
    bytes.push_back(static_cast<char>(state >> 24));
  }
  return bytes;
}

TEST(ByteSourceTest, ReadsPlainFilesOfEverySmallSize) {
  const TempDir dir;
  for (size_t size = 0; size < 6; ++size) {
    const std::string bytes = std::string("abcdef").substr(0, size);
    ASSERT_OK(WriteFile(dir.File("a"), bytes));
    EXPECT_THAT(ReadAll(dir.File("a")), IsOkAndHolds(bytes));
    EXPECT_THAT(ReadAll(dir.File("a"), 1), IsOkAndHolds(bytes));
  }
}

TEST(ByteSourceTest, ReadsGzipByItsMagicWhateverTheName) {
  const TempDir dir;
  const std::string bytes = Noise(1'000'000);
  for (const char* name : {"a.gz", "a.jsonl"}) {
    ASSERT_OK(WriteFile(dir.File(name), GzipOf(bytes)));
    EXPECT_THAT(ReadAll(dir.File(name)), IsOkAndHolds(bytes));
    EXPECT_THAT(ReadAll(dir.File(name), 777), IsOkAndHolds(bytes));
  }
}

TEST(ByteSourceTest, ReadsSeveralGzipMembersAsOne) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a.gz"), GzipOf("one ") + GzipOf("") + GzipOf("two")));
  EXPECT_THAT(ReadAll(dir.File("a.gz")), IsOkAndHolds("one two"));
}

TEST(ByteSourceTest, ReadsAnEmptyGzipFile) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a.gz"), GzipOf("")));
  EXPECT_THAT(ReadAll(dir.File("a.gz")), IsOkAndHolds(""));
}

TEST(ByteSourceTest, GzipCutAnywhereIsDataLoss) {
  const TempDir dir;
  const std::string whole = GzipOf("some text that is long enough to be cut");
  for (size_t size = 2; size < whole.size(); ++size) {
    ASSERT_OK(WriteFile(dir.File("cut.gz"), whole.substr(0, size)));
    EXPECT_THAT(ReadAll(dir.File("cut.gz")),
                StatusIs(absl::StatusCode::kDataLoss,
                         AllOf(HasSubstr(dir.File("cut.gz")), HasSubstr("truncated"))))
        << size;
  }
}

TEST(ByteSourceTest, DamagedGzipIsDataLoss) {
  const TempDir dir;
  const std::string whole = GzipOf(Noise(5000));
  for (const size_t at : {size_t{2}, size_t{12}, whole.size() / 2, whole.size() - 6}) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
    ASSERT_OK(WriteFile(dir.File("a.gz"), damaged));
    EXPECT_THAT(ReadAll(dir.File("a.gz")),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(dir.File("a.gz"))))
        << at;
  }
}

TEST(ByteSourceTest, BytesAfterTheGzipDataAreDataLoss) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a.gz"), GzipOf("text") + "{\"more\": 1}"));
  EXPECT_THAT(ReadAll(dir.File("a.gz")), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(ByteSourceTest, GzNameWithoutGzipDataIsDataLoss) {
  const TempDir dir;
  for (const char* bytes : {"", "\x1f", "{}"}) {
    ASSERT_OK(WriteFile(dir.File("a.gz"), bytes));
    EXPECT_THAT(ReadAll(dir.File("a.gz")),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not gzip data")));
  }
}

TEST(ByteSourceTest, MissingFileAndDirectoryAreErrorsThatNameThem) {
  EXPECT_THAT(ReadAll("/no/such/file"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/file")));
  const TempDir dir;
  const absl::StatusOr<std::string> of_directory = ReadAll(dir.path());
  ASSERT_FALSE(of_directory.ok());
  EXPECT_THAT(std::string(of_directory.status().message()), HasSubstr(dir.path()));
}

}  // namespace
}  // namespace pricer

#include "catalog/byte_sink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::StartsWith;

absl::Status WriteSink(const std::string& path, absl::string_view bytes, size_t piece) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSink> sink, ByteSink::Create(path));
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
    RETURN_IF_ERROR(sink->Append(bytes.substr(0, piece)));
  }
  return sink->Commit();
}

absl::StatusOr<std::string> ReadSource(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenByteSource(path));
  std::string all;
  std::string buffer(1 << 16, '\0');
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, source->Read(buffer.data(), buffer.size()));
    if (n == 0) return all;
    all.append(buffer, 0, n);
  }
}

std::string Lines(int count) {
  std::string lines;
  for (int64_t i = 0; i < count; ++i)
    absl::StrAppend(&lines, "{\"row\":", i, ",\"price\":", i * i, "}\n");
  return lines;
}

// By name: what it begins with.
class ByteSinkTest : public ::testing::TestWithParam<std::pair<std::string, std::string>> {
 protected:
  const TempDir dir_;
  const std::string path_ = dir_.File(GetParam().first);
};

TEST_P(ByteSinkTest, WritesWhatASourceReads) {
  for (const std::string& bytes : {std::string(), std::string("a"), Lines(100'000)}) {
    for (const size_t piece : {size_t{7}, size_t{1} << 20}) {
      ASSERT_OK(WriteSink(path_, bytes, piece));
      EXPECT_THAT(ReadSource(path_), IsOkAndHolds(bytes));
    }
  }
  EXPECT_THAT(*ReadFile(path_), StartsWith(GetParam().second));
}

TEST_P(ByteSinkTest, TheSameBytesGiveTheSameFile) {
  ASSERT_OK(WriteSink(path_, Lines(1000), 1 << 20));
  const std::string once = *ReadFile(path_);
  ASSERT_OK(WriteSink(path_, Lines(1000), 1 << 20));
  EXPECT_EQ(*ReadFile(path_), once);
}

TEST_P(ByteSinkTest, WithoutACommitThereIsWhatWasBefore) {
  ASSERT_OK(WriteFile(path_, "before"));
  {
    const auto sink = ByteSink::Create(path_);
    ASSERT_OK(sink);
    EXPECT_OK((*sink)->Append(Lines(100'000)));
  }
  EXPECT_THAT(ReadFile(path_), IsOkAndHolds("before"));
  const std::filesystem::directory_iterator files(dir_.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

INSTANTIATE_TEST_SUITE_P(Names, ByteSinkTest,
                         ::testing::Values(std::pair("a.jsonl", "{"),
                                           std::pair("a.jsonl.gz", "\x1f\x8b"),
                                           std::pair("a.jsonl.ZST", "\x28\xb5\x2f\xfd")));

TEST(ByteSinkPlaceTest, AFolderThatIsNotThereIsNamed) {
  const TempDir dir;
  EXPECT_THAT(ByteSink::Create(dir.File("none/a.gz")),
              StatusIs(absl::StatusCode::kNotFound, StartsWith(dir.File("none/a.gz"))));
}

TEST(ByteSinkPlaceTest, AsItIsLooksAtNoName) {
  const TempDir dir;
  const auto sink = ByteSink::CreateAsItIs(dir.File("a.gz"));
  ASSERT_OK(sink);
  EXPECT_OK((*sink)->Append("plain"));
  EXPECT_OK((*sink)->Commit());
  EXPECT_THAT(ReadFile(dir.File("a.gz")), IsOkAndHolds("plain"));
}

}  // namespace
}  // namespace pricer

#include "catalog/byte_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/status_macros.h"
#include "tests/catalog/gzip.h"
#include "tests/catalog/scratch_file.h"
#include "tests/catalog/zstd.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::GzipOf;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::pricer::testing::WriteScratchFile;
using ::pricer::testing::ZstdOf;
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
    WriteScratchFile(dir.File("a"), bytes);
    EXPECT_THAT(ReadAll(dir.File("a")), IsOkAndHolds(bytes));
    EXPECT_THAT(ReadAll(dir.File("a"), 1), IsOkAndHolds(bytes));
  }
}

TEST(ByteSourceTest, ReadsGzipByItsMagicWhateverTheName) {
  const TempDir dir;
  const std::string bytes = Noise(1'000'000);
  for (const char* name : {"a.gz", "a.jsonl"}) {
    WriteScratchFile(dir.File(name), GzipOf(bytes));
    EXPECT_THAT(ReadAll(dir.File(name)), IsOkAndHolds(bytes));
    EXPECT_THAT(ReadAll(dir.File(name), 777), IsOkAndHolds(bytes));
  }
}

TEST(ByteSourceTest, ReadsSeveralGzipMembersAsOne) {
  const TempDir dir;
  WriteScratchFile(dir.File("a.gz"), GzipOf("one ") + GzipOf("") + GzipOf("two"));
  EXPECT_THAT(ReadAll(dir.File("a.gz")), IsOkAndHolds("one two"));
}

TEST(ByteSourceTest, ReadsAnEmptyGzipFile) {
  const TempDir dir;
  WriteScratchFile(dir.File("a.gz"), GzipOf(""));
  EXPECT_THAT(ReadAll(dir.File("a.gz")), IsOkAndHolds(""));
}

TEST(ByteSourceTest, GzipCutAnywhereIsDataLoss) {
  const TempDir dir;
  const std::string whole = GzipOf("some text that is long enough to be cut");
  for (size_t size = 2; size < whole.size(); ++size) {
    WriteScratchFile(dir.File("cut.gz"), whole.substr(0, size));
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
    WriteScratchFile(dir.File("a.gz"), damaged);
    EXPECT_THAT(ReadAll(dir.File("a.gz")),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(dir.File("a.gz"))))
        << at;
  }
}

TEST(ByteSourceTest, BytesAfterTheGzipDataAreDataLoss) {
  const TempDir dir;
  WriteScratchFile(dir.File("a.gz"), GzipOf("text") + "{\"more\": 1}");
  EXPECT_THAT(ReadAll(dir.File("a.gz")), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(ByteSourceTest, ReadsZstdByItsMagicWhateverTheName) {
  const TempDir dir;
  for (const std::string& bytes : {Noise(1'000'000), std::string(3'000'000, 'x')}) {
    for (const char* name : {"a.zst", "a.jsonl"}) {
      WriteScratchFile(dir.File(name), ZstdOf(bytes));
      EXPECT_THAT(ReadAll(dir.File(name)), IsOkAndHolds(bytes));
      EXPECT_THAT(ReadAll(dir.File(name), 777), IsOkAndHolds(bytes));
    }
  }
}

TEST(ByteSourceTest, ReadsSeveralZstdFramesAsOne) {
  const TempDir dir;
  WriteScratchFile(dir.File("a.zst"), ZstdOf("one ") + ZstdOf("") + ZstdOf("two"));
  EXPECT_THAT(ReadAll(dir.File("a.zst")), IsOkAndHolds("one two"));
  EXPECT_THAT(ReadAll(dir.File("a.zst"), 1), IsOkAndHolds("one two"));
  WriteScratchFile(dir.File("a.zst"), ZstdOf(""));
  EXPECT_THAT(ReadAll(dir.File("a.zst")), IsOkAndHolds(""));
}

TEST(ByteSourceTest, ZstdCutAnywhereIsDataLoss) {
  const TempDir dir;
  const std::string whole = ZstdOf("some text that is long enough to be cut");
  for (size_t size = 4; size < whole.size(); ++size) {
    WriteScratchFile(dir.File("cut.zst"), whole.substr(0, size));
    EXPECT_THAT(ReadAll(dir.File("cut.zst")),
                StatusIs(absl::StatusCode::kDataLoss,
                         AllOf(HasSubstr(dir.File("cut.zst")), HasSubstr("truncated"))))
        << size;
  }
}

TEST(ByteSourceTest, DamagedZstdAndBytesAfterItAreDataLoss) {
  const TempDir dir;
  std::string damaged = ZstdOf(Noise(5000));
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 0x55);
  for (const std::string& bytes : {damaged, ZstdOf("text") + "{\"more\": 1}"}) {
    WriteScratchFile(dir.File("a.zst"), bytes);
    EXPECT_THAT(ReadAll(dir.File("a.zst")),
                StatusIs(absl::StatusCode::kDataLoss,
                         AllOf(HasSubstr(dir.File("a.zst")), HasSubstr("corrupt zstd data"))));
  }
}

TEST(ByteSourceTest, ZstNameWithoutZstdDataIsDataLoss) {
  const TempDir dir;
  for (const std::string& bytes : {std::string(), std::string("{}"), ZstdOf("a").substr(0, 3)}) {
    WriteScratchFile(dir.File("a.zst"), bytes);
    EXPECT_THAT(ReadAll(dir.File("a.zst")),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not zstd data")));
  }
}

TEST(PeekSourceTest, WhatWasLookedAtIsStillRead) {
  const TempDir dir;
  const std::string bytes = Noise(1000);
  WriteScratchFile(dir.File("a"), bytes);
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<ByteSource> plain, OpenByteSource(dir.File("a")));
  PeekSource source(std::move(plain));
  EXPECT_THAT(source.Peek(3), IsOkAndHolds(bytes.substr(0, 3)));
  EXPECT_THAT(source.Peek(100), IsOkAndHolds(bytes.substr(0, 100)));
  EXPECT_THAT(source.Peek(2), IsOkAndHolds(bytes.substr(0, 2)));
  std::string out(40, ' ');
  EXPECT_THAT(source.Read(out.data(), out.size()), IsOkAndHolds(40));
  EXPECT_EQ(out, bytes.substr(0, 40));
  EXPECT_THAT(source.Peek(70), IsOkAndHolds(bytes.substr(40, 70)));
  EXPECT_THAT(source.Peek(5000), IsOkAndHolds(bytes.substr(40)));
  out.resize(5000);
  EXPECT_THAT(source.Read(out.data(), out.size()), IsOkAndHolds(960));
  EXPECT_EQ(out.substr(0, 960), bytes.substr(40));
  EXPECT_THAT(source.Read(out.data(), out.size()), IsOkAndHolds(0));
  EXPECT_THAT(source.Peek(1), IsOkAndHolds(""));
}

TEST(ByteSourceTest, GzNameWithoutGzipDataIsDataLoss) {
  const TempDir dir;
  for (const char* bytes : {"", "\x1f", "{}"}) {
    WriteScratchFile(dir.File("a.gz"), bytes);
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

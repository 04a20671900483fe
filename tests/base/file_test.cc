#include "base/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/file_descriptor.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOk;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(FileTest, ReadsBackAllBytes) {
  const TempDir dir;
  std::string bytes;
  for (int i = 0; i < 300'000; ++i) bytes.push_back(static_cast<char>(i * 7));
  ASSERT_OK(WriteFile(dir.File("a"), bytes));
  EXPECT_THAT(ReadFile(dir.File("a")), IsOkAndHolds(bytes));
  ASSERT_OK(WriteFile(dir.File("a"), "short"));
  EXPECT_THAT(ReadFile(dir.File("a")), IsOkAndHolds("short"));
}

TEST(FileTest, MissingFileIsNotFoundAndNamed) {
  EXPECT_THAT(ReadFile("/no/such/file"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/file: cannot open")));
  EXPECT_THAT(MappedFile::Open("/no/such/file"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(WriteFile("/no/such/file", ""), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(WriteFileAtomically("/no/such/file", ""), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(SyncDirectory("/no/such"), StatusIs(absl::StatusCode::kNotFound));
}

TEST(FileTest, ErrnoBecomesACode) {
  const std::pair<int, absl::StatusCode> cases[] = {
      {ENOENT, absl::StatusCode::kNotFound},        {EACCES, absl::StatusCode::kPermissionDenied},
      {EEXIST, absl::StatusCode::kAlreadyExists},   {ENOSPC, absl::StatusCode::kResourceExhausted},
      {EROFS, absl::StatusCode::kPermissionDenied}, {EIO, absl::StatusCode::kInternal}};
  for (const auto& [error, code] : cases) {
    errno = error;
    EXPECT_THAT(ErrnoStatus("cannot try", "x"), StatusIs(code, HasSubstr("x: cannot try: ")));
  }
}

TEST(FileTest, AtomicWriteReplacesAndLeavesNoTemporary) {
  const TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir.File("a"), "old"));
  ASSERT_OK(WriteFileAtomically(dir.File("a"), "new"));
  EXPECT_THAT(ReadFile(dir.File("a")), IsOkAndHolds("new"));
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
}

TEST(FileTest, FailedAtomicWriteLeavesNoTemporary) {
  const TempDir dir;
  ASSERT_OK(MakeDirectories(dir.File("taken/by/directories")));
  EXPECT_FALSE(WriteFileAtomically(dir.File("taken"), "x").ok());
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("taken"));
}

TEST(FileTest, ReadersOfAnAtomicFileSeeOneWriteOrTheOther) {
  const TempDir dir;
  const std::string path = dir.File("a");
  const std::string choices[] = {std::string(100'000, 'a'), std::string(50'000, 'b')};
  ASSERT_OK(WriteFileAtomically(path, choices[0]));
  std::vector<std::thread> writers;
  for (const std::string& contents : choices) {
    writers.emplace_back([&path, &contents] {
      for (int i = 0; i < 20; ++i) EXPECT_OK(WriteFileAtomically(path, contents));
    });
  }
  for (int i = 0; i < 50; ++i) {
    const absl::StatusOr<std::string> read = ReadFile(path);
    ASSERT_OK(read);
    EXPECT_TRUE(*read == choices[0] || *read == choices[1]) << read->size() << " bytes";
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
}

TEST(AtomicFileWriterTest, AppendsSmallAndLargePiecesInOrder) {
  const TempDir dir;
  std::string expected;
  {
    ASSERT_OK_AND_ASSIGN(AtomicFileWriter writer, AtomicFileWriter::Create(dir.File("a")));
    for (int i = 0; i < 200; ++i) {
      const std::string piece(i % 5 == 0 ? 100'000 : 1'000, static_cast<char>('a' + i % 26));
      ASSERT_OK(writer.Append(piece));
      expected += piece;
    }
    EXPECT_FALSE(std::filesystem::exists(dir.File("a")));
    ASSERT_OK(writer.Commit());
  }
  EXPECT_THAT(ReadFile(dir.File("a")), IsOkAndHolds(expected));
}

TEST(AtomicFileWriterTest, WithoutCommitNothingChanges) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a"), "old"));
  {
    ASSERT_OK_AND_ASSIGN(AtomicFileWriter writer, AtomicFileWriter::Create(dir.File("a")));
    ASSERT_OK(writer.Append("new"));
    const AtomicFileWriter moved = std::move(writer);
  }
  EXPECT_THAT(ReadFile(dir.File("a")), IsOkAndHolds("old"));
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
}

TEST(AtomicFileWriterTest, WritesBehindSymbolicLinks) {
  const TempDir dir;
  ASSERT_OK(MakeDirectories(dir.File("sub")));
  ASSERT_OK(WriteFile(dir.File("sub/a"), "old"));
  std::filesystem::create_symlink("sub/a", dir.File("link"));
  std::filesystem::create_symlink(dir.File("link"), dir.File("link of link"));
  std::filesystem::create_symlink("sub/new", dir.File("dangling"));
  ASSERT_OK(WriteFileAtomically(dir.File("link of link"), "new"));
  ASSERT_OK(WriteFileAtomically(dir.File("dangling"), "made"));
  EXPECT_THAT(ReadFile(dir.File("sub/a")), IsOkAndHolds("new"));
  EXPECT_THAT(ReadFile(dir.File("sub/new")), IsOkAndHolds("made"));
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("dangling", "link", "link of link", "sub"));
  EXPECT_TRUE(std::filesystem::is_symlink(dir.File("link")));
}

TEST(AtomicFileWriterTest, WritesStreamsThrough) {
  const TempDir dir;
  const std::string pipe = dir.File("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const FileDescriptor reader(open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  ASSERT_TRUE(reader.ok());
  ASSERT_OK(WriteFileAtomically(pipe, "through"));
  char bytes[16];
  EXPECT_EQ(absl::string_view(bytes, read(reader.get(), bytes, sizeof(bytes))), "through");
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("pipe"));
  EXPECT_OK(WriteFileAtomically("/dev/null", "x"));
  EXPECT_THAT(WriteFileAtomically("/dev/full", "x"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("/dev/full")));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST(AtomicFileWriterTest, AppendsToTheFileBehindADescriptor) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a"), "before, "));
  const FileDescriptor file(open(dir.File("a").c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_OK(WriteFileAtomically(absl::StrCat("/dev/fd/", file.get()), "after"));
  EXPECT_THAT(ReadFile(dir.File("a")), IsOkAndHolds("before, after"));
}

TEST(FindOutputPlaceTest, RefusesDirectoriesAndRingsOfLinks) {
  const TempDir dir;
  std::filesystem::create_symlink("b", dir.File("a"));
  std::filesystem::create_symlink("a", dir.File("b"));
  std::filesystem::create_directory_symlink(".", dir.File("here"));
  for (const std::string& path : {dir.path(), dir.File(""), dir.File("a"), dir.File("here")}) {
    EXPECT_THAT(FindOutputPlace(path),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path)));
  }
}

TEST(SameFileTest, KnowsAFileByAllItsNames) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a"), ""));
  ASSERT_OK(WriteFile(dir.File("b"), ""));
  std::filesystem::create_symlink("a", dir.File("link"));
  std::filesystem::create_hard_link(dir.File("a"), dir.File("hard"));
  EXPECT_TRUE(SameFile(dir.File("a"), dir.File("a")));
  EXPECT_TRUE(SameFile(dir.File("a"), dir.File("./a")));
  EXPECT_TRUE(SameFile(dir.File("a"), dir.File("link")));
  EXPECT_TRUE(SameFile(dir.File("a"), dir.File("hard")));
  EXPECT_TRUE(SameFile(dir.File("a"), std::filesystem::relative(dir.File("a"))));
  EXPECT_FALSE(SameFile(dir.File("a"), dir.File("b")));
}

TEST(SameFileTest, KnowsThePlaceOfAFileToCome) {
  const TempDir dir;
  ASSERT_OK(MakeDirectories(dir.File("sub")));
  std::filesystem::create_directory_symlink("sub", dir.File("link"));
  EXPECT_TRUE(SameFile(dir.File("sub/new"), dir.File("sub/../sub/new")));
  EXPECT_TRUE(SameFile(dir.File("sub/new"), dir.File("link/new")));
  EXPECT_FALSE(SameFile(dir.File("sub/new"), dir.File("new")));
  EXPECT_FALSE(SameFile("", ""));
}

TEST(SameFileTest, WritingToADeviceDestroysNothing) {
  EXPECT_FALSE(SameFile("/dev/null", "/dev/null"));
}

TEST(FileTest, MakesNestedDirectoriesOnceOrTwice) {
  const TempDir dir;
  EXPECT_OK(MakeDirectories(dir.File("a/b/c")));
  EXPECT_OK(MakeDirectories(dir.File("a/b/c")));
  EXPECT_TRUE(std::filesystem::is_directory(dir.File("a/b/c")));
  ASSERT_OK(WriteFile(dir.File("file"), ""));
  EXPECT_FALSE(MakeDirectories(dir.File("file/sub")).ok());
}

TEST(MappedFileTest, MapsTheBytesAndSurvivesMoves) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a"), std::string("with\0nul", 8)));
  ASSERT_OK_AND_ASSIGN(MappedFile file, MappedFile::Open(dir.File("a")));
  EXPECT_EQ(file.bytes(), absl::string_view("with\0nul", 8));
  MappedFile moved = std::move(file);
  EXPECT_EQ(moved.bytes(), absl::string_view("with\0nul", 8));
  EXPECT_EQ(moved.path(), dir.File("a"));
  ASSERT_OK(WriteFile(dir.File("b"), "other"));
  ASSERT_OK_AND_ASSIGN(moved, MappedFile::Open(dir.File("b")));
  EXPECT_EQ(moved.bytes(), "other");
}

TEST(MappedFileTest, EmptyFileHasNoBytes) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("empty"), ""));
  ASSERT_OK_AND_ASSIGN(const MappedFile file, MappedFile::Open(dir.File("empty")));
  EXPECT_THAT(file.bytes(), IsEmpty());
}

TEST(MappedFileTest, RefusesADirectory) {
  const TempDir dir;
  EXPECT_THAT(MappedFile::Open(dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected a regular file")));
}

}  // namespace
}  // namespace pricer

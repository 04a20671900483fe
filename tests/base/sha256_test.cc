#include "base/sha256.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::HasSubstr;

constexpr char kOfMillionAs[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

// The vectors of FIPS 180-2, appendix B, and of the empty message.
TEST(Sha256Test, MatchesThePublishedVectors) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Hex(std::string(1'000'000, 'a')), kOfMillionAs);
}

TEST(Sha256Test, PiecesMakeTheSameDigestAsTheWhole) {
  Sha256 sha;
  for (int i = 0; i < 1000; ++i) {
    sha.Update(std::string(999, 'a'));
    sha.Update("a");
  }
  EXPECT_EQ(sha.HexDigest(), kOfMillionAs);
}

TEST(Sha256Test, OfAFile) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a"), std::string(1'000'000, 'a')));
  EXPECT_THAT(Sha256HexOfFile(dir.File("a")), IsOkAndHolds(kOfMillionAs));
  ASSERT_OK(WriteFile(dir.File("empty"), ""));
  EXPECT_THAT(Sha256HexOfFile(dir.File("empty")), IsOkAndHolds(Sha256Hex("")));
}

TEST(Sha256Test, OfALargeFileOfOddSize) {
  const TempDir dir;
  std::string bytes;
  for (int i = 0; i < (3 << 20) + 17; ++i) bytes.push_back(static_cast<char>(i % 251));
  ASSERT_OK(WriteFile(dir.File("a"), bytes));
  EXPECT_THAT(Sha256HexOfFile(dir.File("a")), IsOkAndHolds(Sha256Hex(bytes)));
}

TEST(Sha256Test, MissingFileAndDirectoryAreErrorsThatNameThem) {
  EXPECT_THAT(Sha256HexOfFile("/no/such/file"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/file")));
  const TempDir dir;
  const absl::StatusOr<std::string> of_directory = Sha256HexOfFile(dir.path());
  ASSERT_FALSE(of_directory.ok());
  EXPECT_THAT(std::string(of_directory.status().message()), HasSubstr(dir.path()));
}

}  // namespace
}  // namespace pricer

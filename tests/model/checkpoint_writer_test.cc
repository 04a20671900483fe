#include "model/checkpoint_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using testing::IsOkAndHolds;
using testing::StatusIs;
using testing::TempDir;

constexpr int64_t kLarge = 1 << 20;

// A byte tensor of `bytes` times `value`.
StreamedTensor Bytes(const std::string& name, int64_t bytes, char value) {
  return {name, Dtype::kU8, {bytes}, [bytes, value](const StreamedTensor::Append& append) {
            return append(std::string(bytes, value));
          }};
}

TEST(WriteShardsTest, WritesOneFileWithoutIndexWhereAllFits) {
  const TempDir dir;
  EXPECT_THAT(WriteShards(dir.path(), {{Bytes("a", 10, 1)}, {Bytes("b", 20, 2)}}, 30),
              IsOkAndHolds(30));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(dir.File("model.safetensors")));
  EXPECT_EQ(file->tensors().at("b").data, std::string(20, 2));
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_FALSE(fs::exists(dir.File("model.safetensors.index.json")));
}

TEST(WriteShardsTest, CutsBetweenGroupsInTheirOrder) {
  const TempDir dir;
  // 10, then 25 together, which do not fit behind it; 40 is more than a shard may have; 5 would fit
  // into the first.
  EXPECT_THAT(WriteShards(dir.path(),
                          {{Bytes("first", 10, 1)},
                           {Bytes("pair.x", 20, 2), Bytes("pair.y", 5, 3)},
                           {Bytes("large", 40, 4)},
                           {Bytes("last", 5, 5)}},
                          30),
              IsOkAndHolds(80));
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(dir.File("model.safetensors.index.json")));
  const nlohmann::json expected = {{"metadata", {{"total_size", 80}}},
                                   {"weight_map",
                                    {{"first", "model-00001-of-00004.safetensors"},
                                     {"pair.x", "model-00002-of-00004.safetensors"},
                                     {"pair.y", "model-00002-of-00004.safetensors"},
                                     {"large", "model-00003-of-00004.safetensors"},
                                     {"last", "model-00004-of-00004.safetensors"}}}};
  EXPECT_EQ(nlohmann::json::parse(text), expected);
  ASSERT_OK_AND_ASSIGN(const auto file,
                       SafetensorsFile::Open(dir.File("model-00002-of-00004.safetensors")));
  EXPECT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->tensors().at("pair.y").data, std::string(5, 3));
}

TEST(WriteShardsTest, GivesTheErrorOfAStream) {
  const TempDir dir;
  StreamedTensor broken = Bytes("broken", 1, 0);
  broken.write = [](const StreamedTensor::Append&) { return absl::CancelledError("enough"); };
  EXPECT_THAT(WriteShards(dir.path(), {{Bytes("a", 1, 0)}, {broken}}, kLarge),
              StatusIs(absl::StatusCode::kCancelled));
}

TEST(CopyCompanionFilesTest, NamesADirectoryThatCannotBeRead) {
  const TempDir dir;
  EXPECT_THAT(CopyCompanionFiles(dir.File("none"), dir.path()),
              StatusIs(absl::StatusCode::kNotFound, ::testing::HasSubstr("none")));
}

}  // namespace
}  // namespace pricer

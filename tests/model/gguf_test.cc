#include "model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "tests/testing/gguf_builder.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::GgufBuilder;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::Raw;
using ::pricer::testing::RawString;
using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointee;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

class GgufFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& bytes) {
    // Without a flush to the disk, which would take most of the tests' time.
    std::ofstream(path_, std::ios::binary) << bytes;
    return GgufFile::Open(path_);
  }
  absl::StatusOr<std::unique_ptr<GgufFile>> Open(const GgufBuilder& builder) {
    return Open(builder.Build());
  }
  // Expects an error with the file's name and `words`.
  void ExpectError(const std::string& bytes, absl::StatusCode code, const std::string& words) {
    EXPECT_THAT(Open(bytes).status(), StatusIs(code, AllOf(HasSubstr(path_), HasSubstr(words))));
  }

  testing::TempDir directory_;
  const std::string path_ = directory_.File("model.gguf");
};

GgufBuilder SmallFile() {
  GgufBuilder builder;
  builder.String("general.architecture", "llama")
      .Integer("count", 7)
      .Strings("words", {"a", "", "caf\u00e9"})
      .Floats("first", {2, 3}, {1, 2, 3, 4, 5, 6})
      .Tensor("second", {1, 32}, 8, Raw<uint16_t>(0x3c00) + std::string(32, '\x02'));
  return builder;
}

TEST_F(GgufFileTest, ReadsEveryKindOfValue) {
  GgufBuilder builder;
  builder.Value("u8", 0, Raw<uint8_t>(255))
      .Value("i8", 1, Raw<int8_t>(-1))
      .Value("u16", 2, Raw<uint16_t>(65535))
      .Value("i16", 3, Raw<int16_t>(-2))
      .Integer("u32", 4294967295u)
      .Value("i32", 5, Raw<int32_t>(-3))
      .Real("f32", 0.5f)
      .Bool("yes", true)
      .String("text", "x")
      .Value("u64", 10, Raw<uint64_t>(1) + "")
      .Value("i64", 11, Raw<int64_t>(-4))
      .Value("f64", 12, Raw<double>(0.1))
      .Integers("integers", {-1, 2})
      .Strings("strings", {"a", "b"})
      .Value("reals", 9, Raw<uint32_t>(6) + Raw<uint64_t>(1) + Raw<float>(2.5f));
  ASSERT_OK_AND_ASSIGN(const auto file, Open(builder));
  EXPECT_THAT(file->Integer("u8"), IsOkAndHolds(255));
  EXPECT_THAT(file->Integer("i8"), IsOkAndHolds(-1));
  EXPECT_THAT(file->Integer("u16"), IsOkAndHolds(65535));
  EXPECT_THAT(file->Integer("i16"), IsOkAndHolds(-2));
  EXPECT_THAT(file->Integer("u32"), IsOkAndHolds(4294967295));
  EXPECT_THAT(file->Integer("i32"), IsOkAndHolds(-3));
  EXPECT_THAT(file->Integer("u64"), IsOkAndHolds(1));
  EXPECT_THAT(file->Integer("i64"), IsOkAndHolds(-4));
  EXPECT_THAT(file->Real("f32"), IsOkAndHolds(0.5));
  EXPECT_THAT(file->Real("f64"), IsOkAndHolds(0.1));
  EXPECT_THAT(file->Bool("yes"), IsOkAndHolds(true));
  EXPECT_THAT(file->String("text"), IsOkAndHolds("x"));
  EXPECT_THAT(file->Integers("integers"), IsOkAndHolds(Pointee(ElementsAre(-1, 2))));
  EXPECT_THAT(file->Strings("strings"), IsOkAndHolds(Pointee(ElementsAre("a", "b"))));
  EXPECT_THAT(std::get<std::vector<double>>(file->values().at("reals")), ElementsAre(2.5));
  EXPECT_TRUE(file->Has("u8"));
  EXPECT_FALSE(file->Has("u9"));
}

TEST_F(GgufFileTest, NamesTheKeyThatIsMissingOrOfAnotherKind) {
  ASSERT_OK_AND_ASSIGN(const auto file, Open(SmallFile()));
  EXPECT_THAT(file->Integer("nothing"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr(path_), HasSubstr("key 'nothing' is missing"))));
  for (const absl::Status& status :
       {file->Real("count").status(), file->String("count").status(), file->Bool("count").status(),
        file->Strings("count").status(), file->Integers("count").status()}) {
    EXPECT_THAT(status, StatusIs(kInvalid, AllOf(HasSubstr(path_), HasSubstr("key 'count'"))));
  }
  EXPECT_THAT(file->Integer("words"), StatusIs(kInvalid, HasSubstr("key 'words'")));
}

TEST_F(GgufFileTest, AnIntegerAboveInt64IsNotAnInteger) {
  ASSERT_OK_AND_ASSIGN(const auto file,
                       Open(GgufBuilder().Value("big", 10, Raw<uint64_t>(1ull << 63))));
  EXPECT_THAT(file->Integer("big"), StatusIs(kInvalid, HasSubstr("below 2^63")));
}

TEST_F(GgufFileTest, ReadsTensorsWithTheOutermostExtentFirst) {
  ASSERT_OK_AND_ASSIGN(const auto file, Open(SmallFile()));
  ASSERT_EQ(file->tensors().size(), 2);
  const GgufTensor& first = file->tensors().at("first");
  EXPECT_EQ(first.type, GgmlType::kF32);
  EXPECT_THAT(first.shape, ElementsAre(2, 3));
  std::vector<float> values(6);
  DequantizeGguf(first, absl::MakeSpan(values));
  EXPECT_THAT(values, ElementsAre(1, 2, 3, 4, 5, 6));
  const GgufTensor& second = file->tensors().at("second");
  EXPECT_EQ(second.type, GgmlType::kQ8_0);
  EXPECT_EQ(second.data.size(), 34);
  EXPECT_EQ(second.element_count(), 32);
}

TEST_F(GgufFileTest, ReadsVersion2AndRefusesOthersByNumber) {
  EXPECT_OK(Open(SmallFile().Version(2)));
  ExpectError(SmallFile().Version(1).Build(), kUnimplemented, "GGUF version 1 is not supported");
  ExpectError(SmallFile().Version(4).Build(), kUnimplemented, "GGUF version 4 is not supported");
}

TEST_F(GgufFileTest, RefusesOtherFiles) {
  ExpectError("GGML" + std::string(100, '\0'), kDataLoss, "expected the magic GGUF, got 'GGML'");
  ExpectError("", kDataLoss, "truncated");
  EXPECT_THAT(GgufFile::Open(directory_.File("none")).status(),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(GgufFileTest, EveryTruncationIsAnError) {
  const std::string bytes = SmallFile().Build();
  // The last bytes are padding.
  const size_t end = bytes.size() - 30;
  for (size_t size = 0; size < end; ++size) {
    ExpectError(bytes.substr(0, size), kDataLoss, "");
  }
  EXPECT_OK(Open(bytes.substr(0, end)));
}

TEST_F(GgufFileTest, NamesTheTensorWhoseDataIsCutOff) {
  const std::string bytes = SmallFile().Build();
  ExpectError(bytes.substr(0, bytes.size() - 40), kDataLoss, "tensor 'second': truncated");
}

TEST_F(GgufFileTest, CountsBeyondTheFileAreErrorsAndTakeNoMemory) {
  ExpectError(SmallFile().ExtraCounts(1ull << 62, 0).Build(), kDataLoss, "tensor");
  ExpectError(SmallFile().ExtraCounts(0, 1ull << 62).Build(), kDataLoss, "key");
  const uint64_t huge = (1ull << 63) + 5;
  for (const uint32_t type : {0, 4, 8, 12}) {
    ExpectError(GgufBuilder().Value("list", 9, Raw(type) + Raw(huge)).Build(), kDataLoss,
                "key 'list': truncated");
  }
  ExpectError(GgufBuilder().Value("text", 8, Raw(huge)).Build(), kDataLoss, "key 'text'");
  ExpectError(GgufBuilder().Value("text", 8, Raw<uint64_t>(~0ull)).Build(), kDataLoss,
              "key 'text'");
}

TEST_F(GgufFileTest, RefusesValuesOutsideTheFormat) {
  ExpectError(GgufBuilder().Value("k", 13, "").Build(), kDataLoss, "value type of 0 to 12, got 13");
  ExpectError(GgufBuilder().Value("k", 7, "\x02").Build(), kDataLoss, "bool of 0 or 1, got 2");
  const std::string nested = Raw<uint32_t>(9) + Raw<uint64_t>(0);
  ExpectError(GgufBuilder().Value("k", 9, nested).Build(), kDataLoss, "key 'k'");
  ExpectError(GgufBuilder().Integer("k", 1).Integer("k", 2).Build(), kDataLoss,
              "key 'k': it is there twice");
}

TEST_F(GgufFileTest, RefusesTypesThatAreNotReadByTensorAndName) {
  const std::string data(4096, '\0');
  ExpectError(GgufBuilder().Tensor("blk.0.x", {1, 256}, 12, data).Build(), kUnimplemented,
              "tensor 'blk.0.x': type Q4_K (12) is not supported");
  ExpectError(GgufBuilder().Tensor("t", {1, 256}, 14, data).Build(), kUnimplemented, "Q6_K (14)");
  ExpectError(GgufBuilder().Tensor("t", {1, 256}, 20, data).Build(), kUnimplemented, "IQ4_NL (20)");
  ExpectError(GgufBuilder().Tensor("t", {1, 256}, 4711, data).Build(), kUnimplemented,
              "unknown (4711)");
}

TEST_F(GgufFileTest, RefusesShapesThatCannotBe) {
  ExpectError(GgufBuilder().Tensor("t", {0, 4}, 0, "").Build(), kDataLoss, "extents >= 1, got 0");
  ExpectError(GgufBuilder().Tensor("t", {-1, 4}, 0, "").Build(), kDataLoss, "extents >= 1, got -1");
  ExpectError(GgufBuilder().Tensor("t", {}, 0, "").Build(), kDataLoss, "1 to 4 dimensions, got 0");
  ExpectError(GgufBuilder().Tensor("t", {1, 1, 1, 1, 1}, 0, "").Build(), kDataLoss,
              "1 to 4 dimensions, got 5");
  constexpr int64_t kLarge = 1ll << 32;
  ExpectError(GgufBuilder().Tensor("t", {kLarge, kLarge}, 0, "").Build(), kDataLoss, "overflows");
  ExpectError(GgufBuilder().Tensor("t", {1ll << 31, 1ll << 31}, 0, "").Build(), kDataLoss,
              "overflows");
  ExpectError(GgufBuilder().Tensor("t", {2, 33}, 2, std::string(64, '\0')).Build(), kDataLoss,
              "multiple of 32 values for type Q4_0, got 33");
}

TEST_F(GgufFileTest, RefusesTensorsThatLieWrong) {
  const std::string data(64, '\1');
  ExpectError(GgufBuilder().TensorAt("t", {16}, 0, data, 4).Build(), kDataLoss,
              "tensor 't': expected data at a multiple of 32 bytes, got 4");
  ExpectError(GgufBuilder().TensorAt("t", {16}, 0, data, 64).Build(), kDataLoss, "tensor 't'");
  ExpectError(GgufBuilder().TensorAt("t", {16}, 0, data, ~31ull).Build(), kDataLoss, "tensor 't'");
  ExpectError(GgufBuilder().Tensor("a", {16}, 0, data).TensorAt("b", {4}, 0, "", 32).Build(),
              kDataLoss, "tensor 'b': overlaps tensor 'a'");
  ExpectError(GgufBuilder().Tensor("a", {16}, 0, data).Tensor("a", {16}, 0, data).Build(),
              kDataLoss, "tensor 'a': it is there twice");
}

TEST_F(GgufFileTest, FollowsTheFilesAlignment) {
  GgufBuilder builder;
  builder.Alignment(128).Floats("a", {1}, {1}).Floats("b", {1}, {2});
  ASSERT_OK_AND_ASSIGN(const auto file, Open(builder));
  float value = 0;
  DequantizeGguf(file->tensors().at("b"), absl::MakeSpan(&value, 1));
  EXPECT_EQ(value, 2);
  ExpectError(GgufBuilder().Integer("general.alignment", 48).Build(), kDataLoss, "power of two");
  ExpectError(GgufBuilder().Integer("general.alignment", 0).Build(), kDataLoss, "power of two");
  ExpectError(GgufBuilder().String("general.alignment", "32").Build(), kDataLoss, "power of two");
}

TEST_F(GgufFileTest, DamagedFilesGiveAnErrorOrAFileWhoseTensorsCanBeRead) {
  const std::string good = SmallFile().Build();
  std::mt19937 random(7);
  int errors = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    for (int i = 0; i < 1 + round % 3; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const auto file = Open(bytes);
    errors += !file.ok();
    if (!file.ok()) continue;
    for (const auto& [name, tensor] : (*file)->tensors()) {
      std::vector<float> values(tensor.element_count());
      DequantizeGguf(tensor, absl::MakeSpan(values));
    }
  }
  EXPECT_GT(errors, 200);
}

}  // namespace
}  // namespace pricer

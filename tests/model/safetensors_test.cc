#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Length(uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes;
}

std::string FileOf(const std::string& header, const std::string& data) {
  return absl::StrCat(Length(header.size()), header, data);
}

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  int64_t begin, int64_t end) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[", shape,
                      "],\"data_offsets\":[", begin, ",", end, "]}");
}

std::string Header(const std::vector<std::string>& entries) {
  return absl::StrCat("{", absl::StrJoin(entries, ","), "}");
}

absl::Status ErrorOf(const std::string& bytes) {
  return SafetensorsFile::Parse(bytes, "dir/x.safetensors").status();
}

// Expects the kind of corruption that `word` names, with file and, where there is one, tensor.
void ExpectCorrupt(const std::string& bytes, const std::string& word,
                   const std::string& tensor = "") {
  EXPECT_THAT(
      ErrorOf(bytes),
      StatusIs(kDataLoss, AllOf(HasSubstr("dir/x.safetensors: "), HasSubstr(word),
                                HasSubstr(tensor.empty() ? "" : "tensor '" + tensor + "'"))));
}

TEST(SafetensorsFileTest, ReadsWhatTheFormatAllows) {
  const std::string header =
      Header({R"("__metadata__":{"format":"pt","note":"caf\u00e9"})",
              Entry("b", "BF16", "2,3", 4, 16), Entry("a", "F32", "", 0, 4),
              Entry("empty", "I64", "0,7", 4, 4), Entry("caf\u00e9", "BOOL", "1", 16, 17)});
  const std::string data = "0123456789abcdefX";
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Parse(FileOf(header + "   ", data), "x"));
  ASSERT_EQ(file->tensors().size(), 4u);
  const TensorView& a = file->tensors().at("a");
  EXPECT_EQ(a.dtype, Dtype::kF32);
  EXPECT_THAT(a.shape, IsEmpty());
  EXPECT_EQ(a.element_count(), 1);
  EXPECT_EQ(a.data, "0123");
  const TensorView& b = file->tensors().at("b");
  EXPECT_EQ(b.dtype, Dtype::kBF16);
  EXPECT_THAT(b.shape, ElementsAre(2, 3));
  EXPECT_EQ(b.data, "456789abcdef");
  EXPECT_EQ(b.ToString(), "BF16 [2, 3]");
  EXPECT_EQ(file->tensors().at("empty").element_count(), 0);
  EXPECT_EQ(file->tensors().at("caf\u00e9").data, "X");
  EXPECT_THAT(file->metadata(), ElementsAre(Pair("format", "pt"), Pair("note", "caf\u00e9")));
}

TEST(SafetensorsFileTest, ReadsAFileWithoutTensors) {
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Parse(FileOf("{}", ""), "x"));
  EXPECT_THAT(file->tensors(), IsEmpty());
}

TEST(SafetensorsFileTest, MapsAFileAndKeepsItsViews) {
  const TempDir dir;
  const std::string path = dir.File("x.safetensors");
  ASSERT_OK(WriteFile(path, FileOf(Header({Entry("a", "U8", "3", 0, 3)}), "xyz")));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path));
  EXPECT_EQ(file->path(), path);
  EXPECT_EQ(file->tensors().at("a").data, "xyz");
  EXPECT_THAT(SafetensorsFile::Open(dir.File("none")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST(SafetensorsFileTest, NamesTheFileThatIsMapped) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("empty"), ""));
  EXPECT_THAT(SafetensorsFile::Open(dir.File("empty")),
              StatusIs(kDataLoss, AllOf(HasSubstr(dir.File("empty")), HasSubstr("short file"))));
}

TEST(SafetensorsFileTest, RefusesAFileThatIsCutAnywhere) {
  const std::string whole =
      FileOf(Header({Entry("a", "U8", "4", 0, 4), Entry("b", "F32", "1", 4, 8)}), "12345678");
  ASSERT_OK(ErrorOf(whole));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(ErrorOf(whole.substr(0, size)), StatusIs(kDataLoss, HasSubstr("dir/x.safetensors")))
        << size;
  }
  ExpectCorrupt(whole.substr(0, 7), "short file: expected a header length of 8 bytes, got 7");
  ExpectCorrupt(whole.substr(0, 20), "short file: expected a header of");
  ExpectCorrupt(whole.substr(0, whole.size() - 1), "short file", "b");
}

TEST(SafetensorsFileTest, RefusesHeaderLengthsBeyondTheLimit) {
  ExpectCorrupt(Length(100'000'001) + "{}", "expected at most 100000000, got 100000001");
  ExpectCorrupt(Length(~uint64_t{0}) + "{}", "at most 100000000, got 18446744073709551615");
  ExpectCorrupt(Length(uint64_t{1} << 63) + "{}", "header length");
  ExpectCorrupt(Length(100'000'000) + "{}", "short file");
  ExpectCorrupt(Length(0), "begins with '{'");
}

TEST(SafetensorsFileTest, RefusesAHeaderThatDoesNotBeginWithABrace) {
  ExpectCorrupt(FileOf(" {}", ""), "begins with '{'");
  ExpectCorrupt(FileOf("[]", ""), "begins with '{'");
}

TEST(SafetensorsFileTest, RefusesOverlappingTensors) {
  ExpectCorrupt(
      FileOf(Header({Entry("a", "U8", "4", 0, 4), Entry("b", "U8", "4", 2, 6)}), "123456"),
      "overlap", "b");
  ExpectCorrupt(FileOf(Header({Entry("a", "U8", "4", 0, 4), Entry("b", "U8", "4", 0, 4)}), "1234"),
                "overlap", "b");
  ExpectCorrupt(
      FileOf(Header({Entry("big", "U8", "4", 0, 4), Entry("in", "U8", "2", 1, 3)}), "1234"),
      "overlap", "in");
}

TEST(SafetensorsFileTest, RefusesGaps) {
  ExpectCorrupt(FileOf(Header({Entry("a", "U8", "2", 0, 2), Entry("b", "U8", "2", 3, 5)}), "12345"),
                "gap", "b");
  ExpectCorrupt(FileOf(Header({Entry("a", "U8", "2", 1, 3)}), "123"), "gap", "a");
}

TEST(SafetensorsFileTest, RefusesBytesAfterTheLastTensor) {
  ExpectCorrupt(FileOf(Header({Entry("a", "U8", "2", 0, 2)}), "123"),
                "1 bytes after the last tensor");
  ExpectCorrupt(FileOf("{}", "12345"), "5 bytes after the header");
}

TEST(SafetensorsFileTest, RefusesASizeThatDiffersFromTheShape) {
  ExpectCorrupt(FileOf(Header({Entry("a", "F32", "2,2", 0, 12)}), "123456789012"),
                "expected 16 bytes for F32 [2, 2], got 12", "a");
  ExpectCorrupt(FileOf(Header({Entry("a", "F32", "0", 0, 4)}), "1234"), "expected 0 bytes", "a");
}

TEST(SafetensorsFileTest, RefusesOffsetsInTheWrongOrder) {
  ExpectCorrupt(FileOf(Header({Entry("a", "U8", "2", 2, 0)}), "12"), "ends before it begins", "a");
}

TEST(SafetensorsFileTest, RefusesShapesThatOverflow) {
  for (const char* shape : {"4611686018427387904", "4294967296,4294967296",
                            "9223372036854775807,2,0", "3037000500,3037000500,1,1"}) {
    ExpectCorrupt(FileOf(Header({Entry("a", "F32", shape, 0, 0)}), ""), "overflows", "a");
  }
  ExpectCorrupt(FileOf(Header({Entry("a", "U8", "9223372036854775808", 0, 0)}), ""), "overflows",
                "a");
}

TEST(SafetensorsFileTest, RefusesADoubledTensor) {
  ExpectCorrupt(FileOf(Header({Entry("a", "U8", "2", 0, 2), Entry("a", "U8", "2", 2, 4)}), "1234"),
                "comes twice", "a");
}

TEST(SafetensorsFileTest, RefusesAnUnknownDtype) {
  ExpectCorrupt(FileOf(Header({Entry("a", "F8_E4M3", "2", 0, 2)}), "12"), "unknown dtype 'F8_E4M3'",
                "a");
}

TEST(SafetensorsFileTest, KnowsEveryDtype) {
  const std::vector<std::pair<std::string, int64_t>> dtypes = {
      {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
      {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};
  for (const auto& [name, bytes] : dtypes) {
    const std::string file =
        FileOf(Header({Entry("a", name, "3", 0, 3 * bytes)}), std::string(3 * bytes, 'x'));
    ASSERT_OK_AND_ASSIGN(const auto parsed, SafetensorsFile::Parse(file, "x"));
    EXPECT_EQ(DtypeName(parsed->tensors().at("a").dtype), name);
    EXPECT_EQ(DtypeBytes(parsed->tensors().at("a").dtype), bytes);
  }
}

TEST(SafetensorsFileTest, SurvivesEveryChangeOfOneByte) {
  const std::string whole =
      FileOf(Header({R"("__metadata__":{"k":"v"})", Entry("a", "U8", "4", 0, 4),
                     Entry("b", "F32", "1", 4, 8)}),
             "12345678");
  for (size_t i = 0; i < whole.size(); ++i) {
    for (int value = 0; value < 256; value += 5) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(value);
      const absl::Status status = ErrorOf(bytes);
      EXPECT_TRUE(status.ok() || status.code() == kDataLoss) << status;
    }
  }
}

class WriteSafetensorsTest : public ::testing::Test {
 protected:
  absl::Status Write(const std::vector<NamedTensor>& tensors,
                     const std::map<std::string, std::string>& metadata = {}) {
    return WriteSafetensors(path_, tensors, metadata);
  }

  const TempDir dir_;
  const std::string path_ = dir_.File("out.safetensors");
};

NamedTensor Tensor(std::string name, Dtype dtype, std::vector<int64_t> shape, const char* data) {
  return {std::move(name), {dtype, std::move(shape), data}};
}

TEST_F(WriteSafetensorsTest, OrdersAndPadsAsTheReferenceLibrary) {
  ASSERT_OK(
      Write({Tensor("z", Dtype::kU8, {2}, "zz"), Tensor("b", Dtype::kF32, {1}, "bbbb"),
             Tensor("h", Dtype::kF16, {1}, "hh"), Tensor("g", Dtype::kBF16, {1}, "gg"),
             Tensor("a", Dtype::kF32, {1, 1}, "aaaa"), Tensor("i", Dtype::kI64, {}, "iiiiiiii")},
            {{"format", "pt"}, {"also", "\"quoted\""}}));
  std::string header = R"({"__metadata__":{"also":"\"quoted\"","format":"pt"},)"
                       R"("i":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                       R"("a":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]},)"
                       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},)"
                       R"("g":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]},)"
                       R"("h":{"dtype":"F16","shape":[1],"data_offsets":[18,20]},)"
                       R"("z":{"dtype":"U8","shape":[2],"data_offsets":[20,22]}})";
  while (header.size() % 8 != 0) header += ' ';
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path_));
  EXPECT_EQ(bytes, FileOf(header, "iiiiiiiiaaaabbbbgghhzz"));
}

TEST_F(WriteSafetensorsTest, RoundTrips) {
  ASSERT_OK(Write({Tensor("caf\u00e9 \"\\\n", Dtype::kI16, {1, 2}, "1234"),
                   Tensor("none", Dtype::kF32, {0}, "")},
                  {{"k", "v"}}));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path_));
  EXPECT_EQ(file->tensors().at("caf\u00e9 \"\\\n").data, "1234");
  EXPECT_EQ(file->tensors().at("caf\u00e9 \"\\\n").ToString(), "I16 [1, 2]");
  EXPECT_EQ(file->tensors().at("none").element_count(), 0);
  EXPECT_THAT(file->metadata(), ElementsAre(Pair("k", "v")));
}

TEST_F(WriteSafetensorsTest, WritesAFileWithoutTensors) {
  ASSERT_OK(Write({}));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path_));
  EXPECT_EQ(bytes, FileOf("{}      ", ""));
}

TEST_F(WriteSafetensorsTest, DoesNotDependOnTheOrderGiven) {
  const NamedTensor a = Tensor("a", Dtype::kF32, {1}, "aaaa");
  const NamedTensor b = Tensor("b", Dtype::kU8, {1}, "b");
  ASSERT_OK(Write({a, b}));
  ASSERT_OK_AND_ASSIGN(const std::string first, ReadFile(path_));
  ASSERT_OK(Write({b, a}));
  ASSERT_OK_AND_ASSIGN(const std::string second, ReadFile(path_));
  EXPECT_EQ(first, second);
}

TEST_F(WriteSafetensorsTest, RefusesWhatReadersWouldRefuse) {
  EXPECT_THAT(Write({Tensor("a", Dtype::kU8, {1}, "a"), Tensor("a", Dtype::kU8, {1}, "a")}),
              StatusIs(kInvalid, AllOf(HasSubstr(path_), HasSubstr("'a'"), HasSubstr("unique"))));
  EXPECT_THAT(Write({Tensor("__metadata__", Dtype::kU8, {1}, "a")}),
              StatusIs(kInvalid, HasSubstr("'__metadata__'")));
  EXPECT_THAT(Write({Tensor("\xff", Dtype::kU8, {1}, "a")}),
              StatusIs(kInvalid, HasSubstr("UTF-8")));
  EXPECT_THAT(Write({Tensor("a", Dtype::kF32, {2}, "1234")}),
              StatusIs(kInvalid, HasSubstr("'a': F32 [2] does not fit its 4 bytes")));
  EXPECT_THAT(Write({Tensor("a", Dtype::kU8, {-1, -1}, "a")}),
              StatusIs(kInvalid, HasSubstr("'a'")));
  EXPECT_THAT(Write({}, {{"k", "\xff"}}), StatusIs(kInvalid, HasSubstr("metadata 'k'")));
  EXPECT_THAT(ReadFile(path_), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(WriteSafetensorsTest, NamesAFolderThatIsNotThere) {
  EXPECT_THAT(WriteSafetensors(dir_.File("none/x"), {}, {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none/x")));
}

StreamedTensor Streamed(const std::string& name, const std::vector<std::string>& pieces) {
  return {name, Dtype::kU8, {4}, [pieces](const StreamedTensor::Append& append) {
            for (const std::string& piece : pieces) {
              if (const absl::Status status = append(piece); !status.ok()) return status;
            }
            return absl::OkStatus();
          }};
}

TEST(StreamSafetensorsTest, WritesTheSameBytesAsFromMemory) {
  TempDir dir;
  const std::string whole = dir.File("whole");
  const std::string streamed = dir.File("streamed");
  const NamedTensor a{"a", {Dtype::kU8, {4}, "1234"}};
  const NamedTensor b{"b", {Dtype::kU8, {4}, "5678"}};
  ASSERT_OK(WriteSafetensors(whole, {a, b}, {{"format", "pt"}}));
  ASSERT_OK(StreamSafetensors(streamed, {Streamed("b", {"56", "", "78"}), Streamed("a", {"1234"})},
                              {{"format", "pt"}}));
  ASSERT_OK_AND_ASSIGN(const std::string expected, ReadFile(whole));
  EXPECT_THAT(ReadFile(streamed), pricer::testing::IsOkAndHolds(expected));
}

TEST(StreamSafetensorsTest, AWrongNumberOfBytesLeavesNoFile) {
  TempDir dir;
  for (const char* bytes : {"123", "12345"}) {
    EXPECT_THAT(StreamSafetensors(dir.File("x"), {Streamed("a", {bytes})}, {}),
                StatusIs(absl::StatusCode::kInternal,
                         AllOf(HasSubstr("'a'"), HasSubstr("expected 4 bytes"))));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(StreamSafetensorsTest, AnErrorOfATensorEndsTheWriting) {
  TempDir dir;
  StreamedTensor tensor = Streamed("a", {});
  tensor.write = [](const auto&) { return absl::CancelledError("stop"); };
  EXPECT_THAT(StreamSafetensors(dir.File("x"), {tensor}, {}),
              StatusIs(absl::StatusCode::kCancelled, "stop"));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace pricer

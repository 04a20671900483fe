#include "model/quantize_checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_format.h"
#include "base/file.h"
#include "model/network.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using testing::GoldenPath;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOkAndHolds;
using testing::OpenCheckpoint;
using testing::StatusIs;
using testing::TempDir;
using Json = nlohmann::json;

std::set<std::string> NamesIn(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

Json ReadJson(const std::string& path) { return Json::parse(*ReadFile(path)); }

void ExpectSameTensors(const Checkpoint& actual, const Checkpoint& expected) {
  ASSERT_EQ(actual.tensors().size(), expected.tensors().size());
  for (const auto& [name, view] : expected.tensors()) {
    ASSERT_TRUE(actual.has_tensor(name)) << name;
    EXPECT_EQ(actual.tensor(name).ToString(), view.ToString()) << name;
    EXPECT_TRUE(actual.tensor(name).data == view.data) << name;
  }
}

class QuantizeCheckpointTest : public ::testing::Test {
 protected:
  // A base whose weights are larger than what is kept between two passes.
  std::unique_ptr<Checkpoint> WideBase() {
    EXPECT_OK(testing::WriteTinyCheckpoint(
        base_, {.hidden_size = 512, .ffn_size = 2304, .layer_count = 1}));
    return OpenBase();
  }
  std::unique_ptr<Checkpoint> OpenBase() {
    auto base = Checkpoint::Open(base_);
    EXPECT_OK(base);
    return *std::move(base);
  }

  const TempDir dir_;
  const std::string base_ = dir_.File("base");
  const std::string output_ = dir_.File("out");
};

TEST_F(QuantizeCheckpointTest, WritesTheBytesThatBitsandbytesAndTransformersWrite) {
  const auto base = OpenCheckpoint("models/gqa");
  for (const bool nested : {true, false}) {
    const std::string golden = nested ? "nf4/checkpoint" : "nf4/checkpoint-plain";
    const std::string output = dir_.File(nested ? "nested" : "plain");
    ASSERT_OK(QuantizeCheckpoint(*base, output, {.double_quantization = nested}));
    ASSERT_OK_AND_ASSIGN(const auto written, Checkpoint::Open(output));
    ExpectSameTensors(*written, *OpenCheckpoint(golden));
    EXPECT_EQ(ReadJson(output + "/config.json").at("quantization_config"),
              ReadJson(GoldenPath(golden + "/config.json")).at("quantization_config"));
  }
}

TEST_F(QuantizeCheckpointTest, GivesTheBitsOfQuantizingOnLoad) {
  const at::NoGradGuard no_grad;
  const auto base = WideBase();
  const PackedBatch batch = testing::PackAll({{5, 6, 7}, {8, 9}});
  const at::Tensor expected = testing::LoadNetwork(*base, WeightsKind::kNf4)->Forward(batch, {});
  ASSERT_OK_AND_ASSIGN(const QuantizeSummary summary, QuantizeCheckpoint(*base, output_));
  EXPECT_EQ(summary.linears, 7);
  EXPECT_LT(summary.bytes, summary.bytes_before / 4);
  ASSERT_OK_AND_ASSIGN(const auto written, Checkpoint::Open(output_));
  for (const WeightsKind kind : {WeightsKind::kNf4, WeightsKind::kFp32}) {
    EXPECT_TRUE(at::equal(testing::LoadNetwork(*written, kind)->Forward(batch, {}), expected));
  }
}

TEST_F(QuantizeCheckpointTest, BlockMaximaStayInFp32WithoutDoubleQuantization) {
  const auto base = WideBase();
  ASSERT_OK(QuantizeCheckpoint(*base, output_, {.double_quantization = false}));
  ASSERT_OK_AND_ASSIGN(const auto written, Checkpoint::Open(output_));
  const std::string module = ModulePath(0, Projection::kDown);
  ASSERT_OK_AND_ASSIGN(const Nf4Tensor stored, written->ReadNf4(module));
  const at::Tensor values = ToTensor(base->tensor(module + ".weight"));
  ASSERT_OK_AND_ASSIGN(
      const Nf4Tensor expected,
      QuantizeNf4(absl::MakeConstSpan(values.const_data_ptr<float>(), values.numel()), stored.shape,
                  Dtype::kF32, false));
  EXPECT_GT(stored.absmax.size() * sizeof(float), size_t{64} << 10);
  EXPECT_EQ(stored.absmax, expected.absmax);
  EXPECT_EQ(stored.packed, expected.packed);
}

TEST_F(QuantizeCheckpointTest, KeepsTheFingerprintOfTheBase) {
  const auto base = WideBase();
  ASSERT_OK(QuantizeCheckpoint(*base, output_));
  ASSERT_OK_AND_ASSIGN(const auto written, Checkpoint::Open(output_));
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint, base->Fingerprint());
  EXPECT_THAT(written->Fingerprint(), IsOkAndHolds(fingerprint));
}

TEST_F(QuantizeCheckpointTest, CopiesConfigurationAndCompanionFilesAlone) {
  WideBase();
  ASSERT_OK(WriteFile(base_ + "/LICENSE.txt", "free"));
  ASSERT_OK(WriteFile(base_ + "/chat_template.jinja", "{{ messages }}"));
  ASSERT_OK(WriteFile(dir_.File("elsewhere"), "{}"));
  fs::create_symlink(dir_.File("elsewhere"), base_ + "/generation_config.json");
  fs::create_symlink("nowhere", base_ + "/special_tokens_map.json");
  ASSERT_OK(WriteFile(base_ + "/optimizer.pt", "large"));
  ASSERT_OK(QuantizeCheckpoint(*OpenBase(), output_));
  EXPECT_EQ(NamesIn(output_), (std::set<std::string>{"LICENSE.txt", "chat_template.jinja",
                                                     "config.json", "generation_config.json",
                                                     "model.safetensors", "tokenizer.json"}));
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(output_ + "/generation_config.json")));
  EXPECT_EQ(*ReadFile(output_ + "/tokenizer.json"), *ReadFile(base_ + "/tokenizer.json"));
  Json config = ReadJson(output_ + "/config.json");
  EXPECT_EQ(config.at("quantization_config").at("bnb_4bit_compute_dtype"), "float32");
  config.erase("quantization_config");
  config.erase("pricer_base_fingerprint");
  EXPECT_EQ(config, ReadJson(base_ + "/config.json"));
}

TEST_F(QuantizeCheckpointTest, ShardsHoldAllPartsOfAWeight) {
  const auto base = OpenCheckpoint("models/sharded");
  ASSERT_OK(QuantizeCheckpoint(*base, dir_.File("whole")));
  ASSERT_OK(QuantizeCheckpoint(*base, output_, {.max_shard_bytes = 6000}));
  ASSERT_OK_AND_ASSIGN(const auto whole, Checkpoint::Open(dir_.File("whole")));
  ASSERT_OK_AND_ASSIGN(const auto sharded, Checkpoint::Open(output_));
  ExpectSameTensors(*sharded, *whole);
  const Json index = ReadJson(output_ + "/model.safetensors.index.json");
  // Weights by their file.
  std::map<std::string, std::set<std::string>> files;
  for (const auto& [name, file] : index.at("weight_map").items()) {
    const std::string weight = name.substr(0, name.find(".weight") + 7);
    files[file].insert(weight);
    EXPECT_EQ(file, index.at("weight_map").at(weight)) << name;
  }
  EXPECT_GT(files.size(), 2u);
  size_t number = 0;
  for (const auto& [file, weights] : files) {
    EXPECT_EQ(file, absl::StrFormat("model-%05d-of-%05d.safetensors", ++number, files.size()));
    ASSERT_OK_AND_ASSIGN(const auto shard, SafetensorsFile::Open(output_ + "/" + file));
    size_t bytes = 0;
    for (const auto& [name, view] : shard->tensors()) bytes += view.data.size();
    EXPECT_TRUE(bytes <= 6000 || weights.size() == 1) << file << ": " << bytes;
  }
}

TEST_F(QuantizeCheckpointTest, RefusesWhatIsQuantizedAlready) {
  EXPECT_THAT(QuantizeCheckpoint(*OpenCheckpoint("nf4/checkpoint"), output_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("nf4/checkpoint")));
  EXPECT_THAT(NamesIn(dir_.path()), IsEmpty());
}

TEST_F(QuantizeCheckpointTest, RefusesADirectoryWithSomethingInIt) {
  const auto base = WideBase();
  ASSERT_OK(MakeDirectories(output_));
  ASSERT_OK(WriteFile(output_ + "/theirs", "text"));
  EXPECT_THAT(QuantizeCheckpoint(*base, output_),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(output_)));
  EXPECT_EQ(NamesIn(output_), std::set<std::string>{"theirs"});
}

TEST_F(QuantizeCheckpointTest, NamesFileAndTensorOfWeightsThatAreNotFinite) {
  const auto base = OpenCheckpoint("models/gqa");
  ASSERT_OK(MakeDirectories(base_));
  ASSERT_OK(WriteFile(base_ + "/config.json", *ReadFile(GoldenPath("models/gqa/config.json"))));
  const std::string name = ModulePath(1, Projection::kUp) + ".weight";
  at::Tensor spoiled = ToTensor(base->tensor(name));
  spoiled[0][3] = std::numeric_limits<float>::infinity();
  std::vector<NamedTensor> tensors;
  for (const auto& [other, view] : base->tensors()) {
    tensors.push_back({other, other == name ? ToView(spoiled) : view});
  }
  ASSERT_OK(WriteSafetensors(base_ + "/model.safetensors", tensors, {}));
  EXPECT_THAT(QuantizeCheckpoint(*OpenBase(), output_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("base/model.safetensors"), HasSubstr(name))));
  EXPECT_EQ(NamesIn(dir_.path()), std::set<std::string>{"base"});
}

TEST_F(QuantizeCheckpointTest, LeavesNothingBehindWhenCancelledAtAnyTensor) {
  const auto base = WideBase();
  int asked = 0;
  ASSERT_OK(QuantizeCheckpoint(*base, output_, {}, [&] {
    ++asked;
    return false;
  }));
  fs::remove_all(output_);
  EXPECT_GT(asked, 12);
  for (int last = 0; last < asked; ++last) {
    int count = 0;
    EXPECT_THAT(QuantizeCheckpoint(*base, output_, {}, [&] { return count++ == last; }),
                StatusIs(absl::StatusCode::kCancelled));
    EXPECT_EQ(NamesIn(dir_.path()), std::set<std::string>{"base"});
  }
}

}  // namespace
}  // namespace pricer

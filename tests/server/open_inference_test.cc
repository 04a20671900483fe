#include "server/open_inference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

inference::ModelInferRequest Request(const std::vector<std::string>& texts) {
  inference::ModelInferRequest request;
  request.set_model_name("toys");
  request.set_id("r1");
  auto* const input = request.add_inputs();
  input->set_name("text");
  input->set_datatype("BYTES");
  input->add_shape(static_cast<int64_t>(texts.size()));
  for (const std::string& text : texts) input->mutable_contents()->add_bytes_contents(text);
  return request;
}

TEST(SpecFromModelTest, AVersionIsANumberOrALabel) {
  EXPECT_EQ(SpecFromModel("toys", "7").version(), 7);
  EXPECT_EQ(SpecFromModel("toys", "canary").label(), "canary");
  EXPECT_EQ(SpecFromModel("toys", "007").label(), "007");
  EXPECT_TRUE(SpecFromModel("base", "0").has_version());
  const v1::AdapterSpec neither = SpecFromModel("toys", "");
  EXPECT_FALSE(neither.has_version() || neither.has_label());
}

TEST(BatchFromInferTest, TakesTypedAndRawContentsAlike) {
  inference::ModelInferRequest request = Request({"lamp", "", "chair"});
  (*request.mutable_parameters())["coverage"].set_double_param(0.5);
  (*request.mutable_parameters())["estimator"].set_string_param("mean");
  (*request.mutable_parameters())["lane"].set_string_param("bulk");
  (*request.mutable_parameters())["timeout"].set_int64_param(7);
  ASSERT_OK_AND_ASSIGN(const v1::BatchPredictPricesRequest typed, BatchFromInfer(request));
  EXPECT_EQ(typed.adapter().name(), "toys");
  ASSERT_EQ(typed.items_size(), 3);
  EXPECT_EQ(typed.items(2).text(), "chair");
  EXPECT_THAT(typed.options().interval_coverages(), ElementsAre(0.5));
  EXPECT_EQ(typed.options().estimator(), "mean");
  EXPECT_EQ(typed.options().lane(), v1::LANE_BULK);
  request.mutable_inputs(0)->clear_contents();
  request.add_raw_input_contents(std::string("\4\0\0\0lamp\0\0\0\0\5\0\0\0chair", 21));
  ASSERT_OK_AND_ASSIGN(const v1::BatchPredictPricesRequest raw, BatchFromInfer(request));
  EXPECT_EQ(raw.SerializeAsString(), typed.SerializeAsString());
}

TEST(BatchFromInferTest, TakesIdsAndShapesOfOneRowOrColumn) {
  inference::ModelInferRequest request = Request({"lamp", "chair"});
  request.mutable_inputs(0)->add_shape(1);
  auto* const ids = request.add_inputs();
  ids->set_name("id");
  ids->set_datatype("BYTES");
  ids->add_shape(1);
  ids->add_shape(2);
  ids->mutable_contents()->add_bytes_contents("a");
  ids->mutable_contents()->add_bytes_contents("b");
  ASSERT_OK_AND_ASSIGN(const v1::BatchPredictPricesRequest batch, BatchFromInfer(request));
  EXPECT_EQ(batch.items(1).id(), "b");
  EXPECT_EQ(batch.items(1).text(), "chair");
}

TEST(BatchFromInferTest, NamesWhatIsWrong) {
  const auto expect = [](const std::function<void(inference::ModelInferRequest*)>& spoil,
                         const std::string& words) {
    inference::ModelInferRequest request = Request({"lamp", "chair"});
    spoil(&request);
    EXPECT_THAT(BatchFromInfer(request),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(words)));
  };
  using R = inference::ModelInferRequest;
  expect([](R* r) { r->clear_inputs(); }, "expected text, got none");
  expect([](R* r) { r->mutable_inputs(0)->set_name("texts"); }, "got texts");
  expect([](R* r) { r->mutable_inputs(0)->set_datatype("FP32"); }, "expected BYTES, got FP32");
  expect([](R* r) { r->mutable_inputs(0)->clear_shape(); }, "[text].shape");
  expect([](R* r) { r->mutable_inputs(0)->set_shape(0, 3); }, "expected 3 elements");
  expect([](R* r) { r->mutable_inputs(0)->set_shape(0, -1); }, "got [-1]");
  expect([](R* r) { r->mutable_inputs(0)->set_shape(0, int64_t{1} << 62); }, "shape");
  expect([](R* r) { r->mutable_inputs(0)->add_shape(2); }, "got [2, 2]");
  expect([](R* r) { r->mutable_inputs(0)->mutable_contents()->set_bytes_contents(1, "\xff"); },
         "text[1]: is no UTF-8");
  expect([](R* r) { r->add_raw_input_contents(""); }, "contents beside raw");
  const auto with_raw = [&](const std::string& raw, const std::string& words) {
    expect(
        [&](R* r) {
          r->mutable_inputs(0)->clear_contents();
          r->add_raw_input_contents(raw);
        },
        words);
  };
  with_raw("", "expected 2 elements");
  with_raw(std::string("\4\0\0", 3), "ends within a length");
  with_raw(std::string("\4\0\0\0lam", 7), "element 0 has a length of 4 bytes, 3 are left");
  with_raw(std::string("\xff\xff\xff\xff", 4), "4294967295");
  expect(
      [](R* r) {
        r->add_raw_input_contents("");
        r->add_raw_input_contents("");
      },
      "one for each of 1 inputs");
  expect([](R* r) { (*r->mutable_parameters())["coverage"].set_string_param("0.5"); },
         "parameters[coverage]: expected a number");
  expect([](R* r) { (*r->mutable_parameters())["estimator"].set_int64_param(1); },
         "parameters[estimator]");
  expect([](R* r) { (*r->mutable_parameters())["lane"].set_string_param("fast"); }, "got fast");
  expect([](R* r) { r->add_outputs()->set_name("prices"); }, "got prices");
  expect(
      [](R* r) {
        auto* const output = r->add_outputs();
        output->set_name("price");
        (*output->mutable_parameters())["datatype"].set_string_param("INT8");
      },
      "expected FP32 or FP64, got INT8");
}

class InferFromBatchTest : public ::testing::Test {
 protected:
  InferFromBatchTest() {
    for (int64_t i = 1; i <= 2; ++i) {
      v1::Prediction* const prediction = batch_.add_results()->mutable_prediction();
      prediction->set_price(10.5 * static_cast<double>(i));
      prediction->set_currency_code("EUR");
      v1::Interval* const interval = prediction->add_intervals();
      interval->set_low(1);
      interval->set_high(99.25);
      prediction->mutable_served_by()->set_adapter("toys");
      prediction->mutable_served_by()->set_version(i);
    }
  }

  v1::BatchPredictPricesResponse batch_;
};

TEST_F(InferFromBatchTest, AnswersWithPriceAndBoundsWhereNothingIsAskedFor) {
  ASSERT_OK_AND_ASSIGN(const inference::ModelInferResponse response,
                       InferFromBatch(Request({"lamp", "chair"}), batch_));
  EXPECT_EQ(response.model_name(), "toys");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.id(), "r1");
  EXPECT_EQ(response.parameters().at("currency").string_param(), "EUR");
  ASSERT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(response.outputs(0).name(), "price");
  EXPECT_EQ(response.outputs(0).datatype(), "FP64");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2));
  EXPECT_THAT(response.outputs(0).contents().fp64_contents(), ElementsAre(10.5, 21.0));
  EXPECT_THAT(response.outputs(1).contents().fp64_contents(), ElementsAre(1, 1));
  EXPECT_THAT(response.outputs(2).contents().fp64_contents(), ElementsAre(99.25, 99.25));
}

TEST_F(InferFromBatchTest, AnswersWithWhatIsAskedForInItsType) {
  inference::ModelInferRequest request = Request({"lamp", "chair"});
  request.add_outputs()->set_name("version");
  auto* const price = request.add_outputs();
  price->set_name("price");
  (*price->mutable_parameters())["datatype"].set_string_param("FP32");
  ASSERT_OK_AND_ASSIGN(const inference::ModelInferResponse typed, InferFromBatch(request, batch_));
  EXPECT_THAT(typed.outputs(0).contents().int64_contents(), ElementsAre(1, 2));
  EXPECT_EQ(typed.outputs(1).datatype(), "FP32");
  EXPECT_THAT(typed.outputs(1).contents().fp32_contents(), ElementsAre(10.5F, 21.0F));
  request.add_raw_input_contents("");
  ASSERT_OK_AND_ASSIGN(const inference::ModelInferResponse raw, InferFromBatch(request, batch_));
  ASSERT_EQ(raw.raw_output_contents_size(), 2);
  EXPECT_EQ(raw.raw_output_contents(0), std::string("\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 16));
  EXPECT_EQ(raw.raw_output_contents(1), std::string("\0\0\x28\x41\0\0\xa8\x41", 8));
  EXPECT_FALSE(raw.outputs(0).has_contents());
}

TEST_F(InferFromBatchTest, OneItemsErrorIsTheCallsAndNamesIt) {
  batch_.mutable_results(1)->mutable_error()->set_code(8);
  batch_.mutable_results(1)->mutable_error()->set_message("the queue is full");
  EXPECT_THAT(InferFromBatch(Request({"lamp", "chair"}), batch_),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("text[1]"), HasSubstr("the queue is full"))));
}

}  // namespace
}  // namespace pricer

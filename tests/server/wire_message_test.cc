#include "server/wire_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pricer/v1/pricing.pb.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::StatusIs;

grpc::ByteBuffer Bytes(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

TEST(WireMessageTest, ReadsWhatItWrote) {
  v1::PredictPriceRequest request;
  request.mutable_item()->set_title("Lampe für Flur");
  grpc::ByteBuffer bytes;
  ASSERT_OK(SerializeResponse(request, &bytes));
  for (int i = 0; i < 2; ++i) {  // the bytes are still there after the first time
    v1::PredictPriceRequest read;
    ASSERT_OK(ParseRequest(bytes, &read));
    EXPECT_EQ(read.item().title(), "Lampe für Flur");
  }
}

TEST(WireMessageTest, AnEmptyRequestIsValid) {
  v1::PredictPriceRequest request;
  EXPECT_OK(ParseRequest(Bytes(""), &request));
}

TEST(WireMessageTest, BytesThatAreNoSuchMessageAreAnErrorThatNamesIt) {
  v1::PredictPriceRequest request;
  const auto refuses = StatusIs(absl::StatusCode::kInvalidArgument,
                                "request: not a valid PredictPriceRequest; strings must be UTF-8");
  EXPECT_THAT(ParseRequest(Bytes("garbage"), &request), refuses);
  EXPECT_THAT(ParseRequest(Bytes("\x0a\x04\x12\x02\xff\xfe"), &request), refuses);
  EXPECT_THAT(ParseRequest(grpc::ByteBuffer(), &request), refuses);
}

}  // namespace
}  // namespace pricer

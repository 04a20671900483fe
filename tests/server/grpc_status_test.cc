#include "server/grpc_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/utf8.h"

namespace pricer {
namespace {

TEST(GrpcStatusTest, OkIsOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok()); }

TEST(GrpcStatusTest, KeepsEveryCodeAndTheMessage) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status =
        ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "why");
  }
}

TEST(GrpcStatusTest, CodesThatGrpcLacksAreUnknown) {
  EXPECT_EQ(ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(77), "why")).error_code(),
            grpc::StatusCode::UNKNOWN);
}

TEST(GrpcStatusTest, MakesTheMessageValidUtf8) {
  EXPECT_EQ(ToGrpcStatus(absl::DataLossError("tensor \xff\xfe caf\xc3\xa9")).error_message(),
            "tensor ?? caf\xc3\xa9");
}

TEST(GrpcStatusTest, ShortensAMessageThatNoHeaderWouldHold) {
  std::string longest = "x";
  for (int i = 0; i < 5000; ++i) longest += "\xc3\xa9";
  const std::string message = ToGrpcStatus(absl::InternalError(longest)).error_message();
  EXPECT_LE(message.size(), 2048u);
  EXPECT_GE(message.size(), 2047u);
  EXPECT_TRUE(IsValidUtf8(message));
}

}  // namespace
}  // namespace pricer

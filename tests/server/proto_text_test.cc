#include "server/proto_text.h"

#include <gtest/gtest.h>

namespace pricer {
namespace {

TEST(ProtoTextTest, ReplacesEveryByteThatIsNoUtf8) {
  EXPECT_EQ(ToValidUtf8(""), "");
  EXPECT_EQ(ToValidUtf8("caf\xc3\xa9"), "caf\xc3\xa9");
  EXPECT_EQ(ToValidUtf8("\xffvalid\xc3"), "?valid?");
  EXPECT_EQ(ToValidUtf8("\xed\xa0\x80"), "???");
}

TEST(ProtoTextTest, SplitsDurationsIntoSecondsAndNanoseconds) {
  google::protobuf::Duration proto;
  SetDuration(absl::Milliseconds(2500), &proto);
  EXPECT_EQ(proto.seconds(), 2);
  EXPECT_EQ(proto.nanos(), 500'000'000);
}

TEST(ProtoTextTest, SplitsTimesIntoSecondsAndNanoseconds) {
  google::protobuf::Timestamp proto;
  SetTimestamp(absl::FromUnixNanos(1'700'000'000'000'000'007), &proto);
  EXPECT_EQ(proto.seconds(), 1'700'000'000);
  EXPECT_EQ(proto.nanos(), 7);
}

}  // namespace
}  // namespace pricer

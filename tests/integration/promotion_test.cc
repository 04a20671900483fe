// A new version on its way to all calls of several servers that share a folder.

#include <gmock/gmock.h>
#include <signal.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "client/folder_labels.h"
#include "tests/integration/serving_fixture.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::Process;
using testing::Program;
using testing::ServingTest;
using testing::World;

class PromotionOfServersTest : public ServingTest {
 protected:
  PromotionOfServersTest() {
    Drop(World::Get().Staged(1), "shop", 1);
    EXPECT_OK(SetFolderLabel(adapters(), "shop", "stable", {.version = 1}).status());
    std::string items;
    for (int i = 0; i < 40; ++i) absl::StrAppend(&items, "{\"title\":\"steel pan ", i, "\"}\n");
    EXPECT_OK(WriteFile(sample_, items));
  }

  // address_ is then of both.
  void StartServers() {
    ASSERT_NO_FATAL_FAILURE(StartServer());
    first_ = std::move(server_);
    const std::string first = address_;
    ASSERT_NO_FATAL_FAILURE(StartServer());
    both_ = absl::StrCat("ipv4:", first, ",", address_);
  }

  int Promote(const std::vector<std::string>& more, int replicas = 2) {
    std::vector<std::string> arguments = {
        "adapters", "promote", "shop",       "--adapters",           adapters(), "--server", both_,
        "--hold",   "1s",      "--replicas", absl::StrCat(replicas), "--input",  sample_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Process promote(Program("pricer"), arguments, directory_.File("promote"));
    const int exit_code = promote.Wait();
    output_ = promote.Output() + promote.ErrorOutput();
    return exit_code;
  }
  // That calls which ask for none get.
  int64_t Answers() {
    const absl::StatusOr<v1::Prediction> prediction = Price("steel pan");
    EXPECT_OK(prediction);
    return prediction.ok() ? prediction->served_by().version() : 0;
  }

  const std::string sample_ = directory_.File("sample.jsonl");
  std::unique_ptr<Process> first_;
  std::string both_;
  std::string output_;
};

TEST_F(PromotionOfServersTest, ItAnswersAllCallsOnAllServers) {
  ASSERT_NO_FATAL_FAILURE(StartServers());
  Drop(World::Get().Staged(2), "shop", 2);
  // As long as it may not differ by much.
  EXPECT_EQ(Promote({"--far", "1e-9", "--max-far-share", "0"}), 4) << output_;
  EXPECT_THAT(output_, HasSubstr("canary is taken away"));
  EXPECT_EQ(Answers(), 1);
  EXPECT_EQ(Promote({"--max-far-share", "1"}), 0) << output_;
  EXPECT_THAT(output_, HasSubstr("stable is version 2"));
  EXPECT_EQ(Answers(), 2);
  EXPECT_EQ(Promote({}), 0) << output_;
  EXPECT_THAT(output_, HasSubstr("version 2 answers all calls already"));
}

TEST_F(PromotionOfServersTest, AServerThatIsNotThereIsNamedAndNothingIsPromoted) {
  ASSERT_NO_FATAL_FAILURE(StartServers());
  first_->Signal(SIGKILL);
  first_->Wait();
  Drop(World::Get().Staged(2), "shop", 2);
  EXPECT_EQ(Promote({"--within", "2s"}), 1) << output_;
  EXPECT_THAT(output_, HasSubstr("not followed within 2s by 1 of the replicas: ipv4:127.0.0.1:"));
  EXPECT_EQ(Answers(), 1);
  // Fewer servers than there should be.
  EXPECT_EQ(Promote({"--within", "1s"}, 3), 1) << output_;
  EXPECT_THAT(output_, HasSubstr("expected 3 servers behind it, got 2"));
}

}  // namespace
}  // namespace pricer

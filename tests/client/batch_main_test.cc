// `pricer batch` as it is run.

#include <gmock/gmock.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/file.h"
#include "catalog/byte_source.h"
#include "tests/client/main_fixture.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::MainTest;
using testing::Outcome;
using testing::RunClient;
using testing::RunShell;

std::string ReadCompressed(const std::string& path) {
  std::string bytes;
  const auto source = OpenByteSource(path);
  if (!source.ok()) return source.status().ToString();
  char piece[4096];
  for (absl::StatusOr<size_t> n = 1; n.ok() && *n > 0;) {
    n = (*source)->Read(piece, sizeof(piece));
    if (n.ok()) bytes.append(piece, *n);
  }
  return bytes;
}

TEST_F(MainTest, BatchWritesItsRowsAloneToStandardOutput) {
  const Outcome outcome =
      RunClient(absl::StrCat(Batch("/dev/stdout"), "--field title=name 2>/dev/null"));
  EXPECT_EQ(outcome.exit_code, 3);
  const Outcome good = RunClient(Batch("/dev/stdout") + "2>/dev/null");
  EXPECT_EQ(good.exit_code, 0);
  EXPECT_THAT(good.output, ::testing::StartsWith("{\"row\":1,\"id\":\"a\",\"price\":3.0,"));
  EXPECT_THAT(good.output, ::testing::EndsWith("\"error\":null}\n"));
}

TEST_F(MainTest, AnInterruptedBatchExitsWith75AndGoesOn) {
  const std::string output = dir_.File("out.jsonl");
  const std::string pid = dir_.File("pid");
  pricing_.before_batch = [&] { kill(std::atoi(ReadFile(pid)->c_str()), SIGINT); };
  const std::string batch = Batch(output) + "--items-per-call 1";
  const Outcome outcome =
      RunShell(absl::StrCat("echo $$ >", pid, "; exec ", PRICER_CLIENT_PROGRAM, " 2>&1 ", batch));
  EXPECT_EQ(outcome.exit_code, 75);
  EXPECT_THAT(outcome.output, HasSubstr(absl::StrCat("pricer: interrupted; 1 rows are kept in ",
                                                     output, ".partial, and the same command")));
  EXPECT_FALSE(std::filesystem::exists(output));
  pricing_.before_batch = nullptr;
  const Outcome rest = RunClient(batch);
  EXPECT_EQ(rest.exit_code, 0);
  EXPECT_THAT(rest.output,
              HasSubstr("2 rows, 0 with errors, in " + output + "; 1 of them by an earlier run"));
  EXPECT_FALSE(std::filesystem::exists(output + ".partial"));
}

TEST_F(MainTest, ABatchWithoutAServerExitsWith1AndLeavesNothing) {
  const std::string output = dir_.File("out.jsonl");
  const Outcome outcome = RunClient(absl::StrCat("batch --input ", input_, " --output ", output,
                                                 " --server 127.0.0.1:1 --timeout 300ms"));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("127.0.0.1:1: "));
  const std::filesystem::directory_iterator files(dir_.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);  // in.jsonl
}

TEST_F(MainTest, ShardsArePricedByIndexAndMerged) {
  const std::string output = dir_.File("out.jsonl");
  EXPECT_EQ(RunClient(Batch(output) + "--shard 0/2").exit_code, 0);
  const std::string merge = absl::StrCat("batch --merge --shards 2 --output ", output);
  const Outcome early = RunClient(merge);
  EXPECT_EQ(early.exit_code, 1);
  EXPECT_THAT(early.output, HasSubstr("1 of 2 shards are not done: 1"));
  EXPECT_EQ(RunShell(absl::StrCat("JOB_COMPLETION_INDEX=1 ", PRICER_CLIENT_PROGRAM, " ",
                                  Batch(output), "--shards 2 2>&1"))
                .exit_code,
            0);
  const Outcome merged = RunClient(merge);
  EXPECT_EQ(merged.exit_code, 0);
  EXPECT_THAT(merged.output, HasSubstr("2 rows, 0 with errors, of 2 shards in " + output));
  EXPECT_TRUE(std::filesystem::exists(dir_.File("out-00001-of-00002.jsonl.done")));
}

// As the pods of an Indexed Job run.
TEST_F(MainTest, TheShardThatEndsLastMerges) {
  const std::string output = dir_.File("out.jsonl");
  const auto run = [&](int index) {
    return RunShell(absl::StrCat("JOB_COMPLETION_INDEX=", index, " ", PRICER_CLIENT_PROGRAM, " ",
                                 Batch(output), "--shards 2 --merge 2>&1"));
  };
  const Outcome first = run(1);
  EXPECT_EQ(first.exit_code, 0);
  EXPECT_THAT(first.output, HasSubstr("1 of 2 shards are done"));
  EXPECT_FALSE(std::filesystem::exists(output));
  // Also where the one that ended last was killed before it had merged.
  for (int again = 0; again < 2; ++again) {
    const Outcome last = run(0);
    EXPECT_EQ(last.exit_code, 0);
    EXPECT_THAT(last.output, HasSubstr("2 of 2 shards are done"));
    EXPECT_THAT(last.output, HasSubstr("2 rows, 0 with errors, of 2 shards in " + output));
    EXPECT_TRUE(std::filesystem::remove(output));
  }
}

TEST_F(MainTest, AnOutputIsCompressedAsItsNameSays) {
  EXPECT_OK(WriteFile(input_, "{\"title\":\"pan\"}\n{\"title\":\"\"}\n"));
  ASSERT_EQ(RunClient(Batch(dir_.File("plain.jsonl"))).exit_code, 3);
  const std::string plain = *ReadFile(dir_.File("plain.jsonl"));
  for (const char* const suffix : {".gz", ".zst"}) {
    const std::string output = absl::StrCat(dir_.File("out.jsonl"), suffix);
    const Outcome outcome = RunClient(Batch(output));
    EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr("all rows are in " + output));
    EXPECT_EQ(ReadCompressed(output), plain) << suffix;
    EXPECT_EQ(ReadCompressed(absl::StrCat(dir_.File("out.rejects.jsonl"), suffix)),
              plain.substr(plain.find('\n') + 1));
    EXPECT_FALSE(std::filesystem::exists(output + ".lines"));
    EXPECT_FALSE(std::filesystem::exists(output + ".lines.done"));
  }
  // An output by name is not an input by the same name.
  std::filesystem::copy_file(dir_.File("out.jsonl.gz"), dir_.File("in.jsonl.gz"));
  EXPECT_EQ(
      RunClient(absl::StrCat("batch --server ", address_, " --input ", dir_.File("in.jsonl.gz"),
                             " --output ", dir_.File("in.jsonl.gz")))
          .exit_code,
      2);
}

TEST_F(MainTest, AnOutputThatIsMadeOfLinesIsThereWhenTheyAre) {
  const std::string output = dir_.File("out.jsonl.gz");
  const std::string batch = absl::StrCat(Batch(output), "--work ", dir_.path());
  for (const int shard : {0, 1}) {
    EXPECT_EQ(RunShell(absl::StrCat("JOB_COMPLETION_INDEX=", shard, " ", PRICER_CLIENT_PROGRAM, " ",
                                    batch, " --shards 2 --merge 2>&1"))
                  .exit_code,
              0);
    EXPECT_EQ(std::filesystem::exists(output), shard == 1);
  }
  const std::string whole = ReadCompressed(output);
  EXPECT_THAT(whole, HasSubstr("{\"row\":2,"));
  // A place that cannot be written to costs no row.
  const std::string elsewhere = dir_.File("folder/out.jsonl.gz");
  const std::string late = absl::StrCat("batch --server ", address_, " --input ", input_,
                                        " --output ", elsewhere, " --work ", dir_.path());
  const Outcome refused = RunClient(late);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output, HasSubstr("the same command takes them there"));
  std::filesystem::create_directory(dir_.File("folder"));
  const Outcome delivered = RunClient(late);
  EXPECT_EQ(delivered.exit_code, 0) << delivered.output;
  EXPECT_THAT(delivered.output, HasSubstr("2 of them by an earlier run"));
  EXPECT_EQ(ReadCompressed(elsewhere), whole);
}

TEST_F(MainTest, SoManyErrorsAsAreAllowedAreNoneToTheCaller) {
  EXPECT_OK(WriteFile(input_, "{\"title\":\"pan\"}\n{\"title\":\"\"}\n"));
  const std::string output = dir_.File("out.jsonl");
  EXPECT_EQ(RunClient(Batch(output)).exit_code, 3);
  EXPECT_EQ(RunClient(Batch(output) + "--max-reject-share 0.4").exit_code, 3);
  EXPECT_EQ(RunClient(Batch(output) + "--max-reject-share 0.5").exit_code, 0);
  EXPECT_TRUE(std::filesystem::exists(dir_.File("out.rejects.jsonl")));
  EXPECT_EQ(RunClient(Batch(output) + "--max-reject-share 1.5").exit_code, 2);
}

TEST_F(MainTest, AChangeThatIsTooFarExitsWith4) {
  const std::string before = dir_.File("before.jsonl");
  const std::string after = dir_.File("after.jsonl");
  ASSERT_EQ(RunClient(Batch(before)).exit_code, 0);
  const std::string lines = *ReadFile(before);
  const std::string compare = absl::StrCat("batch --compare ", before, " --output ", after,
                                           " --max-far-share 0.4 --report ", dir_.File("c.json"));
  ASSERT_OK(WriteFile(after, lines));
  const Outcome same = RunClient(compare);
  EXPECT_EQ(same.exit_code, 0) << same.output;
  EXPECT_THAT(same.output, HasSubstr("2 prices in both: 2 unchanged"));
  EXPECT_EQ(nlohmann::json::parse(*ReadFile(dir_.File("c.json")))["passes"], true);
  ASSERT_OK(WriteFile(after, absl::StrReplaceAll(lines, {{"\"price\":3.0", "\"price\":4.5"}})));
  const Outcome moved = RunClient(compare);
  EXPECT_EQ(moved.exit_code, 4);
  EXPECT_THAT(moved.output, HasSubstr("a: 3 to 4.5 (+50.0 %)"));
  // After pricing, against what is there now.
  const Outcome priced = RunClient(
      absl::StrCat(Batch(dir_.File("new.jsonl")), "--compare ", after, " --max-far-share 0.4"));
  EXPECT_EQ(priced.exit_code, 4);
  EXPECT_TRUE(std::filesystem::exists(dir_.File("new.jsonl")));
}

}  // namespace
}  // namespace pricer

// Runs the program itself.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/file.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::TempDir;

// `output` is of both streams, or what redirections leave of them.
Outcome RunTrainer(const std::string& arguments) {
  return testing::RunShell(std::string(PRICER_TRAINER_PROGRAM) + " 2>&1 " + arguments);
}

class MainTest : public ::testing::Test {
 protected:
  TempDir dir_;
};

TEST_F(MainTest, HelpAndVersionSucceed) {
  const Outcome help = RunTrainer("--help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("tune"), HasSubstr("evaluate")));
  EXPECT_EQ(RunTrainer("--version").exit_code, 0);
}

TEST_F(MainTest, WrongOptionsExitWith2AndAreNamed) {
  const auto expect = [](const std::string& arguments, const std::string& part) {
    const Outcome outcome = RunTrainer(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments;
    EXPECT_THAT(outcome.output, HasSubstr(part));
  };
  const std::string output = " --output " + dir_.File("catalog");
  expect("", "subcommand");
  expect("catalog --items 10 --seed 1 --nonsense" + output, "--nonsense");
  expect("catalog --items 5 --seed 1" + output, "items");
  expect("catalog --items 10 --seed -1" + output, "--seed");
  expect("import --gguf /no/file" + output, "--gguf");
  expect("probe --base /no/base --input /no/file", "--base");
  expect("merge --base /no/base --adapter a --output o", "--base");
  expect("prune --adapters " + dir_.path() + " --keep 0", "--keep");
  expect("prune --adapters " + dir_.path(), "--keep");
  expect("quantize --base /no/base --output o", "--base");
  expect("quantize --base " + dir_.path() + " --max-shard-size 5GB --output o", "--max-shard-size");
  expect("tune --base /no/base --data d --validation v --name n --output o", "--base");
  EXPECT_FALSE(std::filesystem::exists(dir_.File("catalog")));
}

TEST_F(MainTest, BadDataIsAFailureAndNoWrongUsage) {
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
  ASSERT_OK(WriteFile(dir_.File("input"), "no JSON\n"));
  const Outcome outcome =
      RunTrainer("probe --base " + dir_.File("base") + " --input " + dir_.File("input"));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("input:1: not a JSON object"));
}

TEST_F(MainTest, PruneFailsWhereAnAdapterWasLeftAloneAndNamesIt) {
  ASSERT_OK(MakeDirectories(dir_.File("shop")));
  EXPECT_EQ(RunTrainer("prune --keep 1 --adapters " + dir_.path()).output, "freed 0 bytes\n");
  ASSERT_OK(WriteFile(dir_.File("shop/labels.json"), "no JSON"));
  const Outcome outcome = RunTrainer("prune --keep 1 --adapters " + dir_.path());
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("shop/labels.json"));
}

TEST_F(MainTest, InspectExitsWithWhatItFound) {
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
  const std::string inspect = "inspect --base " + dir_.File("base") +
                              " --memory-budget 2GiB --tokens 128,256 --json " +
                              dir_.File("report.json");
  const Outcome base = RunTrainer(inspect);
  EXPECT_EQ(base.exit_code, 0) << base.output;
  EXPECT_THAT(base.output, AllOf(HasSubstr("hidden size 64"), HasSubstr("of which 1.4 GiB")));
  EXPECT_TRUE(std::filesystem::exists(dir_.File("report.json")));

  ASSERT_OK(WriteFile(dir_.File("data"), "{\"title\":\"a\",\"price\":1}\n"));
  const std::string with_data = inspect + " --data " + dir_.File("data");
  EXPECT_EQ(RunTrainer(with_data).exit_code, 0);
  const Outcome leak = RunTrainer(with_data + " --validation " + dir_.File("data"));
  EXPECT_EQ(leak.exit_code, 1);
  EXPECT_THAT(leak.output, HasSubstr("error: 100.00 %"));
  ASSERT_OK(WriteFile(dir_.File("data"), "{\"title\":\"a\",\"price\":1}\n{\"price\":1}\n"));
  EXPECT_EQ(RunTrainer(with_data).exit_code, 3);
  EXPECT_EQ(RunTrainer(inspect + " --head none").exit_code, 2);
  EXPECT_EQ(RunTrainer(inspect + " --memory-budget 2furlongs").exit_code, 2);
}

TEST_F(MainTest, InspectPlansTheAdapterThatTuneWouldMake) {
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
  const std::string inspect = "inspect --base " + dir_.File("base");
  const Outcome outcome =
      RunTrainer(inspect +
                 " --target-regex '.*layers\\.0\\.mlp\\..*_proj' --rank-pattern up_proj=4 "
                 "--exclude-modules gate_proj --lora-dropout 0.1");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output,
              HasSubstr("LoRA r 16 on .*layers\\.0\\.mlp\\..*_proj, but not gate_proj, "
                        "ranks up_proj=4"));
  EXPECT_THAT(RunTrainer(inspect + " --lora-layers 1").output,
              HasSubstr("LoRA r 16 on all-linear, in layers 1;"));
  EXPECT_EQ(RunTrainer(inspect + " --rank-pattern up_proj").exit_code, 2);
  EXPECT_EQ(RunTrainer(inspect + " --lora-layers 7").exit_code, 1);
}

TEST_F(MainTest, TablesMayHaveAnotherDelimiter) {
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
  ASSERT_OK(WriteFile(dir_.File("data.csv"), "title|price\na, b|1\nc|2\n"));
  const std::string inspect =
      "inspect --base " + dir_.File("base") + " --data " + dir_.File("data.csv");
  EXPECT_EQ(RunTrainer(inspect).exit_code, 1);
  const Outcome outcome = RunTrainer(inspect + " --csv-delimiter '|'");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  for (const char* wrong : {"ab", "'\"'", "''"}) {
    const Outcome refused = RunTrainer(inspect + " --csv-delimiter " + wrong);
    EXPECT_EQ(refused.exit_code, 2) << wrong;
    EXPECT_THAT(refused.output, HasSubstr("--csv-delimiter"));
  }
}

TEST_F(MainTest, OutputThatCannotBeWrittenIsAFailure) {
  const Outcome outcome =
      RunTrainer("catalog --items 10 --seed 1 --output " + dir_.File("catalog") + " >/dev/full");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("standard output: cannot write: No space left"));
}

}  // namespace
}  // namespace pricer

#include "base/config_flag.h"

#include <gmock/gmock.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempDir;

class ConfigFlagTest : public ::testing::Test {
 protected:
  ConfigFlagTest() {
    AddConfigFlag(&app_, "options");
    app_.add_option("--text", text_);
    app_.add_option("--number", number_);
    app_.add_option("--share", share_);
    app_.add_option("--list", list_)->delimiter(',');
    app_.add_flag("--json", json_);
    CLI::App* tune = app_.add_subcommand("tune", "");
    tune->add_option("--question", question_);
  }

  void Parse(const std::string& toml, const std::string& arguments = "") {
    ASSERT_OK(WriteFile(dir_.File("options.toml"), toml));
    app_.parse("--config " + dir_.File("options.toml") + " " + arguments);
  }

  // What the parse ends with; empty = nothing.
  std::string ErrorOf(const std::string& toml) {
    try {
      Parse(toml);
    } catch (const CLI::ParseError& error) {
      return error.what();
    }
    return "";
  }

  TempDir dir_;
  CLI::App app_;
  std::string text_, question_;
  int number_ = 0;
  double share_ = 0;
  std::vector<std::string> list_;
  bool json_ = false;
};

TEST_F(ConfigFlagTest, ReadsEveryKindOfValue) {
  Parse(
      "number = 1_000\nshare = 1e-3  # of the rows\ntext = 'plain'\nlist = [\"a\", \"b\"]\njson = "
      "true\n");
  EXPECT_EQ(number_, 1000);
  EXPECT_EQ(share_, 1e-3);
  EXPECT_EQ(text_, "plain");
  EXPECT_THAT(list_, ElementsAre("a", "b"));
  EXPECT_TRUE(json_);
}

TEST_F(ConfigFlagTest, KeepsWhatStandsInsideStrings) {
  Parse("text = \"Size #4, a = \\\"b\\\"\\n[c]\"  # a comment\n");
  EXPECT_EQ(text_, "Size #4, a = \"b\"\n[c]");
}

TEST_F(ConfigFlagTest, ASectionIsASubcommandsAndTheCommandLineWins) {
  Parse("text = \"file\"\n[tune]\nquestion = \"How much?\"\n", "--text line tune");
  EXPECT_EQ(text_, "line");
  EXPECT_EQ(question_, "How much?");
}

TEST_F(ConfigFlagTest, NamesAnUnknownKey) {
  EXPECT_THAT(ErrorOf("txt = \"a\"\n"), HasSubstr("txt"));
  EXPECT_THAT(ErrorOf("[tune]\nquestoin = \"a\"\n"), HasSubstr("questoin"));
}

TEST_F(ConfigFlagTest, NamesAValueOfAnotherKind) {
  EXPECT_THAT(ErrorOf("[tune]\nquestion = 2020-01-01\n"), HasSubstr("tune.question: expected"));
}

TEST_F(ConfigFlagTest, NamesFileAndLineOfWhatIsNotToml) {
  EXPECT_THAT(ErrorOf("number = 1\ntext = \"open\n"), HasSubstr("options.toml:2:"));
}

}  // namespace
}  // namespace pricer

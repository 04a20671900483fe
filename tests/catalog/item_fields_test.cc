#include "catalog/item_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using Header = std::vector<std::string>;

// Of a run whose columns are sound.
absl::StatusOr<std::array<int, kNumItemFields>> Find(
    const Header& header, const ItemRules& rules = {},
    const std::map<std::string, std::string>& columns = {}) {
  const absl::StatusOr<ItemColumns> item_columns = ItemColumns::Create(columns, rules);
  EXPECT_OK(item_columns);
  return item_columns->FindIn(header);
}

TEST(ItemColumnsTest, FindsColumnsByTheirNames) {
  ASSERT_OK_AND_ASSIGN(const auto places,
                       Find({"x", "price", "name", "title"}, {}, {{"brand", "name"}}));
  EXPECT_EQ(places[kPriceField], 1);
  EXPECT_EQ(places[kBrandField], 2);
  EXPECT_EQ(places[kTitleField], 3);
  EXPECT_EQ(places[kIdField], -1);
}

TEST(ItemColumnsTest, AMappedColumnThatIsMissingIsNamedWithThoseThatThereAre) {
  EXPECT_THAT(Find({"title", "price", "pr\nice"}, {}, {{"price", "cost"}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("no column \"cost\" for the field price"),
                             HasSubstr("the columns are \"title\", \"price\", \"pr\\nice\""))));
  EXPECT_THAT(Find({"title", "price"}, {}, {{"id", "sku"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"sku\"")));
}

TEST(ItemColumnsTest, PriceMustBeThereWhereItIsRequired) {
  EXPECT_THAT(Find({"title", "cost"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("\"price\""), HasSubstr("\"title\", \"cost\""))));
  EXPECT_OK(Find({"title", "cost"}, {.price_required = false}));
}

TEST(ItemColumnsTest, OneOfTheTextsMustBeThere) {
  EXPECT_THAT(Find({"id", "price", "name"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("\"title\", \"brand\""), HasSubstr("\"text\""),
                             HasSubstr("the columns are \"id\", \"price\", \"name\""))));
  for (const char* column : {"title", "brand", "category", "description", "details", "text"}) {
    EXPECT_OK(Find({"price", column})) << column;
  }
}

TEST(ItemColumnsTest, PairsNeedNeitherTextNorPrice) {
  EXPECT_OK(Find({"prompt", "completion"}, {.pairs = true}));
  EXPECT_THAT(Find({"prompt", "completion"}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Find({"prompt", "title"}, {.pairs = true}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"price\"")));
  EXPECT_OK(Find({"q", "a"}, {.pairs = true}, {{"prompt", "q"}, {"completion", "a"}}));
}

TEST(ItemColumnsTest, AColumnThatIsReadMayNotBeThereTwice) {
  EXPECT_THAT(Find({"title", "price", "title"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"title\" is there twice")));
  EXPECT_OK(Find({"x", "title", "price", "x"}));
}

TEST(ItemColumnsTest, ALongHeaderIsCutInMessages) {
  Header header;
  for (int i = 0; i < 1000; ++i) header.push_back("c" + std::to_string(i));
  EXPECT_THAT(Find(header), StatusIs(absl::StatusCode::kInvalidArgument,
                                     AllOf(HasSubstr("\"c49\", ..."), Not(HasSubstr("c50")))));
}

TEST(ItemColumnsTest, PairsAreFieldsOnlyWhereTheyAreRead) {
  EXPECT_THAT(ItemColumns::Create({{"prompt", "q"}}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("no field \"prompt\""), Not(HasSubstr("completion")))));
  EXPECT_OK(ItemColumns::Create({{"prompt", "q"}}, {.pairs = true}));
}

}  // namespace
}  // namespace pricer

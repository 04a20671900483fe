#include "catalog/item.h"

#include <gtest/gtest.h>

namespace pricer {
namespace {

TEST(ItemTextTest, PutsTheFieldsInOrderOnePerLineWithoutLabels) {
  Item item;
  item.id = "not read";
  item.details = "details";
  item.description = "description";
  item.category = "category";
  item.brand = "brand";
  item.title = "title";
  item.price = 9.5;
  item.currency = "USD";
  EXPECT_EQ(ItemText(item), "title\nbrand\ncategory\ndescription\ndetails");
}

TEST(ItemTextTest, LeavesOutEmptyFields) {
  Item item;
  EXPECT_EQ(ItemText(item), "");
  item.category = "Tools";
  EXPECT_EQ(ItemText(item), "Tools");
  item.details = "Size: 8";
  EXPECT_EQ(ItemText(item), "Tools\nSize: 8");
}

TEST(ItemTextTest, TakesFreeTextAsItIs) {
  Item item;
  item.text = " a\n\nb ";
  EXPECT_EQ(ItemText(item), " a\n\nb ");
}

}  // namespace
}  // namespace pricer

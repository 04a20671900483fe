#include "trainer/number_text.h"

#include <gmock/gmock.h>

#include <string>

namespace pricer {
namespace {

struct Case {
  std::string text;
  std::optional<double> value;
  bool complete;
};

class FindFirstNumberTest : public ::testing::TestWithParam<Case> {};

TEST_P(FindFirstNumberTest, FindsTheNumberAndWhetherItCanGrow) {
  const FirstNumber number = FindFirstNumber(GetParam().text);
  EXPECT_EQ(number.value, GetParam().value) << '"' << GetParam().text << '"';
  EXPECT_EQ(number.complete, GetParam().complete) << '"' << GetParam().text << '"';
}

INSTANTIATE_TEST_SUITE_P(
    Texts, FindFirstNumberTest,
    ::testing::Values(Case{"", std::nullopt, false}, Case{"no price", std::nullopt, false},
                      Case{"$", std::nullopt, false}, Case{".", std::nullopt, false},
                      Case{"149", 149, false}, Case{"149\n", 149, true}, Case{"149.", 149, false},
                      Case{"149.9", 149.9, false}, Case{"149.99 each", 149.99, true},
                      Case{"149. It", 149, true}, Case{"$1,299.00 USD", 1299, true},
                      Case{"$1,299.00", 1299, false}, Case{"1,299", 1299, false},
                      Case{"1,299,", 1299, false}, Case{"1,", 1, false}, Case{"1,2", 1, false},
                      Case{"12,5 kg", 12, true}, Case{"1,2345", 1, true},
                      Case{"1,234,567 x", 1234567, true}, Case{"1234,567", 1234, true},
                      Case{".5 ", 0.5, true}, Case{"about 20 or 30", 20, true},
                      Case{"-5 ", 5, true}, Case{"0", 0, false}, Case{"7.8.9", 7.8, true},
                      Case{"10, 20", 10, true},
                      Case{"\xc2\xa3"
                           "12 ",
                           12, true}));

TEST(RoundTripTextTest, HasAsManyDigitsAsItTakes) {
  EXPECT_EQ(RoundTripText(2e-4), "0.0002");
  EXPECT_EQ(RoundTripText(1e-8), "1e-08");
  EXPECT_EQ(RoundTripText(32), "32");
  EXPECT_EQ(RoundTripText(1.23456789e-4), "0.000123456789");
  EXPECT_EQ(std::stod(RoundTripText(0.1 + 0.2)), 0.1 + 0.2);
}

}  // namespace
}  // namespace pricer

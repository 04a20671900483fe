#include "base/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace pricer {
namespace {

// Straight from the bit layout, without any check.
std::string Encode(uint32_t point, int length) {
  if (length == 1) return std::string(1, static_cast<char>(point));
  std::string bytes;
  constexpr unsigned char kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  bytes.push_back(static_cast<char>(kLead[length] | (point >> (6 * (length - 1)))));
  for (int i = length - 2; i >= 0; --i) {
    bytes.push_back(static_cast<char>(0x80 | ((point >> (6 * i)) & 0x3F)));
  }
  return bytes;
}

int ShortestLength(uint32_t point) {
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

TEST(Utf8Test, AcceptsEveryCharacterAndNoOtherFormOfIt) {
  for (uint32_t point = 0; point < 0x120000; ++point) {
    const bool is_character = point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF);
    const int shortest = ShortestLength(point);
    ASSERT_EQ(IsValidUtf8(Encode(point, shortest)), is_character) << std::hex << point;
    for (int longer = shortest + 1; longer <= 4; ++longer) {
      ASSERT_FALSE(IsValidUtf8(Encode(point, longer))) << std::hex << point;
    }
  }
}

TEST(Utf8Test, FindsTheFirstWrongByteWhereverItStands) {
  for (size_t before = 0; before < 40; ++before) {
    for (size_t after = 0; after < 20; ++after) {
      const std::string text =
          std::string(before, 'a') + "\xC3\xA9" + "\xFF" + std::string(after, 'b');
      ASSERT_EQ(FindInvalidUtf8(text), before + 2);
      ASSERT_TRUE(IsValidUtf8(absl::string_view(text).substr(0, before + 2)));
    }
  }
}

TEST(Utf8Test, RefusesCutSequencesAndLoneContinuations) {
  const std::string emoji = "\xF0\x9F\x98\x80";
  EXPECT_TRUE(IsValidUtf8(emoji));
  for (size_t length = 1; length < emoji.size(); ++length) {
    EXPECT_EQ(FindInvalidUtf8(emoji.substr(0, length)), 0);
    EXPECT_EQ(FindInvalidUtf8(emoji.substr(length)), 0);
    EXPECT_EQ(FindInvalidUtf8(emoji.substr(0, length) + "abcdefgh"), 0);
  }
  EXPECT_TRUE(IsValidUtf8(""));
}

TEST(Utf8Test, PrefixEndsBetweenCharacters) {
  const std::string text = "a\xC3\xA9\xF0\x9F\x98\x80z";
  EXPECT_EQ(Utf8Prefix(text, 0), "");
  EXPECT_EQ(Utf8Prefix(text, 1), "a");
  EXPECT_EQ(Utf8Prefix(text, 2), "a");
  EXPECT_EQ(Utf8Prefix(text, 3), "a\xC3\xA9");
  EXPECT_EQ(Utf8Prefix(text, 6), "a\xC3\xA9");
  EXPECT_EQ(Utf8Prefix(text, 7), "a\xC3\xA9\xF0\x9F\x98\x80");
  EXPECT_EQ(Utf8Prefix(text, 100), text);
}

}  // namespace
}  // namespace pricer

#include "trainer/near_duplicates.h"

#include <gmock/gmock.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "catalog/random.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::FieldsAre;
using ::testing::IsEmpty;

std::string Text(const std::vector<int>& words) {
  return absl::StrJoin(words, " ",
                       [](std::string* out, int word) { absl::StrAppend(out, "word", word); });
}

std::vector<int> RandomWords(Random* random, size_t count) {
  std::vector<int> words(count);
  for (int& word : words) word = static_cast<int>(random->Index(5000));
  return words;
}

// The first `changed` words replaced by others: the shingles that hold one of them are lost.
std::vector<int> Changed(std::vector<int> words, size_t changed) {
  for (size_t i = 0; i < changed; ++i) words[i] += 10000;
  return words;
}

double TrueSimilarity(const std::vector<int>& a, const std::vector<int>& b) {
  const auto shingles = [](const std::vector<int>& words) {
    std::set<std::vector<int>> set;
    for (size_t i = 0; i + kShingleWords <= words.size(); ++i) {
      set.emplace(words.begin() + static_cast<int64_t>(i),
                  words.begin() + static_cast<int64_t>(i) + kShingleWords);
    }
    return set;
  };
  const auto left = shingles(a);
  const auto right = shingles(b);
  size_t common = 0;
  for (const auto& shingle : left) common += right.count(shingle);
  return static_cast<double>(common) / static_cast<double>(left.size() + right.size() - common);
}

TEST(SignTextTest, EqualityIsOfWordsAndTheirOrder) {
  const uint64_t hash = SignText("Cast iron skillet, 26 cm").words_hash;
  EXPECT_EQ(SignText("  cast IRON\nskillet -- 26 cm.").words_hash, hash);
  EXPECT_NE(SignText("Cast iron skillet 26 mm").words_hash, hash);
  EXPECT_NE(SignText("iron cast skillet 26 cm").words_hash, hash);
  EXPECT_NE(SignText("castiron skillet 26 cm").words_hash, hash);
  EXPECT_NE(SignText("caf\xc3\xa9").words_hash, SignText("caf\xc3\xa8").words_hash);
}

TEST(SignTextTest, TextsWithoutWordsAreNotAllTheSame) {
  EXPECT_NE(SignText("!!!").words_hash, SignText("???").words_hash);
  EXPECT_EQ(Similarity(SignText("!!!"), SignText("!!!")), 1.0);
}

TEST(SignTextTest, ShortTextsAreNearOnlyWhereTheyAreEqual) {
  EXPECT_EQ(Similarity(SignText("red cup"), SignText("Red cup!")), 1.0);
  EXPECT_LT(Similarity(SignText("red cup"), SignText("red mug")), 0.1);
}

TEST(SimilarityTest, EstimatesJaccardOfShingles) {
  Random random(1);
  double error_sum = 0;
  for (int i = 0; i < 300; ++i) {
    const std::vector<int> words = RandomWords(&random, 60);
    const std::vector<int> other = Changed(words, 1 + i % 20);
    error_sum +=
        Similarity(SignText(Text(words)), SignText(Text(other))) - TrueSimilarity(words, other);
  }
  EXPECT_NEAR(error_sum / 300, 0, 0.01);
}

TEST(DuplicateFinderTest, CountsRowsEqualToOneBeforeThem) {
  DuplicateFinder finder;
  const std::vector<std::string> texts = {"a b c", "d e f", "A, b, c", "a b c", "g"};
  for (size_t i = 0; i < texts.size(); ++i) {
    finder.AddTraining(SignText(texts[i]), static_cast<int64_t>(10 + i));
  }
  const DuplicateFinder::Result result = finder.Find();
  EXPECT_EQ(result.training.exact, 2);
  EXPECT_EQ(result.training.near, 0);
  EXPECT_THAT(result.training.first_exact, ElementsAre(FieldsAre(12, 10), FieldsAre(13, 10)));
  EXPECT_EQ(result.leak.total(), 0);
}

TEST(DuplicateFinderTest, ALeakIsARowOfTheValidationThatTheTrainingHas) {
  Random random(3);
  const std::vector<int> known = RandomWords(&random, 60);
  const std::vector<int> alone = RandomWords(&random, 60);
  DuplicateFinder finder;
  finder.AddTraining(SignText(Text(RandomWords(&random, 60))), 1);
  finder.AddTraining(SignText(Text(known)), 2);
  finder.AddValidation(SignText(Text(known)), 1);
  finder.AddValidation(SignText(Text(Changed(known, 1))), 2);
  finder.AddValidation(SignText(Text(Changed(known, 1))), 3);
  // Twins of one another alone.
  finder.AddValidation(SignText(Text(alone)), 4);
  finder.AddValidation(SignText(Text(alone)), 5);
  finder.AddValidation(SignText(Text(Changed(alone, 1))), 6);
  const DuplicateFinder::Result result = finder.Find();
  EXPECT_EQ(result.leak.exact, 1);
  EXPECT_EQ(result.leak.near, 2);
  EXPECT_THAT(result.leak.first_exact, ElementsAre(FieldsAre(1, 2)));
  EXPECT_THAT(result.leak.first_near, ElementsAre(FieldsAre(2, 2), FieldsAre(3, 2)));
  EXPECT_EQ(result.training.total(), 0);
  EXPECT_THAT(result.training.first_near, IsEmpty());
}

// Pairs well above the border are found, pairs well below are not, among many other texts.
TEST(DuplicateFinderTest, RecallAndPrecisionOfSyntheticNearDuplicates) {
  Random random(5);
  constexpr int kPairs = 1000;
  DuplicateFinder finder;
  std::vector<std::vector<int>> originals;
  for (int i = 0; i < kPairs; ++i) {
    originals.push_back(RandomWords(&random, 70));
    finder.AddTraining(SignText(Text(originals.back())), i + 1);
  }
  int should = 0;
  int should_not = 0;
  std::vector<double> similarity;
  for (int i = 0; i < kPairs; ++i) {
    // 4 words of 70: 0.89; 13: 0.67.
    const std::vector<int> changed = Changed(originals[i], i % 2 == 0 ? 4 : 13);
    similarity.push_back(TrueSimilarity(originals[i], changed));
    ++(similarity.back() > 0.85 ? should : should_not);
    ASSERT_TRUE(similarity.back() > 0.85 || similarity.back() < 0.7) << similarity.back();
    finder.AddValidation(SignText(Text(changed)), i + 1);
  }
  ASSERT_EQ(should, kPairs / 2);
  ASSERT_EQ(should_not, kPairs / 2);
  const DuplicateFinder::Result result = finder.Find();
  // At 0.89 the estimate is below 0.8 for one pair in a hundred, at 0.67 above for one in seventy.
  EXPECT_GE(result.leak.near, 0.95 * should);
  EXPECT_LE(result.leak.near, should + 0.03 * should_not);
  EXPECT_EQ(result.leak.exact, 0);
  EXPECT_EQ(result.training.total(), 0);
  for (const DuplicatePair& pair : result.leak.first_near) EXPECT_EQ(pair.row, pair.other_row);
}

// Many texts of one template share bands; the work stays bounded and a copy is still found.
TEST(DuplicateFinderTest, FindsNearTextsOfATemplate) {
  Random random(7);
  const std::vector<int> shared = RandomWords(&random, 40);
  DuplicateFinder finder;
  constexpr int kTexts = 3000;
  for (int i = 0; i < kTexts; ++i) {
    std::vector<int> words = shared;
    words.push_back(100000 + i);
    finder.AddTraining(SignText(Text(words)), i + 1);
  }
  const DuplicateFinder::Result result = finder.Find();
  EXPECT_EQ(result.training.exact, 0);
  EXPECT_EQ(result.training.near, kTexts - 1);
}

}  // namespace
}  // namespace pricer

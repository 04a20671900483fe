#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

// Texts that are equal, or nearly so, among many, without keeping them.
//
// Equal: the same words in the same order. Words are runs of ASCII letters and digits and of all
// bytes beyond ASCII; ASCII letters count as lower case.
// Near: the Jaccard similarity of the sets of runs of kShingleWords words (a shorter text is one
// run) is at least kNearSimilarity, as MinHash (Broder, 1997) estimates it by kMinHashes hashes: to
// 0.05 (standard deviation) at 0.8, so that pairs at the border are a matter of luck. Pairs are
// looked for where a band of kBandRows hashes is equal (locality-sensitive hashing), which finds
// 99.98 % of those at 0.8; of many texts that share a band each is compared with the
// kMostCompared before it.

namespace pricer {

inline constexpr int kShingleWords = 5;
inline constexpr int kMinHashes = 64;
inline constexpr int kBandRows = 4;
inline constexpr double kNearSimilarity = 0.8;
inline constexpr int kMostCompared = 128;

struct TextSignature {
  uint64_t words_hash = 0;
  std::array<uint32_t, kMinHashes> min_hashes;
};

// The same on every machine. Thread-safe. Cost: some microseconds for a text of fifty words.
TextSignature SignText(absl::string_view text);

// Estimated Jaccard similarity.
double Similarity(const TextSignature& a, const TextSignature& b);

// A row and one before it, or of the training data, that is equal or near; both count from 1.
struct DuplicatePair {
  int64_t row = 0;
  int64_t other_row = 0;
};

struct DuplicateCounts {
  int64_t exact = 0;                       // rows equal to another one
  int64_t near = 0;                        // rows near to another one and equal to none
  std::vector<DuplicatePair> first_exact;  // kept of both, the first few
  std::vector<DuplicatePair> first_near;

  int64_t total() const { return exact + near; }
};

// Collects signatures, about 280 bytes for each different text. One thread.
class DuplicateFinder {
 public:
  // `row` is the number that is reported. REQUIRES: all training rows are added before those of the
  // validation.
  void AddTraining(const TextSignature& signature, int64_t row);
  void AddValidation(const TextSignature& signature, int64_t row);

  struct Result {
    DuplicateCounts training;  // rows of the training data against those before them
    DuplicateCounts leak;      // rows of the validation against the training data
  };
  // Time grows with n log n.
  Result Find() const;

 private:
  // Rows with the same words.
  struct Text {
    int64_t training_row = 0;  // the first; 0 = none
    std::vector<int64_t> validation_rows;
  };
  static constexpr size_t kNone = ~size_t{0};

  // The text's place, and whether it is new.
  std::pair<size_t, bool> Place(const TextSignature& signature);
  // Of each text an earlier one of the training data that is near; kNone.
  std::vector<size_t> NearTexts() const;
  void CompareBand(int band, std::vector<size_t>* near) const;
  bool AreNear(size_t a, size_t b) const;

  absl::flat_hash_map<uint64_t, size_t> place_of_;
  std::vector<Text> texts_;
  std::vector<std::array<uint32_t, kMinHashes>> min_hashes_;  // of the texts
  DuplicateCounts training_;                                  // its exact ones
};

}  // namespace pricer

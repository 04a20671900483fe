#include "trainer/near_duplicates.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace pricer {
namespace {

constexpr size_t kPairsKept = 5;
constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;

// The finalizer of SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
// Generators", 2014.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

bool IsWordByte(unsigned char byte) {
  return byte >= 0x80 || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
         (byte >= '0' && byte <= '9');
}

unsigned char LowerCase(unsigned char byte) {
  return byte >= 'A' && byte <= 'Z' ? static_cast<unsigned char>(byte + ('a' - 'A')) : byte;
}

// FNV-1a of every word, mixed.
std::vector<uint64_t> HashWords(absl::string_view text) {
  std::vector<uint64_t> words;
  uint64_t hash = kFnvOffset;
  bool in_word = false;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (IsWordByte(byte)) {
      hash = (hash ^ LowerCase(byte)) * kFnvPrime;
      in_word = true;
    } else if (in_word) {
      words.push_back(Mix(std::exchange(hash, kFnvOffset)));
      in_word = false;
    }
  }
  if (in_word) words.push_back(Mix(hash));
  return words;
}

// Of words in their order.
uint64_t Chain(const uint64_t* words, size_t count) {
  uint64_t hash = count;
  for (size_t i = 0; i < count; ++i) hash = Mix(hash ^ words[i]);
  return hash;
}

void KeepFirst(std::vector<DuplicatePair>* pairs, int64_t row, int64_t other_row) {
  if (pairs->size() < kPairsKept) pairs->push_back({row, other_row});
}

}  // namespace

TextSignature SignText(absl::string_view text) {
  static const std::array<uint64_t, kMinHashes> seeds = [] {
    std::array<uint64_t, kMinHashes> mixed;
    for (size_t i = 0; i < mixed.size(); ++i) mixed[i] = Mix(i + 1);
    return mixed;
  }();
  std::vector<uint64_t> words = HashWords(text);
  // Signs alone are one word.
  if (words.empty()) {
    uint64_t hash = kFnvOffset;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * kFnvPrime;
    words.push_back(Mix(hash));
  }
  TextSignature signature;
  signature.words_hash = Chain(words.data(), words.size());
  signature.min_hashes.fill(std::numeric_limits<uint32_t>::max());
  const size_t length = std::min<size_t>(words.size(), kShingleWords);
  for (size_t begin = 0; begin + length <= words.size(); ++begin) {
    const uint64_t shingle = Chain(words.data() + begin, length);
    for (size_t i = 0; i < seeds.size(); ++i) {
      const auto hash = static_cast<uint32_t>(Mix(shingle ^ seeds[i]) >> 32);
      signature.min_hashes[i] = std::min(signature.min_hashes[i], hash);
    }
  }
  return signature;
}

double Similarity(const TextSignature& a, const TextSignature& b) {
  int equal = 0;
  for (size_t i = 0; i < a.min_hashes.size(); ++i) equal += a.min_hashes[i] == b.min_hashes[i];
  return static_cast<double>(equal) / kMinHashes;
}

std::pair<size_t, bool> DuplicateFinder::Place(const TextSignature& signature) {
  const auto [place, is_new] = place_of_.try_emplace(signature.words_hash, texts_.size());
  if (is_new) {
    texts_.emplace_back();
    min_hashes_.push_back(signature.min_hashes);
  }
  return {place->second, is_new};
}

void DuplicateFinder::AddTraining(const TextSignature& signature, int64_t row) {
  const auto [place, is_new] = Place(signature);
  if (is_new) {
    texts_[place].training_row = row;
    return;
  }
  ++training_.exact;
  KeepFirst(&training_.first_exact, row, texts_[place].training_row);
}

void DuplicateFinder::AddValidation(const TextSignature& signature, int64_t row) {
  texts_[Place(signature).first].validation_rows.push_back(row);
}

bool DuplicateFinder::AreNear(size_t a, size_t b) const {
  int equal = 0;
  for (size_t i = 0; i < kMinHashes; ++i) equal += min_hashes_[a][i] == min_hashes_[b][i];
  return static_cast<double>(equal) >= kNearSimilarity * kMinHashes;
}

void DuplicateFinder::CompareBand(int band, std::vector<size_t>* near) const {
  // Texts by the hash of their band; those of one band in their order.
  std::vector<std::pair<uint64_t, size_t>> order(texts_.size());
  for (size_t i = 0; i < texts_.size(); ++i) {
    uint64_t hash = 0;
    for (int row = 0; row < kBandRows; ++row) {
      hash = Mix(hash ^ min_hashes_[i][static_cast<size_t>(band * kBandRows + row)]);
    }
    order[i] = {hash, i};
  }
  std::sort(order.begin(), order.end());
  for (size_t begin = 0, i = 0; i < order.size(); ++i) {
    if (order[i].first != order[begin].first) begin = i;
    size_t& found = (*near)[order[i].second];
    const size_t oldest = std::max(begin, i - std::min<size_t>(i, kMostCompared));
    for (size_t j = i; found == kNone && j > oldest; --j) {
      const size_t other = order[j - 1].second;
      if (texts_[other].training_row > 0 && AreNear(order[i].second, other)) found = other;
    }
  }
}

std::vector<size_t> DuplicateFinder::NearTexts() const {
  std::vector<size_t> near(texts_.size(), kNone);
  for (int band = 0; band < kMinHashes / kBandRows; ++band) CompareBand(band, &near);
  return near;
}

DuplicateFinder::Result DuplicateFinder::Find() const {
  const std::vector<size_t> near = NearTexts();
  Result result{.training = training_, .leak = {}};
  for (size_t i = 0; i < texts_.size(); ++i) {
    const Text& text = texts_[i];
    const int64_t near_row = near[i] == kNone ? 0 : texts_[near[i]].training_row;
    if (text.training_row > 0 && near_row > 0) {
      ++result.training.near;
      KeepFirst(&result.training.first_near, text.training_row, near_row);
    }
    for (const int64_t row : text.validation_rows) {
      if (text.training_row > 0) {
        ++result.leak.exact;
        KeepFirst(&result.leak.first_exact, row, text.training_row);
      } else if (near_row > 0) {
        ++result.leak.near;
        KeepFirst(&result.leak.first_near, row, near_row);
      }
    }
  }
  return result;
}

}  // namespace pricer

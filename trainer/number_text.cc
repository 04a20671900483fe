#include "trainer/number_text.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace pricer {
namespace {

bool DigitAt(absl::string_view text, size_t i) {
  return i < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[i]));
}

// Where a number begins: at a digit, or at a point before one.
size_t FindStart(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (DigitAt(text, i) || (text[i] == '.' && DigitAt(text, i + 1))) return i;
  }
  return text.size();
}

size_t SkipDigits(absl::string_view text, size_t i) {
  while (DigitAt(text, i)) ++i;
  return i;
}

// One past the integer part that begins at `start`. `open` is set where the text ends inside what
// may become a group.
size_t IntegerEnd(absl::string_view text, size_t start, bool* open) {
  size_t end = SkipDigits(text, start);
  if (end - start > 3) return end;
  while (end < text.size() && text[end] == ',') {
    const size_t group_end = SkipDigits(text, end + 1);
    const size_t digits = group_end - (end + 1);
    if (group_end == text.size() && digits <= 3) *open = true;
    if (digits != 3) break;
    end = group_end;
  }
  return end;
}

}  // namespace

FirstNumber FindFirstNumber(absl::string_view text) {
  FirstNumber number;
  const size_t start = FindStart(text);
  if (start == text.size()) return number;
  bool open = false;
  size_t end = IntegerEnd(text, start, &open);
  if (end < text.size() && text[end] == '.') {
    if (end + 1 == text.size()) open = true;
    if (DigitAt(text, end + 1)) end = SkipDigits(text, end + 1);
  }
  std::string digits;
  for (char c : text.substr(start, end - start)) {
    if (c != ',') digits.push_back(c);
  }
  double value = 0;
  if (absl::SimpleAtod(digits, &value)) number.value = value;
  number.complete = !open && end < text.size();
  return number;
}

std::string RoundTripText(double value) {
  std::string text;
  for (int digits = 6; digits <= 17; ++digits) {
    text = absl::StrFormat("%.*g", digits, value);
    double back = 0;
    if (absl::SimpleAtod(text, &back) && back == value) break;
  }
  return text;
}

}  // namespace pricer

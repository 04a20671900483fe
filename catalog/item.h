#pragma once

#include <optional>
#include <string>

namespace pricer {

// A product as a shop describes it. All strings are UTF-8; an absent field is empty.
struct Item {
  std::string id;
  std::string title;
  std::string brand;
  std::string category;
  std::string description;
  std::string details;
  // Free text instead of the five fields above; never set together with them.
  std::string text;
  // A ready training pair, read only where a caller asks for pairs; both are empty or neither.
  std::string prompt;
  std::string completion;
  // In units of `currency`; absent where the price is what is asked for.
  std::optional<double> price;
  // ISO 4217 code; empty = the run's currency.
  std::string currency;
};

// What the model reads of an item: `text`, or the non-empty fields title, brand, category,
// description and details, one per line and without labels.
std::string ItemText(const Item& item);

}  // namespace pricer

#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "catalog/item.h"

namespace pricer {

// One line of JSON without a line feed, keys in the order id, prompt, completion, title, brand,
// category, description, details, price, currency. `text` stands in the place of title to details
// where it is set; an absent price and an empty pair are left out. Strings are UTF-8 (other bytes
// become U+FFFD), the price is finite and written with the fewest digits that read back as the same
// double. ItemReader reads the line back.
std::string ItemToJson(const Item& item);

// Appends `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(absl::string_view text, std::string* out);

}  // namespace pricer

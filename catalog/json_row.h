#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "catalog/item_fields.h"

namespace pricer {

// Takes the values of an item's fields from lines of JSON. One thread.
class JsonRowScanner {
 public:
  explicit JsonRowScanner(const ItemColumns& columns) : columns_(columns) {}

  // Fills `values`, whose texts hold until the next call, or says why not; the values are then
  // unspecified. The line is UTF-8 and one JSON object (RFC 8259, strict), its numbers within the
  // range of a double. Other columns are ignored; of a repeated key the last counts.
  std::optional<Reject> Scan(absl::string_view line, FieldValues* values);

 private:
  const ItemColumns columns_;
  std::string buffer_;  // of the line, decoded in place
};

}  // namespace pricer

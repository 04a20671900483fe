#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "catalog/row_source.h"
#include "tests/testing/status_matchers.h"

namespace pricer::testing {

// "2: title=a price=#3" or "2: column: reason" of each row; # marks a number, ! any other value
// that is no string.
inline absl::StatusOr<std::vector<std::string>> RowsOf(const std::string& path,
                                                       const ItemColumns& columns,
                                                       const RowSourceOptions& options = {}) {
  ASSIGN_OR_RETURN(const std::unique_ptr<RowSource> source, OpenRowSource(path, columns, options));
  std::vector<std::string> rows;
  Row row;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, source->Next(&row));
    if (!more) return rows;
    std::vector<std::string> parts;
    for (int field = 0; field < kNumItemFields; ++field) {
      const FieldValue& value = row.values[field];
      if (value.kind == FieldValue::Kind::kAbsent || value.kind == FieldValue::Kind::kNull) {
        continue;
      }
      const bool is_string = value.kind == FieldValue::Kind::kString;
      const char* mark = value.kind == FieldValue::Kind::kNumber ? "#" : "!";
      parts.push_back(absl::StrCat(columns.names()[field], "=", is_string ? "" : mark, value.text));
    }
    rows.push_back(absl::StrCat(row.number, ": ",
                                row.reject.has_value()
                                    ? absl::StrCat(row.reject->field, ": ", row.reject->reason)
                                    : absl::StrJoin(parts, " ")));
  }
}

// Every field in a column of its own name.
inline ItemColumns AllColumns() {
  const absl::StatusOr<ItemColumns> columns =
      ItemColumns::Create({}, {.price_required = false, .pairs = true});
  EXPECT_OK(columns);
  return *columns;
}

}  // namespace pricer::testing

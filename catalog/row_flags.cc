#include "catalog/row_flags.h"

#include <CLI/CLI.hpp>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "catalog/item_parser.h"
#include "catalog/item_reader.h"

namespace pricer {
namespace {

// Throw what CLI11 reports as wrong usage.

void ParseColumns(const std::vector<std::string>& entries,
                  std::map<std::string, std::string>* columns) {
  absl::StatusOr<std::map<std::string, std::string>> parsed = ItemParser::ParseColumns(entries);
  if (!parsed.ok()) throw CLI::ValidationError("--field", std::string(parsed.status().message()));
  *columns = *std::move(parsed);
}

void ParseDelimiter(const std::string& text, char* delimiter) {
  const char parsed = text == "tab" || text == "\\t" ? '\t' : text.size() == 1 ? text[0] : '\0';
  ItemReaderOptions options;
  options.csv_delimiter = parsed;
  if (parsed == '\0' || !options.Validate().ok()) {
    throw CLI::ValidationError("--csv-delimiter",
                               "expected one ASCII character but no quote or line end, or the word "
                               "tab, got " +
                                   text);
  }
  *delimiter = parsed;
}

}  // namespace

void AddFieldOption(CLI::App* app, std::map<std::string, std::string>* columns) {
  app->add_option_function<std::vector<std::string>>(
         "--field",
         [columns](const std::vector<std::string>& entries) { ParseColumns(entries, columns); },
         "FIELD=COLUMN: the column of the file that holds a field (id, title, brand, category, "
         "description, details, text, price, currency); can be repeated")
      ->expected(1)
      ->take_all();
}

void AddCsvDelimiterOption(CLI::App* app, char* delimiter) {
  app->add_option_function<std::string>(
      "--csv-delimiter", [delimiter](const std::string& text) { ParseDelimiter(text, delimiter); },
      "Of CSV: one character, or the word tab; if not given, the most frequent of comma, semicolon "
      "and tab in the header");
}

}  // namespace pricer

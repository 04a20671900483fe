#pragma once

#include <map>
#include <string>

namespace CLI {
class App;
}

namespace pricer {

// Options of every command that reads a file of items. The targets must outlive the parsing.

// --field FIELD=COLUMN; see ItemParser::ParseColumns.
void AddFieldOption(CLI::App* app, std::map<std::string, std::string>* columns);

// --csv-delimiter; see ItemReaderOptions.
void AddCsvDelimiterOption(CLI::App* app, char* delimiter);

}  // namespace pricer

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "trainer/base_model.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace pricer {

// Options that several subcommands have. The targets must outlive the parsing.

// --base, --weights, --dtype, --threads. `weights_help` says what "auto" means here.
void AddBaseOptions(CLI::App* app, BaseOptions* options, const std::string& weights_help);

// --preset, --question, --prefix, --max-prompt-tokens.
void AddPromptOptions(CLI::App* app, PromptOptions* options);

// --currency, --field, --csv-delimiter, --max-reject-share.
void AddRowOptions(CLI::App* app, std::string* currency,
                   std::map<std::string, std::string>* columns, char* csv_delimiter,
                   double* max_reject_share);

// A size such as 512MiB or 1.5GiB.
CLI::Option* AddBytesOption(CLI::App* app, const std::string& name, const std::string& help,
                            const std::function<void(int64_t)>& set);

// --max-shard-size; `bytes` holds the default.
void AddShardOption(CLI::App* app, int64_t* bytes);

}  // namespace pricer

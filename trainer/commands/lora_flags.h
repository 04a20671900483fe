#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "trainer/lora_options.h"

namespace pricer {

// PATTERN=VALUE, the pattern up to the last "=". Throws what CLI11 reports as wrong usage.
template <typename Number>
void AddPatternOption(CLI::App* app, const std::string& name, const std::string& help,
                      std::map<std::string, Number>* patterns) {
  app->add_option_function<std::vector<std::string>>(
         name,
         [name, patterns](const std::vector<std::string>& entries) {
           for (const std::string& entry : entries) {
             const size_t equals = entry.rfind('=');
             Number value{};
             if (equals == std::string::npos || equals == 0 ||
                 !CLI::detail::lexical_cast(entry.substr(equals + 1), value)) {
               throw CLI::ValidationError(name, "expected PATTERN=NUMBER, got " + entry);
             }
             (*patterns)[entry.substr(0, equals)] = value;
           }
         },
         help)
      ->expected(1)
      ->take_all();
}

// --lora-r, --lora-dropout, --target-modules, --target-regex, --exclude-modules, --lora-layers,
// --rank-pattern.
void AddLoraOptions(CLI::App* app, LoraOptions* options);

}  // namespace pricer

#include "base/config_flag.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <istream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace pricer {
namespace {

std::string NumberText(double value) {
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

std::string ValueText(const std::string& key, const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return absl::StrCat(number->get());
  if (const auto* number = node.as_floating_point()) return NumberText(number->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  throw CLI::ConfigError(absl::StrCat(
      key,
      ": expected a string, a number, a boolean or a list of these, got a value that is none"));
}

void AppendItems(const toml::table& table, const std::vector<std::string>& parents,
                 std::vector<CLI::ConfigItem>* items) {
  for (const auto& [key, node] : table) {
    std::vector<std::string> path = parents;
    path.emplace_back(key.str());
    if (const toml::table* section = node.as_table()) {
      AppendItems(*section, path, items);
      continue;
    }
    CLI::ConfigItem item;
    item.parents = parents;
    item.name = std::string(key.str());
    const std::string full_name = absl::StrJoin(path, ".");
    if (const toml::array* list = node.as_array()) {
      for (const toml::node& element : *list) item.inputs.push_back(ValueText(full_name, element));
    } else {
      item.inputs.push_back(ValueText(full_name, node));
    }
    items->push_back(std::move(item));
  }
}

// CLI11's own reader takes lines apart at '#', also inside strings, and knows no escapes.
class TomlConfig final : public CLI::ConfigTOML {
 public:
  explicit TomlConfig(const CLI::App* app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items;
    try {
      AppendItems(toml::parse(input), {}, &items);
    } catch (const toml::parse_error& error) {
      const toml::source_position at = error.source().begin;
      throw CLI::ConfigError(absl::StrCat(Path(), ":", at.line, ":", at.column, ": ",
                                          std::string(error.description())));
    }
    return items;
  }

 private:
  std::string Path() const {
    const std::vector<std::string>& paths = app_->get_config_ptr()->results();
    return paths.empty() ? "--config" : paths.back();
  }

  const CLI::App* const app_;
};

}  // namespace

void AddConfigFlag(CLI::App* app, const std::string& help) {
  app->set_config("--config", "", help);
  app->config_formatter(std::make_shared<TomlConfig>(app));
  app->allow_config_extras(CLI::config_extras_mode::error);
}

}  // namespace pricer

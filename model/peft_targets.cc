#include <algorithm>
#include <cmath>
#include <regex>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/peft_config.h"

// PEFT's matching of modules: src/peft/tuners/tuners_utils.py, check_target_module_exists, and
// src/peft/utils/other.py, get_pattern_key.

namespace pricer {
namespace {

constexpr int64_t kMaxPatternBytes = 1024;
constexpr int64_t kMaxExpandedBytes = 4096;

absl::Status BadPattern(absl::string_view field, absl::string_view pattern,
                        absl::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("field '", field, "': regular expression ", Quoted(pattern), ": ", problem));
}

// Length with counted repetitions written out, an upper bound: the compiler copies what is
// repeated.
int64_t ExpandedBytes(absl::string_view pattern) {
  int64_t bytes = pattern.size();
  for (size_t i = 0; i < pattern.size() && bytes <= kMaxExpandedBytes; ++i) {
    if (pattern[i] != '{') continue;
    int64_t largest = 1;
    int64_t number = 0;
    for (++i; i < pattern.size() && pattern[i] != '}'; ++i) {
      number = absl::ascii_isdigit(pattern[i]) ? number * 10 + (pattern[i] - '0') : 0;
      largest = std::max(largest, std::min(number, kMaxExpandedBytes));
      if (number > kMaxExpandedBytes) return kMaxExpandedBytes + 1;
    }
    bytes *= largest;
  }
  return bytes;
}

// What Python and ECMAScript read differently without either calling it an error.
absl::Status CheckDialect(absl::string_view field, absl::string_view pattern) {
  for (const char* construct : {"[]", "[^]", "[:", "[.", "[="}) {
    if (absl::StrContains(pattern, construct)) {
      return BadPattern(field, pattern, absl::StrCat("'", construct, "' is not supported"));
    }
  }
  for (size_t i = 0; i + 1 < pattern.size(); ++i) {
    if (pattern[i] != '\\') continue;
    const char escaped = pattern[++i];
    if (absl::ascii_isalpha(escaped) &&
        !absl::StrContains("bBdDsSwWtnrfv", absl::string_view(&escaped, 1))) {
      return BadPattern(field, pattern,
                        absl::StrCat("'\\", absl::string_view(&escaped, 1), "' is not supported"));
    }
  }
  return absl::OkStatus();
}

// The polynomial matcher is libstdc++'s own: the usual one takes exponential time on hostile
// patterns.
absl::StatusOr<std::regex> Compile(absl::string_view field, absl::string_view pattern,
                                   absl::string_view wrapped) {
  if (static_cast<int64_t>(pattern.size()) > kMaxPatternBytes ||
      ExpandedBytes(pattern) > kMaxExpandedBytes) {
    return BadPattern(field, pattern,
                      absl::StrCat("longer than ", kMaxPatternBytes, " bytes, or ",
                                   kMaxExpandedBytes, " with its repetitions written out"));
  }
  RETURN_IF_ERROR(CheckDialect(field, pattern));
  try {
    return std::regex(std::string(wrapped),
                      std::regex::ECMAScript | std::regex_constants::__polynomial);
  } catch (const std::regex_error& error) {
    return BadPattern(field, pattern, error.what());
  }
}

bool MatchesName(const std::vector<std::string>& names, absl::string_view path) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return path == name || absl::EndsWith(path, absl::StrCat(".", name));
  });
}

// Modules of the decoder that are no linear layers, but that a target could name.
std::vector<std::string> OtherModules(const ModelConfig& config, PeftTask task) {
  std::vector<std::string> modules = {"model", "model.embed_tokens", "model.layers", "model.norm",
                                      "model.rotary_emb"};
  if (task == PeftTask::kCausalLm) modules.push_back("lm_head");
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    for (const char* name : {"", ".self_attn", ".mlp", ".mlp.act_fn", ".input_layernorm",
                             ".post_attention_layernorm"}) {
      modules.push_back(absl::StrCat("model.layers.", layer, name));
    }
  }
  return modules;
}

// Decides for one config which modules carry LoRA.
class ModuleMatcher {
 public:
  static absl::StatusOr<ModuleMatcher> Create(const PeftConfig& config) {
    ModuleMatcher matcher(config);
    if (config.target_regex) {
      ASSIGN_OR_RETURN(matcher.target_,
                       Compile("target_modules", *config.target_regex, *config.target_regex));
    }
    if (config.exclude_regex) {
      ASSIGN_OR_RETURN(matcher.exclude_,
                       Compile("exclude_modules", *config.exclude_regex, *config.exclude_regex));
    }
    for (const std::string& pattern : config.layers_pattern) {
      const std::string wrapped = absl::StrCat("(?:|.*?\\.)(?:", pattern, ")");
      ASSIGN_OR_RETURN(std::regex regex, Compile("layers_pattern", pattern, wrapped));
      matcher.layers_.push_back(std::move(regex));
    }
    matcher.all_linear_ = config.target_modules.size() == 1 && !config.target_regex &&
                          config.target_modules[0] == kAllLinear;
    return matcher;
  }

  bool Matches(const std::string& path, bool is_linear) const {
    if (Excluded(path)) return false;
    if (config_.target_regex) return std::regex_match(path, target_);
    // PEFT replaces all-linear by whole paths before it matches.
    if (all_linear_) return is_linear;
    const std::vector<std::string>& names = config_.target_modules;
    // A name that is the whole path is not subject to layers_to_transform.
    if (std::find(names.begin(), names.end(), path) != names.end()) return true;
    return MatchesName(names, path) && InLayers(path);
  }

 private:
  explicit ModuleMatcher(const PeftConfig& config) : config_(config) {}

  bool Excluded(const std::string& path) const {
    if (config_.exclude_regex) return std::regex_match(path, exclude_);
    return MatchesName(config_.exclude_modules, path);
  }

  bool InLayers(absl::string_view path) const {
    if (config_.layers_to_transform.empty()) return true;
    constexpr absl::string_view kBeforeNumber = "model.layers";
    if (!absl::StartsWith(path, "model.layers.")) return false;
    const absl::string_view rest = path.substr(kBeforeNumber.size() + 1);
    int64_t layer = 0;
    if (!absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer)) return false;
    const auto& wanted = config_.layers_to_transform;
    if (std::find(wanted.begin(), wanted.end(), layer) == wanted.end()) return false;
    return layers_.empty() ||
           std::any_of(layers_.begin(), layers_.end(), [&](const std::regex& pattern) {
             return std::regex_match(kBeforeNumber.begin(), kBeforeNumber.end(), pattern);
           });
  }

  const PeftConfig& config_;
  bool all_linear_ = false;
  std::regex target_;
  std::regex exclude_;
  std::vector<std::regex> layers_;
};

// rank_pattern or alpha_pattern: what applies to a module instead of the general value.
template <typename T>
class Overrides {
 public:
  static absl::StatusOr<Overrides> Create(absl::string_view field,
                                          const std::map<std::string, T>& values) {
    Overrides overrides(field);
    for (const auto& [pattern, value] : values) {
      ASSIGN_OR_RETURN(std::regex regex,
                       Compile(field, pattern, absl::StrCat("(?:.*\\.)?(?:", pattern, ")")));
      overrides.entries_.push_back({pattern, std::move(regex), value});
    }
    return overrides;
  }

  absl::StatusOr<T> ValueFor(const std::string& path, T general) const {
    const Entry* match = nullptr;
    for (const Entry& entry : entries_) {
      if (!std::regex_match(path, entry.regex)) continue;
      if (match != nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat("field '", field_, "': patterns ", Quoted(match->pattern), " and ",
                         Quoted(entry.pattern), " both match module '", path, "'"));
      }
      match = &entry;
    }
    return match == nullptr ? general : match->value;
  }

 private:
  struct Entry {
    std::string pattern;
    std::regex regex;
    T value;
  };
  explicit Overrides(absl::string_view field) : field_(field) {}

  std::string field_;
  std::vector<Entry> entries_;
};

std::string ShownTargets(const PeftConfig& config) {
  if (config.target_regex) return Quoted(*config.target_regex);
  std::string text;
  for (const std::string& name : config.target_modules) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", name);
  }
  return Quoted(text);
}

}  // namespace

absl::StatusOr<std::vector<std::vector<PeftConfig::Target>>> PeftConfig::Targets(
    const ModelConfig& config) const {
  RETURN_IF_ERROR(Validate());
  ASSIGN_OR_RETURN(const ModuleMatcher matcher, ModuleMatcher::Create(*this));
  ASSIGN_OR_RETURN(const auto ranks, Overrides<int64_t>::Create("rank_pattern", rank_pattern));
  ASSIGN_OR_RETURN(const auto alphas, Overrides<double>::Create("alpha_pattern", alpha_pattern));
  for (const std::string& module : OtherModules(config, task)) {
    if (!matcher.Matches(module, /*is_linear=*/false)) continue;
    return absl::UnimplementedError(
        absl::StrCat("field 'target_modules': ", ShownTargets(*this), " matches '", module,
                     "'; LoRA is supported on the linear layers of the decoder alone"));
  }
  std::vector<std::vector<Target>> targets(config.layer_count,
                                           std::vector<Target>(kProjectionCount));
  bool any = false;
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    for (int p = 0; p < kProjectionCount; ++p) {
      const std::string path = ModulePath(layer, static_cast<Projection>(p));
      if (!matcher.Matches(path, /*is_linear=*/true)) continue;
      ASSIGN_OR_RETURN(const int64_t rank, ranks.ValueFor(path, r));
      ASSIGN_OR_RETURN(const double module_alpha, alphas.ValueFor(path, alpha));
      const double divisor = use_rslora ? std::sqrt(static_cast<double>(rank)) : rank;
      targets[layer][p] = {rank, module_alpha / divisor};
      any = true;
    }
  }
  if (!any) {
    return absl::InvalidArgumentError(absl::StrCat("field 'target_modules': ", ShownTargets(*this),
                                                   " matches no linear layer of the decoder"));
  }
  return targets;
}

}  // namespace pricer

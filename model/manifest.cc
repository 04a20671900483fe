#include "model/manifest.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/token_trie.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr absl::string_view kBinsKind = "bins";
constexpr absl::string_view kTokenKind = "token";

absl::Status CheckVersion(const JsonFields& fields) {
  std::string version;
  RETURN_IF_ERROR(fields.Require("format_version", &version));
  const std::string major = version.substr(0, version.find('.'));
  if (major == kManifestFormatVersion.substr(0, kManifestFormatVersion.find('.'))) {
    return absl::OkStatus();
  }
  return fields.Error(absl::StatusCode::kUnimplemented, "format_version",
                      absl::StrCat("version ", Quoted(version), " is not supported; expected ",
                                   kManifestFormatVersion));
}

absl::Status RequireOneOf(const JsonFields& fields, absl::string_view name,
                          std::initializer_list<absl::string_view> allowed, std::string* out) {
  RETURN_IF_ERROR(fields.Require(name, out));
  std::string expected;
  for (const absl::string_view value : allowed) {
    if (*out == value) return absl::OkStatus();
    absl::StrAppend(&expected, expected.empty() ? "" : ", ", value);
  }
  return fields.Error(name, absl::StrCat("expected one of ", expected, ", got ", Quoted(*out)));
}

absl::Status RequirePositive(const JsonFields& fields, absl::string_view name, double* out) {
  RETURN_IF_ERROR(fields.Require(name, out));
  if (*out > 0) return absl::OkStatus();
  return fields.Error(name, absl::StrCat("expected a number above 0, got ", *out));
}

absl::Status NotSha256(const JsonFields& fields, absl::string_view name, absl::string_view came) {
  return fields.Error(
      name, absl::StrCat("expected a SHA-256 of 64 hexadecimal digits, got ", Quoted(came)));
}

absl::Status ReadBase(const JsonFields& root, Manifest* manifest) {
  ASSIGN_OR_RETURN(const JsonFields base, root.Object("base"));
  RETURN_IF_ERROR(base.Require("fingerprint", &manifest->base_fingerprint));
  if (!IsSha256Hex(manifest->base_fingerprint)) {
    return NotSha256(base, "fingerprint", manifest->base_fingerprint);
  }
  RETURN_IF_ERROR(base.Require("name", &manifest->base_name));
  RETURN_IF_ERROR(RequireOneOf(root, "weights", {"nf4", "bf16", "fp32"}, &manifest->weights));
  if (!root.Has("dtype")) return absl::OkStatus();
  return RequireOneOf(root, "dtype", {"fp32", "bf16"}, &manifest->dtype);
}

absl::Status ReadPrompt(const JsonFields& root, Manifest* manifest) {
  ASSIGN_OR_RETURN(const JsonFields fields, root.Object("prompt"));
  PromptTemplate& prompt = manifest->prompt;
  RETURN_IF_ERROR(
      RequireOneOf(fields, "preset", {"default", "reference", "custom"}, &prompt.preset));
  RETURN_IF_ERROR(fields.Require("question", &prompt.question));
  RETURN_IF_ERROR(fields.Require("prefix", &prompt.prefix));
  RETURN_IF_ERROR(fields.Require("max_prompt_tokens", &prompt.max_prompt_tokens));
  if (const absl::Status status = prompt.Validate(); !status.ok()) {
    return root.Error("prompt", status.message());
  }
  return absl::OkStatus();
}

absl::Status ReadHead(const JsonFields& root, Manifest* manifest) {
  ASSIGN_OR_RETURN(const JsonFields head, root.Object("head"));
  ASSIGN_OR_RETURN(const JsonFields space, root.Object("price_space"));
  RETURN_IF_ERROR(space.Require("currency", &manifest->currency));
  if (const absl::Status status = WordsOfCurrency(manifest->currency).status(); !status.ok()) {
    return space.Error("currency", status.message());
  }
  std::string kind;
  RETURN_IF_ERROR(head.Require("kind", &kind));
  if (kind == kTokenKind) {
    manifest->head = HeadKind::kToken;
    return absl::OkStatus();
  }
  if (kind != kBinsKind) {
    return head.Error(absl::StatusCode::kUnimplemented, "kind",
                      absl::StrCat("head ", Quoted(kind), " is not supported; expected ", kBinsKind,
                                   " or ", kTokenKind));
  }
  int64_t bins = 0;
  RETURN_IF_ERROR(head.Require("bins", &bins));
  if (bins < 2 || bins > std::numeric_limits<int>::max()) {
    return head.Error("bins", absl::StrCat("expected at least 2, got ", bins));
  }
  manifest->bins.bins = static_cast<int>(bins);
  RETURN_IF_ERROR(RequirePositive(head, "sigma", &manifest->bins.sigma));
  RETURN_IF_ERROR(RequirePositive(space, "min", &manifest->bins.min_price));
  RETURN_IF_ERROR(RequirePositive(space, "max", &manifest->bins.max_price));
  if (const absl::Status status = manifest->bins.Validate(); !status.ok()) {
    return root.Error("price_space", status.message());
  }
  return absl::OkStatus();
}

absl::Status ReadCalibration(const JsonFields& root, Manifest* manifest) {
  ASSIGN_OR_RETURN(const JsonFields calibration, root.Object("calibration"));
  RETURN_IF_ERROR(RequirePositive(calibration, "temperature", &manifest->temperature));
  RETURN_IF_ERROR(calibration.Require("conformal", &manifest->conformal));
  return root.Require("evaluation", &manifest->evaluation);
}

absl::Status ReadGolden(const JsonFields& root, absl::string_view source, Manifest* manifest) {
  const Json* golden = root.Find("golden");
  if (golden == nullptr) return root.Missing("golden");
  if (!golden->is_array()) {
    return root.Error("golden", absl::StrCat("expected a list, got ", Shown(*golden)));
  }
  for (size_t i = 0; i < golden->size(); ++i) {
    ASSIGN_OR_RETURN(const JsonFields fields,
                     JsonFields::Create((*golden)[i], source, absl::StrCat("golden[", i, "]."),
                                        absl::StatusCode::kDataLoss));
    GoldenItem item;
    RETURN_IF_ERROR(fields.Require("item", &item.item));
    RETURN_IF_ERROR(RequirePositive(fields, "price", &item.price));
    RETURN_IF_ERROR(RequirePositive(fields, "low", &item.low));
    RETURN_IF_ERROR(RequirePositive(fields, "high", &item.high));
    if (item.low > item.high) {
      return fields.Error("low",
                          absl::StrCat("expected at most high, ", item.high, ", got ", item.low));
    }
    manifest->golden.push_back(std::move(item));
  }
  return RequirePositive(root, "golden_tolerance", &manifest->golden_tolerance);
}

absl::Status ReadFiles(const JsonFields& root, Manifest* manifest) {
  RETURN_IF_ERROR(root.Require("files", &manifest->files));
  for (const auto& [name, digest] : manifest->files) {
    if (!IsPlainFileName(name)) {
      return root.Error("files", absl::StrCat("expected plain file names, got ", Quoted(name)));
    }
    if (!IsSha256Hex(digest)) return NotSha256(root, absl::StrCat("files.", name), digest);
  }
  return absl::OkStatus();
}

absl::Status ReadOrigin(const JsonFields& root, Manifest* manifest) {
  ASSIGN_OR_RETURN(const JsonFields trainer, root.Object("trainer"));
  RETURN_IF_ERROR(trainer.Require("version", &manifest->trainer_version));
  RETURN_IF_ERROR(trainer.Require("options", &manifest->trainer_options));
  return root.Require("data_digest", &manifest->data_digest);
}

// JSON has no infinities; a measure that could not be taken is left out.
std::map<std::string, double> Finite(const std::map<std::string, double>& values) {
  std::map<std::string, double> finite;
  for (const auto& [name, value] : values) {
    if (std::isfinite(value)) finite.emplace(name, value);
  }
  return finite;
}

Json HeadJson(const Manifest& manifest) {
  if (manifest.head == HeadKind::kToken) return {{"kind", std::string(kTokenKind)}};
  return {{"bins", manifest.bins.bins},
          {"kind", std::string(kBinsKind)},
          {"sigma", manifest.bins.sigma}};
}

// What rounds to the lowest whole price, and the highest.
double MinPrice(const Manifest& manifest) {
  return manifest.head == HeadKind::kToken ? 0.5 : manifest.bins.min_price;
}
double MaxPrice(const Manifest& manifest) {
  return manifest.head == HeadKind::kToken ? kWholePriceCount - 1 : manifest.bins.max_price;
}

}  // namespace

absl::StatusOr<PriceDistribution> Manifest::Distribution(absl::Span<const float> scores) const {
  if (head == HeadKind::kBins) {
    return PriceDistribution::FromLogits(bins.min_price, bins.max_price, scores, temperature);
  }
  double sum = 0;
  for (const float mass : scores) sum += mass;
  if (scores.size() == kWholePriceCount && sum > 0 && std::isfinite(sum)) {
    return PriceDistribution::OfWholePrices({scores.begin(), scores.end()});
  }
  return absl::InvalidArgumentError(absl::StrCat("masses of whole prices: expected ",
                                                 kWholePriceCount, " with a sum above 0, got ",
                                                 scores.size(), " with the sum ", sum));
}

std::string Manifest::ToJson() const {
  Json items = Json::array();
  for (const GoldenItem& item : golden) {
    items.push_back(
        {{"item", item.item}, {"price", item.price}, {"low", item.low}, {"high", item.high}});
  }
  Json json = {
      {"base", {{"fingerprint", base_fingerprint}, {"name", base_name}}},
      {"calibration", {{"conformal", Json(Finite(conformal))}, {"temperature", temperature}}},
      {"data_digest", data_digest},
      {"evaluation", Json(Finite(evaluation))},
      {"files", Json(files)},
      {"format_version", std::string(kManifestFormatVersion)},
      {"golden", items},
      {"golden_tolerance", golden_tolerance},
      {"head", HeadJson(*this)},
      {"price_space", {{"currency", currency}, {"max", MaxPrice(*this)}, {"min", MinPrice(*this)}}},
      {"prompt",
       {{"max_prompt_tokens", prompt.max_prompt_tokens},
        {"prefix", prompt.prefix},
        {"preset", prompt.preset},
        {"question", prompt.question}}},
      {"trainer", {{"options", Json(trainer_options)}, {"version", trainer_version}}},
      {"weights", weights},
  };
  if (!dtype.empty()) json["dtype"] = dtype;
  return json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Manifest> Manifest::FromJson(absl::string_view json, absl::string_view source) {
  ASSIGN_OR_RETURN(const Json value, ParseJson(json, source, absl::StatusCode::kDataLoss));
  ASSIGN_OR_RETURN(const JsonFields root,
                   JsonFields::Create(value, source, "", absl::StatusCode::kDataLoss));
  RETURN_IF_ERROR(CheckVersion(root));
  Manifest manifest;
  RETURN_IF_ERROR(ReadBase(root, &manifest));
  RETURN_IF_ERROR(ReadPrompt(root, &manifest));
  RETURN_IF_ERROR(ReadHead(root, &manifest));
  RETURN_IF_ERROR(ReadCalibration(root, &manifest));
  RETURN_IF_ERROR(ReadGolden(root, source, &manifest));
  RETURN_IF_ERROR(ReadFiles(root, &manifest));
  RETURN_IF_ERROR(ReadOrigin(root, &manifest));
  return manifest;
}

}  // namespace pricer

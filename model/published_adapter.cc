#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/adapter.h"
#include "model/adapter_name.h"
#include "model/json_fields.h"
#include "model/prompt.h"
#include "model/token_trie.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxMarkerBytes = 4096;
// Of a directory without a manifest.
constexpr char kPlainPreset[] = "reference";
constexpr char kPlainCurrency[] = "USD";

// Name and version from the path, where it has that form.
void ReadPlace(const fs::path& directory, PublishedAdapter* adapter) {
  const std::string name = directory.parent_path().filename().string();
  const std::optional<int64_t> version = ParseAdapterVersion(directory.filename().string());
  if (!version || !ValidateAdapterName(name).ok()) return;
  adapter->name = name;
  adapter->version = *version;
}

// Reads pricer.json and checks it against the marker. Nothing for a directory as PEFT saves it,
// which has an empty marker and no manifest.
absl::StatusOr<std::optional<std::string>> ReadManifestText(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::string marker,
                   ReadAdapterFile(directory, kReadyFile, kMaxMarkerBytes));
  const absl::string_view expected = absl::StripAsciiWhitespace(marker);
  absl::StatusOr<std::string> text = ReadAdapterFile(directory, kManifestFile, kMaxJsonBytes);
  if (expected.empty() && absl::IsNotFound(text.status())) return std::nullopt;
  RETURN_IF_ERROR(text.status());
  const std::string digest = Sha256Hex(*text);
  if (expected == digest) return *std::move(text);
  return absl::DataLossError(absl::StrCat(directory, "/", kReadyFile, ": expected the SHA-256 of ",
                                          kManifestFile, ", ", digest, ", got ", Quoted(marker)));
}

// SHA-256 of a regular file inside the directory.
absl::StatusOr<std::string> DigestOf(const std::string& directory, absl::string_view name) {
  const std::string path = absl::StrCat(directory, "/", name);
  RETURN_IF_ERROR(CheckInsideFolder(path, directory));
  // Opening a pipe would wait for a writer.
  if (std::error_code ignored; !fs::is_regular_file(path, ignored)) {
    return absl::DataLossError(absl::StrCat(path, ": expected a regular file"));
  }
  return Sha256HexOfFile(path);
}

// Every file that the manifest lists, but those that are checked as they are read.
absl::Status CheckFiles(const std::string& directory, const Manifest& manifest) {
  for (const absl::string_view name : {kAdapterConfigFile, kAdapterTensorsFile}) {
    if (manifest.files.count(std::string(name)) > 0) continue;
    return absl::DataLossError(absl::StrCat(directory, "/", kManifestFile,
                                            ": field 'files': expected an entry for ", name));
  }
  for (const auto& [name, expected] : manifest.files) {
    if (name == kAdapterConfigFile || name == kAdapterTensorsFile) continue;
    ASSIGN_OR_RETURN(const std::string digest, DigestOf(directory, name));
    if (digest == expected) continue;
    return absl::DataLossError(
        absl::StrCat(directory, "/", name, ": expected SHA-256 ", expected, ", got ", digest));
  }
  return absl::OkStatus();
}

absl::Status CheckContext(const std::string& directory, const Manifest& manifest,
                          const ModelConfig& model) {
  const int digits = manifest.head == HeadKind::kToken ? kMaxPriceDigits : 0;
  if (manifest.prompt.max_prompt_tokens + digits <= model.context_tokens) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(directory, ": made for prompts of up to ", manifest.prompt.max_prompt_tokens,
                   " tokens", digits > 0 ? absl::StrCat(" and ", digits, " of a price") : "",
                   ", the base here has a context of ", model.context_tokens));
}

absl::Status CheckHead(const std::string& directory, const Manifest& manifest,
                       const PeftAdapter& adapter) {
  const std::string path = absl::StrCat(directory, "/", kManifestFile);
  const bool token = manifest.head == HeadKind::kToken;
  if (token != (adapter.config.task == PeftTask::kCausalLm)) {
    return absl::DataLossError(absl::StrCat(
        path, ": field 'head.kind': ",
        token ? "the token head needs task_type CAUSAL_LM" : "bins need task_type SEQ_CLS", " in ",
        kAdapterConfigFile));
  }
  if (token) return absl::OkStatus();
  const int64_t rows = adapter.weights.score.size(0);
  if (rows == manifest.bins.bins) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path, ": field 'head.bins': expected ", rows,
                                          ", the rows of the score tensor, got ",
                                          manifest.bins.bins));
}

// What a manifest would say of a directory as PEFT saves it: adapters of other programs are of the
// published recipe.
absl::StatusOr<Manifest> PlainManifest(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::string json,
                   ReadAdapterFile(directory, kAdapterConfigFile, kMaxJsonBytes));
  ASSIGN_OR_RETURN(const PeftConfig config,
                   PeftConfig::FromJson(json, absl::StrCat(directory, "/", kAdapterConfigFile)));
  if (config.task == PeftTask::kSeqCls) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, ": without ", kManifestFile, " a bins head has no price range"));
  }
  Manifest manifest;
  manifest.base_name = config.base_model_name;
  manifest.head = HeadKind::kToken;
  manifest.currency = kPlainCurrency;
  ASSIGN_OR_RETURN(manifest.prompt, PromptTemplate::Preset(kPlainPreset, kPlainCurrency));
  for (const absl::string_view name : {kAdapterConfigFile, kAdapterTensorsFile}) {
    ASSIGN_OR_RETURN(manifest.files[std::string(name)], DigestOf(directory, name));
  }
  return manifest;
}

absl::Status LoadPlain(const ModelConfig& model, PublishedAdapter* adapter) {
  ASSIGN_OR_RETURN(adapter->manifest, PlainManifest(adapter->directory));
  adapter->digest = Sha256Hex(adapter->manifest.ToJson());
  RETURN_IF_ERROR(CheckContext(adapter->directory, adapter->manifest, model));
  ASSIGN_OR_RETURN(adapter->adapter,
                   LoadPeftAdapter(adapter->directory, model, adapter->manifest.files));
  return absl::OkStatus();
}

// The files of a version, ready for the marker; returns what the marker holds.
absl::StatusOr<std::string> WriteVersion(const PeftAdapter& adapter, Manifest manifest,
                                         const std::string& directory) {
  RETURN_IF_ERROR(SavePeftAdapter(adapter, directory));
  manifest.files.clear();
  for (const absl::string_view name : {kAdapterConfigFile, kAdapterTensorsFile}) {
    ASSIGN_OR_RETURN(manifest.files[std::string(name)],
                     Sha256HexOfFile(absl::StrCat(directory, "/", name)));
  }
  const std::string path = absl::StrCat(directory, "/", kManifestFile);
  const std::string text = manifest.ToJson();
  // What readers would refuse is not published.
  RETURN_IF_ERROR(Manifest::FromJson(text, path).status());
  RETURN_IF_ERROR(CheckHead(directory, manifest, adapter));
  RETURN_IF_ERROR(WriteFileAtomically(path, text));
  return Sha256Hex(text);
}

}  // namespace

absl::StatusOr<PublishedAdapter> LoadPublishedAdapter(const std::string& directory,
                                                      const ModelConfig& model,
                                                      absl::string_view base_fingerprint) {
  PublishedAdapter adapter;
  adapter.directory = std::string(absl::StripSuffix(directory, "/"));
  const fs::path place = fs::absolute(adapter.directory).lexically_normal();
  ReadPlace(place, &adapter);
  if (adapter.version > 0) {
    RETURN_IF_ERROR(CheckInsideFolder(place.string(), place.parent_path().parent_path().string()));
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadManifestText(adapter.directory));
  if (!text.has_value()) {
    RETURN_IF_ERROR(LoadPlain(model, &adapter));
    return adapter;
  }
  adapter.digest = Sha256Hex(*text);
  ASSIGN_OR_RETURN(adapter.manifest,
                   Manifest::FromJson(*text, absl::StrCat(adapter.directory, "/", kManifestFile)));
  if (adapter.manifest.base_fingerprint != base_fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat(adapter.directory, ": made for the base with fingerprint ",
                     adapter.manifest.base_fingerprint, " (", adapter.manifest.base_name,
                     "), the base here has fingerprint ", base_fingerprint));
  }
  RETURN_IF_ERROR(CheckContext(adapter.directory, adapter.manifest, model));
  RETURN_IF_ERROR(CheckFiles(adapter.directory, adapter.manifest));
  ASSIGN_OR_RETURN(adapter.adapter,
                   LoadPeftAdapter(adapter.directory, model, adapter.manifest.files));
  RETURN_IF_ERROR(CheckHead(adapter.directory, adapter.manifest, adapter.adapter));
  return adapter;
}

absl::StatusOr<PublishedVersion> PublishAdapter(const PeftAdapter& adapter, Manifest manifest,
                                                const std::string& root, const std::string& name) {
  return PublishVersion(root, name, [&](const std::string& directory) {
    return WriteVersion(adapter, manifest, directory);
  });
}

}  // namespace pricer

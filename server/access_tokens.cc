#include "server/access_tokens.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/adapter_name.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr size_t kMinSecretBytes = 16;
constexpr std::array kPermissions = {Permission::kPredict, Permission::kAdmin,
                                     Permission::kMetrics};

bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

absl::StatusOr<Permission> ParsePermission(const JsonFields& fields, const std::string& text) {
  for (const Permission permission : kPermissions) {
    if (text == PermissionName(permission)) return permission;
  }
  return fields.Error("permissions",
                      absl::StrCat("expected predict, admin or metrics, got ", Quoted(text)));
}

absl::StatusOr<AccessToken> ParseToken(const Json& value, absl::string_view source, size_t index) {
  const std::string prefix = absl::StrCat("tokens[", index, "].");
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(value, source, prefix));
  for (const auto& [name, _] : value.items()) {
    if (name != "name" && name != "secret" && name != "permissions") {
      return fields.Error(name, "there is no such field");
    }
  }
  AccessToken token;
  RETURN_IF_ERROR(fields.Require("name", &token.name));
  if (const absl::Status status = ValidateAdapterName(token.name); !status.ok()) {
    return fields.Error(
        "name", absl::StrCat("expected [a-z0-9][a-z0-9._-]{0,62}, got ", Quoted(token.name)));
  }
  const Json* const secret = fields.Find("secret");
  // A secret of another type would be shown by what reads fields.
  if (secret == nullptr || !secret->is_string()) {
    return fields.Error("secret", "expected a string");
  }
  const std::string text = secret->get<std::string>();
  if (text.size() < kMinSecretBytes || !IsPrintable(text)) {
    return fields.Error("secret", absl::StrCat("expected at least ", kMinSecretBytes,
                                               " printable ASCII characters, got ", text.size(),
                                               IsPrintable(text) ? "" : " bytes of others"));
  }
  token.digest = Sha256Hex(text);
  std::vector<std::string> permissions;
  RETURN_IF_ERROR(fields.Require("permissions", &permissions));
  for (const std::string& permission : permissions) {
    ASSIGN_OR_RETURN(const Permission parsed, ParsePermission(fields, permission));
    token.permissions.insert(parsed);
  }
  return token;
}

absl::Status CheckDistinct(const std::vector<AccessToken>& tokens, absl::string_view source) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const bool same_name = tokens[i].name == tokens[j].name;
      if (!same_name && tokens[i].digest != tokens[j].digest) continue;
      return absl::InvalidArgumentError(absl::StrCat(source, ": tokens[", i, "]: has the ",
                                                     same_name ? "name" : "secret", " of tokens[",
                                                     j, "]"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view PermissionName(Permission permission) {
  switch (permission) {
    case Permission::kPredict:
      return "predict";
    case Permission::kAdmin:
      return "admin";
    case Permission::kMetrics:
      return "metrics";
  }
  return "unknown";
}

absl::StatusOr<std::vector<AccessToken>> ParseAccessTokens(absl::string_view json,
                                                           absl::string_view source) {
  // nlohmann's own error of text that is no JSON shows some of it.
  if (!Json::accept(json.begin(), json.end())) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": expected JSON"));
  }
  ASSIGN_OR_RETURN(const Json value, ParseJson(json, source));
  ASSIGN_OR_RETURN(const JsonFields root, JsonFields::Create(value, source));
  const Json* const list = root.Find("tokens");
  if (list == nullptr) return root.Missing("tokens");
  if (!list->is_array()) return root.Error("tokens", "expected a list");
  std::vector<AccessToken> tokens;
  for (size_t i = 0; i < list->size(); ++i) {
    ASSIGN_OR_RETURN(AccessToken token, ParseToken((*list)[i], source, i));
    tokens.push_back(std::move(token));
  }
  RETURN_IF_ERROR(CheckDistinct(tokens, source));
  return tokens;
}

absl::StatusOr<std::unique_ptr<TokenKeeper>> TokenKeeper::Open(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string contents, ReadFile(path));
  ASSIGN_OR_RETURN(Tokens tokens, ParseAccessTokens(contents, path));
  return std::unique_ptr<TokenKeeper>(
      new TokenKeeper(path, Sha256Hex(contents), std::move(tokens)));
}

TokenKeeper::TokenKeeper(std::string path, std::string digest, Tokens tokens)
    : path_(std::move(path)),
      digest_(std::move(digest)),
      tokens_(std::make_shared<const Tokens>(std::move(tokens))) {}

absl::StatusOr<std::string> TokenKeeper::Check(absl::string_view secret,
                                               Permission permission) const {
  std::shared_ptr<const Tokens> tokens;
  {
    MutexLock lock(&mutex_);
    tokens = tokens_;
  }
  const std::string digest = Sha256Hex(secret);
  const AccessToken* found = nullptr;
  // All are compared, each in a time that does not tell where it differs.
  for (const AccessToken& token : *tokens) {
    if (CRYPTO_memcmp(token.digest.data(), digest.data(), digest.size()) == 0) found = &token;
  }
  if (found == nullptr) return absl::UnauthenticatedError("the token is not known");
  if (found->permissions.count(permission) > 0) return found->name;
  return absl::PermissionDeniedError(
      absl::StrCat("the token ", found->name, " has no permission ", PermissionName(permission)));
}

void TokenKeeper::Poll() {
  const absl::StatusOr<std::string> contents = ReadFile(path_);
  absl::StatusOr<Tokens> tokens = Tokens();
  if (contents.ok()) {
    tokens = ParseAccessTokens(*contents, path_);
  } else {
    tokens = contents.status();
  }
  MutexLock lock(&mutex_);
  const std::string problem(tokens.ok() ? "" : tokens.status().message());
  if (problem != problem_ && !problem.empty()) {
    LogError("tokens not usable; those read before stay", {{"error", problem}});
  }
  problem_ = problem;
  if (!tokens.ok()) return;
  std::string digest = Sha256Hex(*contents);
  if (digest == digest_) return;
  digest_ = std::move(digest);
  LogInfo("tokens read anew", {{"path", path_}, {"tokens", absl::StrCat(tokens->size())}});
  tokens_ = std::make_shared<const Tokens>(*std::move(tokens));
}

}  // namespace pricer

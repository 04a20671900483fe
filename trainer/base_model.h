#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/checkpoint.h"
#include "model/network.h"
#include "model/prompt.h"
#include "model/tokenizer.h"

namespace pricer {

// Where a job's base model is and how it computes.
struct BaseOptions {
  std::string directory;
  std::string weights;  // "nf4", "bf16", "fp32"; "auto" = the job's own choice
  std::string dtype = "auto";
  // "cpu"; "cuda" = the first GPU; "auto" = that one where this build and machine have one.
  std::string device = "auto";
  // What of NF4 linears stays on a GPU: "nf4", their decoded values "bf16", or "auto" = the latter
  // where they take at most half of its free memory.
  std::string resident = "auto";
  // Folder that keeps the base in NF4, so that only the first load quantizes; empty = every load
  // does.
  std::string nf4_cache = {};
  // Of libtorch; 0 = as many as it finds cores.
  int threads = 0;

  // InvalidArgument names the option.
  absl::Status Validate() const;
};

// A checkpoint and its tokenizer, without the weights in memory.
struct BaseModel {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Tokenizer> tokenizer;  // null where the directory has none
  std::string name;                      // last part of the directory's path
};

// NotFound where the directory has no tokenizer and `needs_tokenizer`.
absl::StatusOr<BaseModel> OpenBase(const BaseOptions& options, bool needs_tokenizer);

// What "auto" stands for on this machine. Errors as ParseDevice's.
absl::StatusOr<at::ScalarType> ComputeDtypeOf(const BaseOptions& options);

// How the options have the network, `weights` being the kind where they say "auto", but for what
// stays in NF4. FailedPrecondition where the device cannot be used.
absl::StatusOr<NetworkOptions> NetworkOptionsOf(const BaseOptions& options,
                                                absl::string_view weights);

// Loads the weights, `weights` being the kind where the options say "auto". Sets libtorch's
// threads. Cancelled once InterruptRequested().
absl::StatusOr<std::unique_ptr<Network>> LoadNetwork(const BaseModel& base,
                                                     const BaseOptions& options,
                                                     absl::string_view weights);

// The wording of prompts. What is absent is the preset's.
struct PromptOptions {
  std::string preset;  // empty = "default"
  std::optional<std::string> question;
  std::optional<std::string> prefix;
  std::optional<int64_t> max_prompt_tokens;
};

absl::StatusOr<PromptTemplate> MakePrompt(const PromptOptions& options, absl::string_view currency);

// Whether the longest prompt and `answer_tokens` behind it fit into the base's context;
// InvalidArgument names --max-prompt-tokens.
absl::Status CheckContext(const PromptTemplate& prompt, int64_t answer_tokens,
                          const ModelConfig& base);

}  // namespace pricer

#include <cstdlib>
#include <memory>
#include <string>

#include "model/prompt.h"
#include "model/tokenizer.h"
#include "tests/fuzz/fuzzer.h"

namespace {

// scripts/fuzz and the tests run in the repository.
const pricer::Tokenizer& TestTokenizer() {
  static const auto& tokenizer =
      *new auto(pricer::Tokenizer::FromDirectory("tests/data/tokenizers/smollm"));
  PRICER_CHECK(tokenizer.ok());
  return **tokenizer;
}

}  // namespace

// An item's text on its way to the network.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = pricer::testing::InputText(data, size);
  static const auto& prompt = *new auto(pricer::PromptTemplate::Preset("default", "USD"));
  const pricer::Tokenizer& tokenizer = TestTokenizer();
  const auto encoded = pricer::EncodePrompt(*prompt, tokenizer, text);
  if (!encoded.ok()) return 0;
  PRICER_CHECK(!encoded->ids.empty() &&
               static_cast<int>(encoded->ids.size()) <= prompt->max_prompt_tokens);
  for (const int32_t id : encoded->ids) PRICER_CHECK(id >= 0 && id < tokenizer.vocabulary_size());
  return 0;
}

#include "model/gguf.h"
#include "model/gguf_config.h"
#include "model/gguf_tokenizer.h"
#include "tests/fuzz/fuzzer.h"

// A GGUF file, and what `pricer-trainer import` makes of its keys.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const pricer::testing::InputFile input(data, size);
  const auto file = pricer::GgufFile::Open(input.path());
  if (!file.ok()) return 0;
  size_t bytes = 0;
  unsigned sum = 0;
  for (const auto& [name, tensor] : (*file)->tensors()) {
    for (const char byte : tensor.data) sum += static_cast<unsigned char>(byte);
    bytes += tensor.data.size();
  }
  PRICER_CHECK(bytes <= size && sum <= 255 * bytes);
  if (!pricer::CheckGgufIsLlama(**file).ok()) return 0;
  const auto tokenizer = pricer::ReadGgufTokenizer(**file);
  if (!tokenizer.ok()) return 0;
  const auto config = pricer::ReadGgufConfig(**file, *tokenizer);
  PRICER_CHECK(!config.ok() || config->Validate().ok());
  return 0;
}

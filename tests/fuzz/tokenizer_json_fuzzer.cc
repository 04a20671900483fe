#include "model/tokenizer.h"
#include "tests/fuzz/fuzzer.h"

// A tokenizer.json, and a text that it splits where it can be read.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const pricer::testing::InputFile input(data, size);
  const auto tokenizer = pricer::Tokenizer::FromFile(input.path());
  if (!tokenizer.ok()) return 0;
  const auto ids = (*tokenizer)->Encode("a lamp, 40 W", /*add_special_tokens=*/true);
  if (ids.ok()) (*tokenizer)->Decode(*ids, /*skip_special_tokens=*/false).IgnoreError();
  return 0;
}

#include <string>

#include "model/safetensors.h"
#include "tests/fuzz/fuzzer.h"

// Bytes of a safetensors file, as an adapter brings them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = pricer::SafetensorsFile::Parse(pricer::testing::InputText(data, size), "input");
  if (!file.ok()) return 0;
  size_t bytes = 0;
  unsigned sum = 0;
  for (const auto& [name, tensor] : (*file)->tensors()) {
    PRICER_CHECK(static_cast<int64_t>(tensor.data.size()) ==
                 tensor.element_count() * DtypeBytes(tensor.dtype));
    for (const char byte : tensor.data) sum += static_cast<unsigned char>(byte);
    bytes += tensor.data.size();
  }
  PRICER_CHECK(bytes <= size && sum <= 255 * bytes);
  return 0;
}

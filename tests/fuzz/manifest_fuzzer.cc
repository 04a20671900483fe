#include "model/manifest.h"
#include "tests/fuzz/fuzzer.h"

// A pricer.json, read and, where it can be read, written and read again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string json = pricer::testing::InputText(data, size);
  const auto manifest = pricer::Manifest::FromJson(json, "input");
  if (!manifest.ok()) return 0;
  const auto again = pricer::Manifest::FromJson(manifest->ToJson(), "written");
  PRICER_CHECK(again.ok() && again->ToJson() == manifest->ToJson());
  return 0;
}

#include "model/adapter_labels.h"
#include "tests/fuzz/fuzzer.h"

// A labels.json, read and, where it can be read, written and read again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string json = pricer::testing::InputText(data, size);
  const auto labels = pricer::AdapterLabels::Parse(json, "input");
  if (!labels.ok()) return 0;
  const auto again = pricer::AdapterLabels::Parse(labels->ToJson(), "written");
  PRICER_CHECK(again.ok() && again->ToJson() == labels->ToJson());
  return 0;
}

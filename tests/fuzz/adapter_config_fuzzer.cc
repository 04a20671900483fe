#include "model/peft_config.h"
#include "tests/fuzz/fuzzer.h"

// An adapter_config.json, read and, where it can be read, written and read again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string json = pricer::testing::InputText(data, size);
  const auto config = pricer::PeftConfig::FromJson(json, "input");
  if (!config.ok()) return 0;
  const auto again = pricer::PeftConfig::FromJson(config->ToJson(), "written");
  PRICER_CHECK(again.ok() && again->ToJson() == config->ToJson());
  pricer::ModelConfig model;
  model.layer_count = 2;
  model.hidden_size = 8;
  config->Targets(model).IgnoreError();
  return 0;
}

// Checkpoints that transformers and bitsandbytes wrote.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"
#include "model/checkpoint.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

TEST(GoldenCheckpointTest, OpensWhatTransformersAndBitsandbytesWrite) {
  const char* variable = std::getenv("PRICER_TEST_DATA");
  const std::string root = variable == nullptr ? PRICER_TEST_DATA : variable;
  for (const char* name :
       {"models/gqa", "models/tied", "models/mqa", "models/llama3-rope", "models/rope-v4",
        "models/odd", "models/sharded", "models/bf16", "nf4/checkpoint", "nf4/checkpoint-plain"}) {
    ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(root + "/" + name));
    const bool nf4 = absl::string_view(name).substr(0, 3) == "nf4";
    EXPECT_EQ(checkpoint->IsNf4("model.layers.1.mlp.up_proj"), nf4) << name;
    EXPECT_OK(checkpoint->Fingerprint());
  }
}

}  // namespace
}  // namespace pricer

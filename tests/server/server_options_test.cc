#include "server/server_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

ServerOptions Valid() {
  ServerOptions options;
  options.base = "/models/base";
  options.adapters = "/adapters";
  return options;
}

TEST(ServerOptionsTest, DefaultsAreValidOnceTheDirectoriesAreNamed) {
  EXPECT_OK(Valid().Validate());
  EXPECT_THAT(ServerOptions().Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--base")));
}

TEST(ServerOptionsTest, TheAdminListenerMayBeAnyLoopbackAddress) {
  for (const char* const address :
       {"127.0.0.1:8501", "127.8.0.1:0", "[::1]:8501", "localhost:8501", "unix:/run/pricer.sock"}) {
    ServerOptions options = Valid();
    options.admin_listen = address;
    EXPECT_OK(options.Validate()) << address;
  }
}

struct BadOption {
  std::string flag;
  std::string came;
  std::function<void(ServerOptions*)> set;
};

class ServerOptionsTest : public ::testing::TestWithParam<BadOption> {};

TEST_P(ServerOptionsTest, NamesTheFlagAndWhatCame) {
  ServerOptions options = Valid();
  GetParam().set(&options);
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(GetParam().flag), HasSubstr(GetParam().came))));
}

INSTANTIATE_TEST_SUITE_P(
    All, ServerOptionsTest,
    ::testing::Values(
        BadOption{"--adapters", "nothing", [](ServerOptions* o) { o->adapters = ""; }},
        BadOption{"--default-adapter", "Toys",
                  [](ServerOptions* o) { o->default_adapter = "Toys"; }},
        BadOption{"--default-adapter", "base",
                  [](ServerOptions* o) { o->default_adapter = "base"; }},
        BadOption{"--base-preset", "custom", [](ServerOptions* o) { o->base_preset = "custom"; }},
        BadOption{"--base-currency", "usd", [](ServerOptions* o) { o->base_currency = "usd"; }},
        BadOption{"--base-currency", "EUR",
                  [](ServerOptions* o) {
                    o->base_preset = "reference";
                    o->base_currency = "EUR";
                  }},
        BadOption{"--listen", "8500", [](ServerOptions* o) { o->listen = "8500"; }},
        BadOption{"--listen", ":8500", [](ServerOptions* o) { o->listen = ":8500"; }},
        BadOption{"--admin-listen",
                  "localhost:", [](ServerOptions* o) { o->admin_listen = "localhost:"; }},
        BadOption{"--admin-listen", "0.0.0.0:8501",
                  [](ServerOptions* o) { o->admin_listen = "0.0.0.0:8501"; }},
        BadOption{"--admin-listen", "[::]:8501",
                  [](ServerOptions* o) { o->admin_listen = "[::]:8501"; }},
        BadOption{"--admin-listen", "127.0.0.1.example.com:8501",
                  [](ServerOptions* o) { o->admin_listen = "127.0.0.1.example.com:8501"; }},
        BadOption{"--health-listen", "a:70000",
                  [](ServerOptions* o) { o->health_listen = "a:70000"; }},
        BadOption{"--metrics-listen", "a:-1", [](ServerOptions* o) { o->metrics_listen = "a:-1"; }},
        BadOption{"--weights", "int8", [](ServerOptions* o) { o->weights = "int8"; }},
        BadOption{"--dtype", "fp16", [](ServerOptions* o) { o->dtype = "fp16"; }},
        BadOption{"--device", "gpu", [](ServerOptions* o) { o->device = "gpu"; }},
        BadOption{"--device", "cuda:0", [](ServerOptions* o) { o->device = "cuda:0"; }},
        BadOption{"--threads", "-1", [](ServerOptions* o) { o->threads = -1; }},
        BadOption{"--max-batch-tokens", "0",
                  [](ServerOptions* o) { o->scheduler.max_batch_tokens = 0; }},
        BadOption{"--max-queue-tokens", "7",
                  [](ServerOptions* o) { o->scheduler.max_queue_tokens = 7; }},
        BadOption{"--poll-interval", "0",
                  [](ServerOptions* o) { o->poll_interval = absl::ZeroDuration(); }},
        BadOption{"--max-connection-age", "-1s",
                  [](ServerOptions* o) { o->max_connection_age = -absl::Seconds(1); }},
        BadOption{"--max-connection-age", "at most 168h",
                  [](ServerOptions* o) { o->max_connection_age = absl::Hours(169); }},
        BadOption{"--grace-period", "-1s",
                  [](ServerOptions* o) { o->grace_period = -absl::Seconds(1); }}));

}  // namespace
}  // namespace pricer

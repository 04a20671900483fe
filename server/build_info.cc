#include "server/build_info.h"

namespace pricer {

absl::string_view BuildVersion() { return PRICER_BUILD_VERSION; }
absl::string_view BuildCommit() { return PRICER_BUILD_COMMIT; }

}  // namespace pricer

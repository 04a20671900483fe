#include "base/build_info.h"

#include "absl/strings/str_cat.h"

namespace pricer {

absl::string_view BuildVersion() { return PRICER_BUILD_VERSION; }
absl::string_view BuildCommit() { return PRICER_BUILD_COMMIT; }

std::string VersionText(absl::string_view program) {
  return absl::StrCat(program, " ", BuildVersion(), " (", BuildCommit(), ")");
}

}  // namespace pricer

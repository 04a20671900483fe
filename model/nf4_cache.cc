#include "model/nf4_cache.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "model/quantize_checkpoint.h"

namespace pricer {

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenNf4Form(const Checkpoint& base,
                                                        const std::string& folder,
                                                        const std::function<bool()>& cancelled) {
  ASSIGN_OR_RETURN(const std::string fingerprint, base.Fingerprint());
  const std::string directory = absl::StrCat(folder, "/", fingerprint);
  const std::string config = directory + "/config.json";
  if (!std::filesystem::exists(config)) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) {
      return absl::InternalError(
          absl::StrCat(folder, ": the folder cannot be made: ", error.message()));
    }
    LogInfo("quantizing the base, which later loads need not",
            {{"base", base.directory()}, {"to", directory}});
    const absl::Status made = QuantizeCheckpoint(base, directory, {}, cancelled).status();
    // Another process may have been faster.
    if (!made.ok() && !std::filesystem::exists(config)) return made;
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> form, Checkpoint::Open(directory));
  ASSIGN_OR_RETURN(const std::string found, form->Fingerprint());
  if (found != fingerprint) {
    return absl::DataLossError(absl::StrCat(directory, ": expected the NF4 form of the base ",
                                            fingerprint, ", got that of ", found,
                                            "; remove the directory to have it made again"));
  }
  return form;
}

}  // namespace pricer

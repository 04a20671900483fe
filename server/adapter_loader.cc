#include "server/adapter_loader.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

// Of a directory without a manifest.
bool IsPlain(const Manifest& manifest) { return manifest.base_fingerprint.empty(); }

std::string PlainWarning(const Manifest& manifest) {
  return absl::StrCat("no pricer.json: read with the base's own head and the prompt of the preset ",
                      manifest.prompt.preset, ", in ", manifest.currency,
                      "; neither that it was made for this base nor its prices could be checked");
}

void AddWarning(absl::string_view warning, LoadedAdapter* adapter) {
  if (warning.empty()) return;
  absl::StrAppend(&adapter->warning, adapter->warning.empty() ? "" : "; ", warning);
}

}  // namespace

AdapterLoader::AdapterLoader(const Engine* engine, BatchScheduler* scheduler)
    : engine_(engine), golden_(engine, scheduler) {}

absl::StatusOr<AdapterHandle> AdapterLoader::Load(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::shared_ptr<LoadedAdapter> adapter, engine_->LoadAdapter(directory));
  if (IsPlain(adapter->manifest)) {
    AddWarning(PlainWarning(adapter->manifest), adapter.get());
    return adapter;
  }
  AddWarning(ForeignWarning(adapter->manifest, engine_->info()), adapter.get());
  if (adapter->manifest.golden.empty()) {
    AddWarning("the manifest has no golden items to check its prices with", adapter.get());
  }
  RETURN_IF_ERROR(golden_.Check(adapter));
  return adapter;
}

}  // namespace pricer

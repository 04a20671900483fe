#include "server/adapter_loader.h"

#include <utility>

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

AdapterLoader::AdapterLoader(const Engine* engine, BatchScheduler* scheduler, AdapterMemory* memory)
    : engine_(engine), memory_(memory), golden_(engine, scheduler) {}

absl::StatusOr<AdapterHandle> AdapterLoader::Load(const std::string& directory) {
  ASSIGN_OR_RETURN(LoadedVersion version, engine_->LoadAdapter(directory));
  const std::shared_ptr<LoadedAdapter>& adapter = version.adapter;
  RETURN_IF_ERROR(memory_->CheckFits(adapter->memory_bytes));
  TensorsHandle device;
  if (engine_->has_device_memory()) {
    ASSIGN_OR_RETURN(device, engine_->CopyToDevice(*adapter, version.tensors));
  }
  if (IsPlain(adapter->manifest)) {
    AddWarning(PlainWarning(adapter->manifest), adapter.get());
  } else {
    AddWarning(ForeignWarning(adapter->manifest, engine_->info()), adapter.get());
    if (adapter->manifest.golden.empty()) {
      AddWarning("the manifest has no golden items to check its prices with", adapter.get());
    }
    RETURN_IF_ERROR(golden_.Check(adapter, device != nullptr ? device : version.tensors));
  }
  memory_->Add(adapter, std::move(version.tensors), std::move(device));
  return adapter;
}

absl::StatusOr<TensorsHandle> AdapterLoader::ReadAgain(const LoadedAdapter& adapter,
                                                       const std::string& directory) const {
  ASSIGN_OR_RETURN(LoadedVersion version, engine_->LoadAdapter(directory));
  if (version.adapter->digest == adapter.digest) return std::move(version.tensors);
  return absl::DataLossError(absl::StrCat(directory,
                                          ": has become another than was loaded: digest ",
                                          version.adapter->digest, ", expected ", adapter.digest));
}

}  // namespace pricer

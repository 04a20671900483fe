#include "trainer/process_group.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

class LoneProcess : public ProcessGroup {
 public:
  LoneProcess() : ProcessGroup(0, 1) {}
  absl::Status Sum(const at::Tensor&) override { return absl::OkStatus(); }
  absl::Status Broadcast(const at::Tensor&) override { return absl::OkStatus(); }
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Join(const LaunchEnvironment& launch,
                                                                 const Options& options) {
  if (launch.size == 1) return std::make_unique<LoneProcess>();
  return JoinGloo(launch, options);
}

absl::Status ProcessGroup::Broadcast(std::string* bytes) {
  if (size_ == 1) return absl::OkStatus();
  at::Tensor size = at::tensor(static_cast<int64_t>(bytes->size()), at::kLong).reshape({1});
  RETURN_IF_ERROR(Broadcast(size));
  const auto count = size.item<int64_t>();
  if (count == 0) {
    bytes->clear();
    return absl::OkStatus();
  }
  at::Tensor values = at::empty({count}, at::kByte);
  if (leads()) std::memcpy(values.mutable_data_ptr(), bytes->data(), count);
  RETURN_IF_ERROR(Broadcast(values));
  bytes->assign(static_cast<const char*>(values.const_data_ptr()), count);
  return absl::OkStatus();
}

absl::Status ProcessGroup::Broadcast(double* value) {
  if (size_ == 1) return absl::OkStatus();
  const at::Tensor tensor = at::full({1}, *value, at::kDouble);
  RETURN_IF_ERROR(Broadcast(tensor));
  *value = tensor.item<double>();
  return absl::OkStatus();
}

absl::Status ProcessGroup::Agree(const absl::Status& own) {
  if (size_ == 1) return own;
  const at::Tensor failed = at::zeros({size_}, at::kLong);
  if (!own.ok()) failed.mutable_data_ptr<int64_t>()[rank_] = 1;
  RETURN_IF_ERROR(Sum(failed));
  if (!own.ok()) return own;
  const int64_t* codes = failed.const_data_ptr<int64_t>();
  for (int rank = 0; rank < size_; ++rank) {
    if (codes[rank] == 0) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("rank ", rank, " cannot go on; its own message says why"));
  }
  return absl::OkStatus();
}

}  // namespace pricer

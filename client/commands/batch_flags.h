#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/batch_compare.h"
#include "client/batch_delivery.h"
#include "client/batch_job.h"
#include "client/client.h"
#include "client/commands/common_flags.h"

namespace pricer {

// What `pricer batch` is asked for: up to three jobs, done in this order.
struct BatchPlan {
  BatchDelivery delivery;
  // Prices the input, or a shard of it.
  std::optional<BatchJobOptions> price;
  ClientOptions connection;  // of `price`
  // Puts so many shards together; 0 = no.
  int merge_shards = 0;
  // Tells what has changed.
  std::optional<CompareOptions> compare;
  std::string report;  // file for it as JSON; "" = none
  // More rows with errors: done with rejects.
  double max_reject_share = 0;

  // Whether the whole output is there in the end, and not a shard's alone.
  bool ends_whole() const { return merge_shards > 0 || !price.has_value() || price->shard.whole(); }
  // Of rows that are done.
  int ExitCode(int64_t rows, int64_t errors) const;
};

// The command line of `pricer batch`.
class BatchFlags {
 public:
  void AddTo(CLI::App* app);

  // InvalidArgument names the flag that is wrong; other codes a file that cannot be read.
  absl::StatusOr<BatchPlan> Plan() const;

 private:
  absl::Status CheckTogether() const;
  bool prices() const { return !job_.input.empty(); }
  bool compares() const { return !compare_.before.empty(); }
  bool is_shard() const { return !shard_.empty() || shards_ > 0; }
  absl::StatusOr<Shard> ShardToPrice() const;
  absl::StatusOr<BatchJobOptions> PlanPrice(const BatchDelivery& delivery,
                                            const ClientOptions& connection) const;
  absl::StatusOr<CompareOptions> PlanCompare(const BatchDelivery& delivery) const;

  ConnectionFlags connection_;
  AdapterFlags adapter_;
  BatchJobOptions job_;
  std::string work_;
  std::string shard_;
  int shards_ = 0;
  bool restart_ = false;
  bool merge_ = false;
  double max_reject_share_ = 0;
  CompareOptions compare_;
  std::string report_;
};

}  // namespace pricer

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"
#include "pricer/v1/pricing.pb.h"

// Messages of the Open Inference Protocol to those of pricing.proto and back. Every error is
// InvalidArgument, unless said otherwise, and names the tensor or parameter.

namespace pricer {

// Adapter and version, number or label, as the protocol has them.
v1::AdapterSpec SpecFromModel(const std::string& name, const std::string& version);

// The items are not checked yet: that is the batch's own.
absl::StatusOr<v1::BatchPredictPricesRequest> BatchFromInfer(
    const inference::ModelInferRequest& request);

// Of a request that BatchFromInfer took. The first item's error, with its code, is the call's and
// names the item.
absl::StatusOr<inference::ModelInferResponse> InferFromBatch(
    const inference::ModelInferRequest& request, const v1::BatchPredictPricesResponse& batch);

// What ModelMetadata says of every adapter's tensors.
void FillTensorMetadata(inference::ModelMetadataResponse* response);

}  // namespace pricer

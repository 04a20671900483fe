#include "server/open_inference.h"

#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

static_assert(std::endian::native == std::endian::little, "raw contents are little-endian");

using inference::InferParameter;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using Input = ModelInferRequest::InferInputTensor;
using RequestedOutput = ModelInferRequest::InferRequestedOutputTensor;

constexpr char kTextInput[] = "text";
constexpr char kIdInput[] = "id";
constexpr char kPrice[] = "price";
constexpr char kLow[] = "low";
constexpr char kHigh[] = "high";
constexpr char kVersion[] = "version";
constexpr char kDatatypeParameter[] = "datatype";

template <typename... Words>
absl::Status Invalid(const Words&... words) {
  return absl::InvalidArgumentError(absl::StrCat(words...));
}

// [N]; as [N, 1] and [1, N] too, which batching clients make of it.
absl::StatusOr<int64_t> ElementCount(const Input& input) {
  int64_t count = 1;
  int wide = 0;
  for (const int64_t size : input.shape()) {
    if (size < 0 || size > std::numeric_limits<int32_t>::max()) wide = 2;
    wide += size != 1 ? 1 : 0;
    count = wide > 1 ? 0 : count * size;
  }
  if (input.shape_size() > 0 && wide <= 1) return count;
  return Invalid("inputs[", input.name(), "].shape: expected [N], got [",
                 absl::StrJoin(input.shape(), ", "), "]");
}

absl::StatusOr<std::vector<std::string>> SplitRaw(const std::string& name, const std::string& raw) {
  std::vector<std::string> elements;
  size_t at = 0;
  while (at < raw.size()) {
    uint32_t length = 0;
    if (raw.size() - at < sizeof(length)) {
      return Invalid("raw_input_contents of ", name, ": ends within a length");
    }
    std::memcpy(&length, raw.data() + at, sizeof(length));
    at += sizeof(length);
    if (raw.size() - at < length) {
      return Invalid("raw_input_contents of ", name, ": element ", elements.size(),
                     " has a length of ", length, " bytes, ", raw.size() - at, " are left");
    }
    elements.push_back(raw.substr(at, length));
    at += length;
  }
  return elements;
}

absl::StatusOr<std::vector<std::string>> ElementsOf(const ModelInferRequest& request, int index) {
  const Input& input = request.inputs(index);
  if (input.datatype() != "BYTES") {
    return Invalid("inputs[", input.name(), "].datatype: expected BYTES, got ", input.datatype());
  }
  ASSIGN_OR_RETURN(const int64_t count, ElementCount(input));
  std::vector<std::string> elements;
  if (request.raw_input_contents_size() > 0) {
    ASSIGN_OR_RETURN(elements, SplitRaw(input.name(), request.raw_input_contents(index)));
  } else {
    elements.assign(input.contents().bytes_contents().begin(),
                    input.contents().bytes_contents().end());
  }
  if (static_cast<int64_t>(elements.size()) != count) {
    return Invalid("inputs[", input.name(), "]: expected ", count, " elements as its shape says, ",
                   "got ", elements.size());
  }
  for (size_t i = 0; i < elements.size(); ++i) {
    // Strings of messages are UTF-8.
    if (!IsValidUtf8(elements[i])) return Invalid(input.name(), "[", i, "]: is no UTF-8");
  }
  return elements;
}

absl::StatusOr<double> NumberOf(const std::string& name, const InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case InferParameter::kDoubleParam:
      return parameter.double_param();
    case InferParameter::kInt64Param:
      return static_cast<double>(parameter.int64_param());
    default:
      return Invalid("parameters[", name, "]: expected a number");
  }
}

absl::StatusOr<std::string> TextOf(const std::string& name, const InferParameter& parameter) {
  if (parameter.has_string_param()) return parameter.string_param();
  return Invalid("parameters[", name, "]: expected a string");
}

// Parameters of other names are for other servers, such as Triton's own.
absl::StatusOr<v1::PredictOptions> OptionsFromParameters(const ModelInferRequest& request) {
  v1::PredictOptions options;
  for (const auto& [name, parameter] : request.parameters()) {
    if (name == "coverage") {
      ASSIGN_OR_RETURN(const double coverage, NumberOf(name, parameter));
      options.add_interval_coverages(coverage);
    } else if (name == "estimator") {
      ASSIGN_OR_RETURN(*options.mutable_estimator(), TextOf(name, parameter));
    } else if (name == "lane") {
      ASSIGN_OR_RETURN(const std::string lane, TextOf(name, parameter));
      if (lane != "online" && lane != "bulk") {
        return Invalid("parameters[lane]: expected online or bulk, got ", lane);
      }
      options.set_lane(lane == "bulk" ? v1::LANE_BULK : v1::LANE_ONLINE);
    }
  }
  return options;
}

absl::Status CheckOutput(const RequestedOutput& output) {
  const std::string& name = output.name();
  if (name != kPrice && name != kLow && name != kHigh && name != kVersion) {
    return Invalid("outputs: expected price, low, high or version, got ", name);
  }
  const auto datatype = output.parameters().find(kDatatypeParameter);
  if (datatype == output.parameters().end() || name == kVersion) return absl::OkStatus();
  const std::string& text = datatype->second.string_param();
  if (text == "FP32" || text == "FP64") return absl::OkStatus();
  return Invalid("outputs[", name, "].parameters[datatype]: expected FP32 or FP64, got ", text);
}

absl::Status CheckContents(const ModelInferRequest& request) {
  if (request.raw_input_contents_size() == 0) return absl::OkStatus();
  if (request.raw_input_contents_size() != request.inputs_size()) {
    return Invalid("raw_input_contents: expected one for each of ", request.inputs_size(),
                   " inputs, got ", request.raw_input_contents_size());
  }
  for (const Input& input : request.inputs()) {
    if (input.has_contents()) return Invalid("inputs[", input.name(), "]: has contents beside raw");
  }
  return absl::OkStatus();
}

// Of price, low or high.
double ValueOf(const std::string& output, const v1::Prediction& prediction) {
  if (output == kPrice) return prediction.price();
  const v1::Interval& interval = prediction.intervals(0);
  return output == kLow ? interval.low() : interval.high();
}

template <typename T>
std::string Raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

void AddOutput(const RequestedOutput& wanted, bool raw, const v1::BatchPredictPricesResponse& batch,
               ModelInferResponse* response) {
  ModelInferResponse::InferOutputTensor* const output = response->add_outputs();
  output->set_name(wanted.name());
  output->add_shape(batch.results_size());
  if (wanted.name() == kVersion) {
    output->set_datatype("INT64");
    std::vector<int64_t> versions;
    for (const v1::ItemResult& result : batch.results()) {
      versions.push_back(result.prediction().served_by().version());
    }
    if (raw) {
      response->add_raw_output_contents(Raw(versions));
    } else {
      output->mutable_contents()->mutable_int64_contents()->Add(versions.begin(), versions.end());
    }
    return;
  }
  std::vector<double> values;
  for (const v1::ItemResult& result : batch.results()) {
    values.push_back(ValueOf(wanted.name(), result.prediction()));
  }
  const auto datatype = wanted.parameters().find(kDatatypeParameter);
  const bool is_float =
      datatype != wanted.parameters().end() && datatype->second.string_param() == "FP32";
  const std::vector<float> floats(values.begin(), values.end());
  output->set_datatype(is_float ? "FP32" : "FP64");
  if (raw) {
    response->add_raw_output_contents(is_float ? Raw(floats) : Raw(values));
  } else if (is_float) {
    output->mutable_contents()->mutable_fp32_contents()->Add(floats.begin(), floats.end());
  } else {
    output->mutable_contents()->mutable_fp64_contents()->Add(values.begin(), values.end());
  }
}

}  // namespace

v1::AdapterSpec SpecFromModel(const std::string& name, const std::string& version) {
  v1::AdapterSpec spec;
  spec.set_name(name);
  const std::optional<int64_t> number = ParseAdapterVersion(version);
  if (number.has_value()) {
    spec.set_version(*number);
  } else if (version == "0") {
    spec.set_version(0);  // of the base
  } else if (!version.empty()) {
    spec.set_label(version);
  }
  return spec;
}

absl::StatusOr<v1::BatchPredictPricesRequest> BatchFromInfer(const ModelInferRequest& request) {
  v1::BatchPredictPricesRequest batch;
  *batch.mutable_adapter() = SpecFromModel(request.model_name(), request.model_version());
  ASSIGN_OR_RETURN(*batch.mutable_options(), OptionsFromParameters(request));
  for (const RequestedOutput& output : request.outputs()) RETURN_IF_ERROR(CheckOutput(output));
  RETURN_IF_ERROR(CheckContents(request));
  std::vector<std::string> texts;
  std::vector<std::string> ids;
  bool has_text = false;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const std::string& name = request.inputs(i).name();
    if (name != kTextInput && name != kIdInput) {
      return Invalid("inputs: expected text and perhaps id, got ", name);
    }
    has_text = has_text || name == kTextInput;
    std::vector<std::string>& elements = name == kTextInput ? texts : ids;
    ASSIGN_OR_RETURN(elements, ElementsOf(request, i));
  }
  if (!has_text) return Invalid("inputs: expected text, got none");
  if (!ids.empty() && ids.size() != texts.size()) {
    return Invalid("inputs[id]: expected ", texts.size(), " elements as of text, got ", ids.size());
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    v1::Item* const item = batch.add_items();
    item->set_text(std::move(texts[i]));
    if (!ids.empty()) item->set_id(std::move(ids[i]));
  }
  return batch;
}

absl::StatusOr<ModelInferResponse> InferFromBatch(const ModelInferRequest& request,
                                                  const v1::BatchPredictPricesResponse& batch) {
  for (int i = 0; i < batch.results_size(); ++i) {
    if (!batch.results(i).has_error()) continue;
    const v1::ItemError& error = batch.results(i).error();
    return absl::Status(static_cast<absl::StatusCode>(error.code()),
                        absl::StrCat(kTextInput, "[", i, "]: ", error.message()));
  }
  ModelInferResponse response;
  const v1::ServedBy& served_by = batch.results(0).prediction().served_by();
  response.set_model_name(served_by.adapter());
  response.set_model_version(absl::StrCat(served_by.version()));
  response.set_id(request.id());
  (*response.mutable_parameters())["currency"].set_string_param(
      batch.results(0).prediction().currency_code());
  std::vector<RequestedOutput> wanted(request.outputs().begin(), request.outputs().end());
  if (wanted.empty()) {
    for (const char* const name : {kPrice, kLow, kHigh}) wanted.emplace_back().set_name(name);
  }
  const bool raw = request.raw_input_contents_size() > 0;
  for (const RequestedOutput& output : wanted) AddOutput(output, raw, batch, &response);
  return response;
}

void FillTensorMetadata(inference::ModelMetadataResponse* response) {
  const auto add = [](auto* tensors, const char* name, const char* datatype) {
    auto* const tensor = tensors->Add();
    tensor->set_name(name);
    tensor->set_datatype(datatype);
    tensor->add_shape(-1);
  };
  add(response->mutable_inputs(), kTextInput, "BYTES");
  add(response->mutable_inputs(), kIdInput, "BYTES");
  for (const char* const name : {kPrice, kLow, kHigh}) {
    add(response->mutable_outputs(), name, "FP64");
  }
  add(response->mutable_outputs(), kVersion, "INT64");
}

}  // namespace pricer

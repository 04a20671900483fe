#include "trainer/weights_memory.h"

#include <algorithm>
#include <vector>

#include "model/nf4.h"
#include "model/ops/product_blocks.h"

namespace pricer {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kBf16Bytes = 2;

// What loading something holds at most, and what it leaves.
struct Load {
  int64_t tensor_peak = 0;
  int64_t peak = 0;
  int64_t kept = 0;

  // `next` is loaded beside what this has left.
  void Add(const Load& next) {
    tensor_peak = std::max(tensor_peak, kept + next.tensor_peak);
    peak = std::max(peak, kept + next.peak);
    kept += next.kept;
  }
};

// A copy of a tensor in its own dtype, then in the compute dtype.
Load LoadPlain(int64_t values, int64_t stored_bytes, const WeightsPlan& plan) {
  const bool same = stored_bytes == plan.element_bytes;
  const int64_t peak = values * (stored_bytes + (same ? 0 : plan.element_bytes));
  return {peak, peak, values * plan.element_bytes};
}

int64_t BlocksOf(int64_t values, int64_t size) { return (values + size - 1) / size; }

// Packed values and the codes of their blocks; nf4.h.
int64_t Nf4Bytes(int64_t values) { return values / 2 + values / kNf4BlockSize * (1 + kFloatBytes); }

// As LoadLinearWeight does.
Load LoadLinear(const Checkpoint& checkpoint, const std::string& module, LinearShape shape,
                const WeightsPlan& plan) {
  const int64_t values = shape.out * shape.in;
  const int64_t element = plan.element_bytes;
  const int64_t narrowed = element == kFloatBytes ? 0 : element;
  const int64_t kept = values * element;
  if (checkpoint.IsNf4(module)) {
    const int64_t peak = values * (kFloatBytes + narrowed);
    return {peak, peak + Nf4Bytes(values), kept};
  }
  const int64_t stored = DtypeBytes(checkpoint.tensor(module + ".weight").dtype);
  const int64_t widened = values * (kFloatBytes + (stored == kFloatBytes ? 0 : stored));
  const bool quantizes = plan.weights == "nf4" && !checkpoint.declares_nf4();
  if (quantizes) {
    const int64_t decoded = values * (2 * kFloatBytes + narrowed);
    return {std::max(widened, decoded), std::max(widened, decoded + Nf4Bytes(values)), kept};
  }
  // Rounded to bf16 on the way.
  const bool rounds = plan.weights == "bf16";
  const int64_t rounded = rounds ? kBf16Bytes + (narrowed > 0 ? 0 : kFloatBytes) : narrowed;
  const int64_t peak = std::max(widened, values * (kFloatBytes + rounded));
  return {peak, peak, kept};
}

// In the layout of the products, W^T; model/ops/matrix_product.h.
int64_t PackedBytes(LinearShape shape, int64_t element_bytes) {
  return RoundUp(kFloatBytes / element_bytes, shape.in) * RoundUp(kProductTile, shape.out) *
         element_bytes;
}

// On a GPU; model/ops/device_nf4.h.
int64_t DeviceNf4Bytes(const Checkpoint& checkpoint, const std::string& module, int64_t values) {
  const int64_t blocks = BlocksOf(values, kNf4BlockSize);
  const bool nested =
      !checkpoint.IsNf4(module) || checkpoint.has_tensor(module + ".weight.nested_absmax");
  const int64_t tables = 1 + static_cast<int64_t>(kDynamicMap.size());  // offset and map
  const int64_t codes =
      nested ? blocks + kFloatBytes * (BlocksOf(blocks, kNf4NestedBlockSize) + tables)
             : kFloatBytes * blocks;
  return (values + 1) / 2 + codes;
}

constexpr int64_t kDynamicCodes = 65536;  // of MakeNf4DynamicCodes, bytes

// As LoadDeviceLinear does.
Load LoadOnGpu(const Checkpoint& checkpoint, const std::string& module, LinearShape shape,
               const WeightsPlan& plan) {
  const int64_t values = shape.out * shape.in;
  if (LoadsAsNf4(checkpoint, module, plan)) {
    const int64_t codes = DeviceNf4Bytes(checkpoint, module, values);
    if (checkpoint.IsNf4(module)) return {codes, codes, codes};
    const int64_t stored = DtypeBytes(checkpoint.tensor(module + ".weight").dtype);
    const int64_t peak =
        values * stored + codes + kFloatBytes * BlocksOf(values, kNf4BlockSize) + kDynamicCodes;
    return {peak, peak, codes};
  }
  return LoadPlain(values, DtypeBytes(checkpoint.tensor(module + ".weight").dtype), plan);
}

const std::vector<std::vector<Projection>>& Groups() {
  static const auto* const groups =
      new std::vector<std::vector<Projection>>{{Projection::kQ, Projection::kK, Projection::kV},
                                               {Projection::kO},
                                               {Projection::kGate, Projection::kUp},
                                               {Projection::kDown}};
  return *groups;
}

// Whether all linears of a group stay in NF4, which no part of it does otherwise.
bool StaysInNf4(const Checkpoint& checkpoint, int64_t layer,
                const std::vector<Projection>& projections, const WeightsPlan& plan) {
  return plan.place == WeightsPlace::kGpuInNf4 &&
         std::all_of(projections.begin(), projections.end(), [&](Projection projection) {
           return LoadsAsNf4(checkpoint, ModulePath(layer, projection), plan);
         });
}

// Values of a group's linears.
int64_t ValuesOf(const ModelConfig& config, const std::vector<Projection>& projections) {
  int64_t values = 0;
  for (const Projection projection : projections) {
    const LinearShape shape = ProjectionShape(config, projection);
    values += shape.out * shape.in;
  }
  return values;
}

Load LoadGroupOnGpu(const Checkpoint& checkpoint, int64_t layer,
                    const std::vector<Projection>& projections, const WeightsPlan& plan) {
  Load group;
  for (const Projection projection : projections) {
    group.Add(LoadOnGpu(checkpoint, ModulePath(layer, projection),
                        ProjectionShape(checkpoint.config(), projection), plan));
  }
  if (StaysInNf4(checkpoint, layer, projections, plan)) return group;
  const int64_t stacked = ValuesOf(checkpoint.config(), projections) * plan.element_bytes;
  group.Add({stacked, stacked, 0});
  group.kept = stacked;
  return group;
}

Load LoadGroup(const Checkpoint& checkpoint, int64_t layer,
               const std::vector<Projection>& projections, const WeightsPlan& plan) {
  if (plan.on_gpu()) return LoadGroupOnGpu(checkpoint, layer, projections, plan);
  Load group;
  for (const Projection projection : projections) {
    const LinearShape shape = ProjectionShape(checkpoint.config(), projection);
    const int64_t packed = PackedBytes(shape, plan.element_bytes);
    Load linear = LoadLinear(checkpoint, ModulePath(layer, projection), shape, plan);
    linear.Add({packed, packed, 0});
    linear.kept = packed;
    group.Add(linear);
  }
  return group;
}

Load LoadLayer(const Checkpoint& checkpoint, const WeightsPlan& plan) {
  const int64_t norm = checkpoint.config().hidden_size * plan.element_bytes;
  Load layer{2 * norm, 2 * norm, 2 * norm};
  for (const auto& projections : Groups()) {
    layer.Add(LoadGroup(checkpoint, 0, projections, plan));
  }
  return layer;
}

Load LoadHead(const Checkpoint& checkpoint, const WeightsPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  const int64_t values = config.vocabulary_size * config.hidden_size;
  if (config.tied_embeddings) return {};
  const LinearShape shape{config.vocabulary_size, config.hidden_size};
  if (checkpoint.IsNf4("lm_head") && plan.on_gpu()) {
    const int64_t kept = values * plan.element_bytes;
    const int64_t peak = kept + DeviceNf4Bytes(checkpoint, "lm_head", values);
    return {peak, peak, kept};
  }
  if (checkpoint.IsNf4("lm_head")) return LoadLinear(checkpoint, "lm_head", shape, plan);
  return LoadPlain(values, DtypeBytes(checkpoint.tensor("lm_head.weight").dtype), plan);
}

// cos and sin of angles.
int64_t RotaryBytes(const ModelConfig& config) {
  return 2 * config.MaxSequenceTokens() * (config.head_dim / 2) * kFloatBytes;
}

int64_t BiasValues(const ModelConfig& config) {
  int64_t values = config.LinearParameterCount();
  for (int p = 0; p < kProjectionCount; ++p) {
    const LinearShape shape = ProjectionShape(config, static_cast<Projection>(p));
    values -= config.layer_count * shape.out * shape.in;
  }
  return values;
}

void AddGpuLinears(const Checkpoint& checkpoint, const WeightsPlan& plan,
                   ResidentWeights* weights) {
  const ModelConfig& config = checkpoint.config();
  int64_t largest = 0;  // of the layers' linears that are decoded layer by layer
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    int64_t decoded = 0;
    for (const auto& projections : Groups()) {
      const int64_t values = ValuesOf(config, projections);
      if (!StaysInNf4(checkpoint, layer, projections, plan)) {
        weights->linears += values * plan.element_bytes;
        continue;
      }
      decoded += values;
      for (const Projection projection : projections) {
        const LinearShape shape = ProjectionShape(config, projection);
        weights->linears +=
            DeviceNf4Bytes(checkpoint, ModulePath(layer, projection), shape.out * shape.in);
      }
    }
    largest = std::max(largest, decoded);
  }
  const int64_t buffers = std::min<int64_t>(config.layer_count, 2);
  weights->window = buffers * largest * plan.element_bytes;
}

}  // namespace

bool LoadsAsNf4(const Checkpoint& checkpoint, const std::string& module, const WeightsPlan& plan) {
  return checkpoint.IsNf4(module) || (plan.weights == "nf4" && !checkpoint.declares_nf4());
}

ResidentWeights PredictWeights(const Checkpoint& checkpoint, const WeightsPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  const int64_t embedding = config.vocabulary_size * config.hidden_size * plan.element_bytes;
  ResidentWeights weights;
  weights.linears = BiasValues(config) * plan.element_bytes;
  if (plan.on_gpu()) {
    AddGpuLinears(checkpoint, plan, &weights);
  } else {
    for (int p = 0; p < kProjectionCount; ++p) {
      weights.linears +=
          config.layer_count *
          PackedBytes(ProjectionShape(config, static_cast<Projection>(p)), plan.element_bytes);
    }
  }
  weights.embedding = embedding;
  weights.head = config.tied_embeddings ? 0 : embedding;
  weights.norms = (2 * config.layer_count + 1) * config.hidden_size * plan.element_bytes;
  weights.rotary = RotaryBytes(config);
  return weights;
}

LoadMemory PredictLoadMemory(const Checkpoint& checkpoint, const WeightsPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  Load load;
  load.Add(LoadPlain(config.vocabulary_size * config.hidden_size,
                     DtypeBytes(checkpoint.tensor("model.embed_tokens.weight").dtype), plan));
  load.Add(LoadHead(checkpoint, plan));
  const int64_t rotary = RotaryBytes(config);
  load.Add({rotary + rotary / 2, rotary + rotary / 2, rotary});  // and the angles
  // at::parallel_for gives each thread a run of layers; those at work are equally far.
  const int64_t threads = std::min<int64_t>(plan.threads, config.layer_count);
  const int64_t run = (config.layer_count + threads - 1) / threads;
  const int64_t at_work = (config.layer_count + run - 1) / run;
  const Load layer = LoadLayer(checkpoint, plan);
  const int64_t done = config.layer_count - at_work;
  load.Add({0, 0, done * layer.kept + BiasValues(config) * plan.element_bytes});
  load.Add({at_work * layer.tensor_peak, at_work * layer.peak, at_work * layer.kept});
  return {load.tensor_peak, load.peak};
}

}  // namespace pricer

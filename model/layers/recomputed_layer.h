#pragma once

#include <cstdint>
#include <memory>

#include "model/layers/decoder_layer.h"

namespace pricer {

// Whether the layer's output would depend, under the grad mode, on something that is trained.
// `index` is the layer's own.
bool RecordsGradients(int64_t index, const Stream& in, const ForwardContext& context);

// DecoderLayer::Forward that keeps its input alone, [T, H]: the backward pass computes the layer
// once more, arXiv 1604.06174. Outputs and gradients are Forward's, to the bit. `layer` and what
// `context` points at must live until the backward pass.
Stream ForwardRecomputed(const DecoderLayer& layer, int64_t index, const Stream& in,
                         const std::shared_ptr<const ForwardContext>& context);

}  // namespace pricer

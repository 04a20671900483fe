#include <type_traits>

#include "model/cuda/device/tile.cuh"
#include "model/cuda/launch.h"
#include "model/ops/lora_kernel.h"
#include "model/ops/lora_parts.cuh"

// Every product is cut into tiles of kTile rows and columns, a block each.

namespace pricer::cuda {
namespace {

enum class Direction { kForward, kGradient };

// What both directions read: x [T, in] or the gradient of y [T, out], and the workspace.
struct StatesParams {
  const __nv_bfloat16* rows;
  int64_t stride;
  int64_t in;
  int64_t state_size;
  float* workspace;  // [splits, state_size]
};

// workspace[split] = rows A^T (forward) or rows B (gradient) over a split of the depth. Blocks: x
// tiles of rows and ranks, y splits.
template <Direction kDirection, int kWidth, int kMost>
__global__ void __launch_bounds__(kTileThreads)
    lora_states(const __grid_constant__ PartTable<kMost> table, StatesParams params) {
  constexpr bool kForward = kDirection == Direction::kForward;
  alignas(32) __shared__ TileRows left;
  alignas(32) __shared__ TileRows right;
  const int index = FindPart(table, blockIdx.x);
  const LoraKernelPart& part = table.part[index];
  const int64_t depth = kForward ? params.in : part.out_size;
  const int64_t depth_begin = int64_t{blockIdx.y} * kLoraDepthSplit;
  const int64_t depth_end = Least(depth, depth_begin + kLoraDepthSplit);
  if (depth_begin >= depth_end) return;  // the whole block: a shorter part's splits are fewer
  const int padded_rank = PaddedRank(part);
  const int64_t rank_tiles = (padded_rank + kTile - 1) / kTile;
  const int64_t tile = blockIdx.x - table.tile_begin[index];
  const int64_t row = tile / rank_tiles * kTile;
  const int64_t rank = tile % rank_tiles * kTile;
  const int columns = static_cast<int>(Least(kTile, padded_rank - rank));
  const int64_t column_begin = kForward ? 0 : part.out_begin;
  const __nv_bfloat16* const rows =
      params.rows + (part.row_begin + row) * params.stride + column_begin;
  WarpSums<kMaxFragments> sums;
  sums.Clear();
  for (int64_t k = depth_begin; k < depth_end; k += kTile) {
    const TileMask mask = kForward ? MaskFrom(part, params.in, row, k) : TileMask{nullptr, 0};
    LoadTile<kWidth>({rows + k, params.stride, part.rows - row, depth_end - k}, mask, left);
    if constexpr (kForward) {
      LoadTile<kWidth>({part.a + rank * params.in + k, params.in, part.rank - rank, depth_end - k},
                       {nullptr, 0}, right);
    } else {
      LoadTile<kWidth>({part.b + k * part.rank + rank, part.rank, depth_end - k, part.rank - rank},
                       {nullptr, 0}, right);
    }
    __syncthreads();
    AddRowProducts<kForward ? TileOrder::kTransposed : TileOrder::kStraight>(
        left, right, kTile, columns / kFragment, sums);
    __syncthreads();
  }
  alignas(32) __shared__ TileSums sum;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * kFragment;
#pragma unroll
  for (int f = 0; f < kMaxFragments; ++f) {
    nvcuda::wmma::store_matrix_sync(&sum[warp_row][f * kFragment], sums.sum[f], kSumPitch,
                                    nvcuda::wmma::mem_row_major);
  }
  __syncthreads();
  float* const to = params.workspace + blockIdx.y * params.state_size + part.state_begin;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * columns; i += kTileThreads) {
    const int r = i / columns;
    const int c = i % columns;
    if (row + r < part.rows) to[(row + r) * padded_rank + rank + c] = sum[r][c];
  }
}

// states = factor * the sum of the splits. Blocks as lora_states' x, of kTile rows.
template <Direction kDirection, int kMost>
__global__ void __launch_bounds__(kTileThreads)
    lora_add_splits(const __grid_constant__ PartTable<kMost> table, StatesParams params,
                    __nv_bfloat16* states) {
  const int index = FindPart(table, blockIdx.x);
  const LoraKernelPart& part = table.part[index];
  const int64_t depth = kDirection == Direction::kForward ? params.in : part.out_size;
  const int64_t splits = (depth + kLoraDepthSplit - 1) / kLoraDepthSplit;
  const float factor = kDirection == Direction::kForward ? 1.0f : part.scale;
  const int64_t row = (blockIdx.x - table.tile_begin[index]) * kTile;
  const int padded_rank = PaddedRank(part);
  const int64_t begin = part.state_begin + row * padded_rank;
  const int64_t count = Least(kTile, part.rows - row) * padded_rank;
  for (int64_t i = threadIdx.x; i < count; i += kTileThreads) {
    float sum = 0.0f;
    for (int64_t split = 0; split < splits; ++split) {
      sum += params.workspace[split * params.state_size + begin + i];
    }
    states[begin + i] = FromFloat<__nv_bfloat16>(factor * sum);
  }
}

struct OutputParams {
  const __nv_bfloat16* states;
  __nv_bfloat16* out;
  int64_t stride;
  int64_t in;
};

// out[tile] += scale * states B^T (forward) or keep(states A) (gradient), of parts [first, behind),
// which share their rows; forward has one part a tile.
template <Direction kDirection, int kWidth, int kMost>
__global__ void __launch_bounds__(kTileThreads)
    lora_output(const __grid_constant__ PartTable<kMost> table, OutputParams params) {
  constexpr bool kForward = kDirection == Direction::kForward;
  constexpr int kEach = kTile * kTile / kTileThreads;
  alignas(32) __shared__ TileRows left;
  alignas(32) __shared__ TileRows right;
  alignas(32) __shared__ TileSums sum;
  constexpr int kMaskWords = kTile / 32;
  __shared__ uint32_t kept[kTile][kMaskWords];  // of the part's mask; gradients alone
  const int first = FindPart(table, blockIdx.x);
  const LoraKernelPart& leader = table.part[first];
  const int64_t out_size = kForward ? leader.out_size : params.in;
  const int64_t column_tiles = (out_size + kTile - 1) / kTile;
  const int64_t tile = blockIdx.x - table.tile_begin[first];
  const int64_t row = tile / column_tiles * kTile;
  const int64_t column = tile % column_tiles * kTile;
  float added[kEach] = {};
  // Parts of the segment behind the first one have no tiles of their own in a gradient.
  for (int p = first; p < table.count && (p == first || !kForward); ++p) {
    const LoraKernelPart& part = table.part[p];
    if (part.segment != leader.segment) break;
    const int padded_rank = PaddedRank(part);
    const __nv_bfloat16* const states = params.states + part.state_begin + row * padded_rank;
    WarpSums<kMaxFragments> sums;
    sums.Clear();
    for (int rank = 0; rank < padded_rank; rank += kTile) {
      const int depth = static_cast<int>(Least(kTile, padded_rank - rank));
      // A multiple of 16 columns, whatever the rank.
      LoadTile<8>({states + rank, padded_rank, part.rows - row, depth}, {nullptr, 0}, left);
      if constexpr (kForward) {
        LoadTile<kWidth>(
            {part.b + column * part.rank + rank, part.rank, out_size - column, part.rank - rank},
            {nullptr, 0}, right);
      } else {
        LoadTile<kWidth>(
            {part.a + rank * params.in + column, params.in, part.rank - rank, out_size - column},
            {nullptr, 0}, right);
      }
      __syncthreads();
      AddRowProducts<kForward ? TileOrder::kTransposed : TileOrder::kStraight>(left, right, depth,
                                                                               kMaxFragments, sums);
      __syncthreads();
    }
    const int warp_row = static_cast<int>(threadIdx.x) / 32 * kFragment;
#pragma unroll
    for (int f = 0; f < kMaxFragments; ++f) {
      nvcuda::wmma::store_matrix_sync(&sum[warp_row][f * kFragment], sums.sum[f], kSumPitch,
                                      nvcuda::wmma::mem_row_major);
    }
    if constexpr (!kForward) {
      static_assert(kTile * kMaskWords == kTileThreads);
      const int word = static_cast<int>(threadIdx.x) % kMaskWords;
      const int masked_row = static_cast<int>(threadIdx.x) / kMaskWords;
      const bool inside = row + masked_row < part.rows && column + word * 32 < out_size;
      const TileMask mask = MaskFrom(part, params.in, row, column);
      kept[masked_row][word] = inside ? mask.From(masked_row, word * 32) : 0;
    }
    __syncthreads();
    const float factor = kForward ? part.scale : 1.0f;
#pragma unroll
    for (int i = 0; i < kEach; i += kWidth) {
      const int at = i * kTileThreads + static_cast<int>(threadIdx.x) * kWidth;
      const int r = at / kTile;
      const int c = at % kTile;
      const uint32_t bits = kForward ? 0xffffffffu : kept[r][c / 32] >> (c % 32);
      for (int j = 0; j < kWidth; ++j) {
        if (((bits >> j) & 1u) != 0) added[i + j] += factor * sum[r][c + j];
      }
    }
  }
  const int64_t column_begin = kForward ? leader.out_begin : 0;
  __nv_bfloat16* const out =
      params.out + (leader.row_begin + row) * params.stride + column_begin + column;
#pragma unroll
  for (int i = 0; i < kEach; i += kWidth) {
    const int at = i * kTileThreads + static_cast<int>(threadIdx.x) * kWidth;
    const int r = at / kTile;
    const int c = at % kTile;
    if (row + r >= leader.rows || column + c >= out_size) continue;
    Pack<__nv_bfloat16, kWidth> pack = LoadPack<kWidth>(out + r * params.stride + c);
    for (int j = 0; j < kWidth; ++j) {
      pack.value[j] = FromFloat<__nv_bfloat16>(ToFloat(pack.value[j]) + added[i + j]);
    }
    StorePack(out + r * params.stride + c, pack);
  }
}

enum class Weight { kA, kB };

struct WeightParams {
  const __nv_bfloat16* rows;  // x or the gradient of y
  int64_t stride;
  const __nv_bfloat16* states;  // the gradient's or the forward pass's
  int64_t in;
  int64_t split_size;  // of all parts' gradients of this kind
  float* workspace;    // [splits, split_size]
};

template <Weight kWeight>
__device__ inline int64_t Width(const LoraKernelPart& part, int64_t in) {
  return kWeight == Weight::kA ? in : part.out_size;
}

// Where the parts of a table lie in a split of the workspace.
template <int kMost>
struct GradientPlaces {
  int64_t begin[kMost] = {};
};

// workspace[split][rank, column] = states^T keep(rows) over a split of the rows. Blocks: x tiles of
// ranks and columns, y splits.

template <Weight kWeight, int kWidth, int kMost>
__global__ void __launch_bounds__(kTileThreads)
    lora_weight_splits(const __grid_constant__ PartTable<kMost> table,
                       const __grid_constant__ GradientPlaces<kMost> places, WeightParams params) {
  alignas(32) __shared__ TileRows left;
  alignas(32) __shared__ TileRows right;
  alignas(32) __shared__ TileSums sum;
  const int index = FindPart(table, blockIdx.x);
  const LoraKernelPart& part = table.part[index];
  const int64_t row_begin = int64_t{blockIdx.y} * kLoraDepthSplit;
  const int64_t row_end = Least(part.rows, row_begin + kLoraDepthSplit);
  if (row_begin >= row_end) return;  // the whole block
  const int padded_rank = PaddedRank(part);
  const int64_t rank_tiles = (padded_rank + kTile - 1) / kTile;
  const int64_t tile = blockIdx.x - table.tile_begin[index];
  const int64_t width = Width<kWeight>(part, params.in);
  const int64_t column = tile / rank_tiles * kTile;
  const int64_t rank = tile % rank_tiles * kTile;
  const int ranks = static_cast<int>(Least(kTile, padded_rank - rank));
  const __nv_bfloat16* const states = params.states + part.state_begin + rank;
  const __nv_bfloat16* const rows = params.rows + part.row_begin * params.stride +
                                    (kWeight == Weight::kA ? 0 : part.out_begin) + column;
  WarpSums<kMaxFragments> sums;
  sums.Clear();
  for (int64_t row = row_begin; row < row_end; row += kTile) {
    LoadTile<8>({states + row * padded_rank, padded_rank, row_end - row, ranks}, {nullptr, 0},
                left);
    const TileMask mask =
        kWeight == Weight::kA ? MaskFrom(part, params.in, row, column) : TileMask{nullptr, 0};
    LoadTile<kWidth>({rows + row * params.stride, params.stride, row_end - row, width - column},
                     mask, right);
    __syncthreads();
    AddColumnProducts(left, right, ranks / kFragment, sums);
    __syncthreads();
  }
  const int warp_column = static_cast<int>(threadIdx.x) / 32 * kFragment;
#pragma unroll
  for (int f = 0; f < kMaxFragments; ++f) {
    nvcuda::wmma::store_matrix_sync(&sum[f * kFragment][warp_column], sums.sum[f], kSumPitch,
                                    nvcuda::wmma::mem_row_major);
  }
  __syncthreads();
  float* const to = params.workspace + blockIdx.y * params.split_size + places.begin[index] +
                    rank * width + column;
  for (int i = static_cast<int>(threadIdx.x); i < ranks * kTile; i += kTileThreads) {
    const int r = i / kTile;
    const int c = i % kTile;
    if (rank + r < part.rank && column + c < width) to[r * width + c] = sum[r][c];
  }
}

// grad = factor * the sum of the splits, [rank, in] of A and [out, rank] of B. Blocks: x tiles of
// kTile columns, all ranks.
template <Weight kWeight, int kMost>
__global__ void __launch_bounds__(kTileThreads)
    lora_add_weight_splits(const __grid_constant__ PartTable<kMost> table,
                           const __grid_constant__ GradientPlaces<kMost> places,
                           WeightParams params) {
  const int index = FindPart(table, blockIdx.x);
  const LoraKernelPart& part = table.part[index];
  const int64_t splits = (int64_t{part.rows} + kLoraDepthSplit - 1) / kLoraDepthSplit;
  const int64_t width = Width<kWeight>(part, params.in);
  const int64_t column = (blockIdx.x - table.tile_begin[index]) * kTile;
  const int columns = static_cast<int>(Least(kTile, width - column));
  const float* const from = params.workspace + places.begin[index] + column;
  for (int i = static_cast<int>(threadIdx.x); i < part.rank * columns; i += kTileThreads) {
    const int64_t r = i / columns;
    const int64_t c = i % columns;
    float sum = 0.0f;
    for (int64_t split = 0; split < splits; ++split) {
      sum += from[split * params.split_size + r * width + c];
    }
    if constexpr (kWeight == Weight::kA) {
      part.grad_a[r * width + column + c] = sum;
    } else {
      part.grad_b[(column + c) * part.rank + r] = part.scale * sum;
    }
  }
}

template <Direction kDirection>
cudaError_t LaunchStates(const LoraBatch& batch, const __nv_bfloat16* rows, float* workspace,
                         __nv_bfloat16* states, cudaStream_t stream) {
  constexpr bool kForward = kDirection == Direction::kForward;
  const StatesParams params = {rows, kForward ? batch.in : batch.out, batch.in, batch.state_size,
                               workspace};
  const int64_t depth =
      kForward ? batch.in : Most(batch, [](const LoraKernelPart& p) { return p.out_size; });
  const auto splits = static_cast<unsigned>(Blocks(depth, kLoraDepthSplit));
  const auto products = [&]<int kWidth>(std::integral_constant<int, kWidth>) {
    const auto tiles = [](const LoraKernelPart& part) { return RowTiles(part) * RankTiles(part); };
    return ForTables(batch, false, tiles, [&]<int kMost>(const PartTable<kMost>& table) {
      const auto blocks = static_cast<unsigned>(table.tile_begin[table.count]);
      return Launch(lora_states<kDirection, kWidth, kMost>, dim3(blocks, splits), kTileThreads,
                    stream, table, params);
    });
  };
  const cudaError_t error = WithWidth(IsWide(batch, {rows}), products);
  if (error != cudaSuccess) return error;
  return ForTables(batch, false, RowTiles, [&]<int kMost>(const PartTable<kMost>& table) {
    const auto blocks = static_cast<unsigned>(table.tile_begin[table.count]);
    return Launch(lora_add_splits<kDirection, kMost>, blocks, kTileThreads, stream, table, params,
                  states);
  });
}

template <Direction kDirection>
cudaError_t LaunchOutput(const LoraBatch& batch, const __nv_bfloat16* states, __nv_bfloat16* out,
                         cudaStream_t stream) {
  constexpr bool kForward = kDirection == Direction::kForward;
  const OutputParams params = {states, out, kForward ? batch.out : batch.in, batch.in};
  const auto tiles = [&](const LoraKernelPart& part) {
    return RowTiles(part) * Blocks(kForward ? part.out_size : batch.in, kTile);
  };
  return WithWidth(IsWide(batch, {out}), [&]<int kWidth>(std::integral_constant<int, kWidth>) {
    return ForTables(batch, !kForward, tiles, [&]<int kMost>(const PartTable<kMost>& table) {
      const auto blocks = static_cast<unsigned>(table.tile_begin[table.count]);
      return Launch(lora_output<kDirection, kWidth, kMost>, blocks, kTileThreads, stream, table,
                    params);
    });
  });
}

template <Weight kWeight>
int64_t GradientSize(const LoraBatch& batch) {
  int64_t size = 0;
  for (int p = 0; p < batch.count; ++p) {
    const LoraKernelPart& part = batch.parts[p];
    size += part.rank * (kWeight == Weight::kA ? batch.in : int64_t{part.out_size});
  }
  return size;
}

template <Weight kWeight>
cudaError_t LaunchWeightGradient(const LoraBatch& batch, const __nv_bfloat16* rows,
                                 const __nv_bfloat16* states, float* workspace,
                                 cudaStream_t stream) {
  constexpr bool kIsA = kWeight == Weight::kA;
  const WeightParams params = {.rows = rows,
                               .stride = kIsA ? batch.in : batch.out,
                               .states = states,
                               .in = batch.in,
                               .split_size = GradientSize<kWeight>(batch),
                               .workspace = workspace};
  const int64_t most_rows = Most(batch, [](const LoraKernelPart& p) { return p.rows; });
  const auto splits = static_cast<unsigned>(Blocks(most_rows, kLoraDepthSplit));
  const auto column_tiles = [&](const LoraKernelPart& part) {
    return Blocks(kIsA ? batch.in : part.out_size, kTile);
  };
  const auto tiles = [&](const LoraKernelPart& part) {
    return column_tiles(part) * RankTiles(part);
  };
  // Where the parts of a table lie in a split: behind those of the tables before.
  const auto places_of = [&]<int kMost>(const PartTable<kMost>& table, int64_t* next) {
    GradientPlaces<kMost> places;
    for (int p = 0; p < table.count; ++p) {
      places.begin[p] = *next;
      *next += table.part[p].rank * (kIsA ? batch.in : int64_t{table.part[p].out_size});
    }
    return places;
  };
  int64_t next = 0;
  const cudaError_t error =
      WithWidth(IsWide(batch, {rows}), [&]<int kWidth>(std::integral_constant<int, kWidth>) {
        return ForTables(batch, false, tiles, [&]<int kMost>(const PartTable<kMost>& table) {
          const auto blocks = static_cast<unsigned>(table.tile_begin[table.count]);
          return Launch(lora_weight_splits<kWeight, kWidth, kMost>, dim3(blocks, splits),
                        kTileThreads, stream, table, places_of(table, &next), params);
        });
      });
  if (error != cudaSuccess) return error;
  next = 0;
  return ForTables(batch, false, column_tiles, [&]<int kMost>(const PartTable<kMost>& table) {
    const auto blocks = static_cast<unsigned>(table.tile_begin[table.count]);
    return Launch(lora_add_weight_splits<kWeight, kMost>, blocks, kTileThreads, stream, table,
                  places_of(table, &next), params);
  });
}

}  // namespace

int64_t LoraWorkspaceSize(const LoraBatch& batch) {
  const int64_t depth = Most(batch, [&](const LoraKernelPart& part) {
    return part.out_size > batch.in ? int64_t{part.out_size} : batch.in;
  });
  const int64_t states = Blocks(depth, kLoraDepthSplit) * batch.state_size;
  const int64_t rows = Most(batch, [](const LoraKernelPart& part) { return part.rows; });
  const int64_t of_a = GradientSize<Weight::kA>(batch);
  const int64_t of_b = GradientSize<Weight::kB>(batch);
  const int64_t weights = Blocks(rows, kLoraDepthSplit) * (of_a > of_b ? of_a : of_b);
  return states > weights ? states : weights;
}

cudaError_t LaunchLoraStates(const LoraBatch& batch, const __nv_bfloat16* x, float* workspace,
                             __nv_bfloat16* states, cudaStream_t stream) {
  return LaunchStates<Direction::kForward>(batch, x, workspace, states, stream);
}

cudaError_t LaunchLoraOutput(const LoraBatch& batch, const __nv_bfloat16* states, __nv_bfloat16* y,
                             cudaStream_t stream) {
  return LaunchOutput<Direction::kForward>(batch, states, y, stream);
}

cudaError_t LaunchLoraStateGradient(const LoraBatch& batch, const __nv_bfloat16* grad,
                                    float* workspace, __nv_bfloat16* grad_states,
                                    cudaStream_t stream) {
  return LaunchStates<Direction::kGradient>(batch, grad, workspace, grad_states, stream);
}

cudaError_t LaunchLoraInputGradient(const LoraBatch& batch, const __nv_bfloat16* grad_states,
                                    __nv_bfloat16* grad_x, cudaStream_t stream) {
  return LaunchOutput<Direction::kGradient>(batch, grad_states, grad_x, stream);
}

cudaError_t LaunchLoraWeightGradients(const LoraBatch& batch, const __nv_bfloat16* x,
                                      const __nv_bfloat16* grad, const __nv_bfloat16* states,
                                      const __nv_bfloat16* grad_states, float* workspace,
                                      cudaStream_t stream) {
  const cudaError_t error =
      LaunchWeightGradient<Weight::kA>(batch, x, grad_states, workspace, stream);
  if (error != cudaSuccess) return error;
  return LaunchWeightGradient<Weight::kB>(batch, grad, states, workspace, stream);
}

}  // namespace pricer::cuda

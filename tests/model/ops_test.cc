// Every op against a plain definition in ATen, forward and backward, in fp32 and bf16.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "model/ops/attention.h"
#include "model/ops/dropout.h"
#include "model/ops/lora_linear.h"
#include "model/ops/rms_norm.h"
#include "model/ops/rotary.h"
#include "model/ops/swiglu.h"
#include "model/philox.h"

namespace pricer {
namespace {

struct OpCase {
  at::ScalarType dtype;
  double tolerance;
};

struct OpTest : ::testing::TestWithParam<OpCase> {
  void SetUp() override { at::manual_seed(7); }

  at::Tensor Random(at::IntArrayRef shape, bool gradient = true) {
    return at::randn(shape).to(GetParam().dtype).set_requires_grad(gradient);
  }

  void ExpectClose(const at::Tensor& ours, const at::Tensor& plain) {
    ASSERT_EQ(ours.sizes(), plain.sizes());
    // Relative to the largest value, since rounding is relative.
    const double scale = std::max(1.0, plain.abs().max().item<double>());
    EXPECT_LE((ours.to(at::kDouble) - plain.to(at::kDouble)).abs().max().item<double>(),
              GetParam().tolerance * scale);
  }

  // Compares values and the gradients of sum(output * random) for every input.
  void Compare(const std::function<at::Tensor(const std::vector<at::Tensor>&)>& ours,
               const std::function<at::Tensor(const std::vector<at::Tensor>&)>& plain,
               const std::vector<at::Tensor>& inputs) {
    std::vector<at::Tensor> plain_inputs;
    for (const at::Tensor& input : inputs) {
      plain_inputs.push_back(
          input.detach().to(at::kFloat).clone().set_requires_grad(input.requires_grad()));
    }
    const at::Tensor our_output = ours(inputs);
    const at::Tensor plain_output = plain(plain_inputs);
    ExpectClose(our_output, plain_output);
    const at::Tensor direction = at::randn(plain_output.sizes());
    (our_output.to(at::kFloat) * direction).sum().backward();
    (plain_output * direction).sum().backward();
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].requires_grad()) ExpectClose(inputs[i].grad(), plain_inputs[i].grad());
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Dtypes, OpTest,
                         ::testing::Values(OpCase{at::kFloat, 1e-5}, OpCase{at::kBFloat16, 4e-2}),
                         [](const auto& info) {
                           return info.param.dtype == at::kFloat ? "Fp32" : "Bf16";
                         });

at::Tensor PlainRmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  return weight * x * at::rsqrt(x.pow(2).mean(-1, true) + epsilon);
}

TEST_P(OpTest, AddRmsNormEqualsItsDefinition) {
  for (int64_t hidden : {1, 31, 64, 100}) {
    const at::Tensor weight = Random({hidden}, false);
    const at::Tensor weight_f32 = weight.to(at::kFloat);
    // Both outputs flow on, as in a decoder.
    Compare(
        [&](const auto& x) {
          const AddRmsNormOutput out = AddRmsNorm(x[0], x[1], weight, 1e-5);
          return at::cat({out.sum, out.normed}, 1);
        },
        [&](const auto& x) {
          const at::Tensor sum = x[0] + x[1];
          return at::cat({sum, PlainRmsNorm(sum, weight_f32, 1e-5)}, 1);
        },
        {Random({37, hidden}), Random({37, hidden})});
  }
}

TEST_P(OpTest, RmsNormWithoutAdditionPassesTheStreamOn) {
  const at::Tensor weight = Random({48}, false);
  Compare(
      [&](const auto& x) {
        const AddRmsNormOutput out = AddRmsNorm(x[0], at::Tensor(), weight, 1e-5);
        return at::cat({out.sum, out.normed}, 1);
      },
      [&](const auto& x) {
        return at::cat({x[0], PlainRmsNorm(x[0], weight.to(at::kFloat), 1e-5)}, 1);
      },
      {Random({5, 48})});
}

TEST_P(OpTest, SwigluEqualsItsDefinition) {
  for (int64_t ffn : {1, 33, 96}) {
    Compare(
        [](const auto& x) { return Swiglu(x[0]); },
        [&](const auto& x) { return at::silu(x[0].narrow(1, 0, ffn)) * x[0].narrow(1, ffn, ffn); },
        {Random({19, 2 * ffn})});
  }
}

TEST(SwigluTest, SaturatesWithoutOverflow) {
  const at::Tensor gate = at::tensor({-1e4f, -100.0f, -88.0f, 0.0f, 88.0f, 100.0f, 1e4f});
  const at::Tensor in = at::cat({gate, at::ones({7})}).unsqueeze(0);
  const at::Tensor out = Swiglu(in)[0];
  const at::Tensor plain = at::silu(gate);
  EXPECT_TRUE(at::allclose(out, plain, 1e-5, 1e-30)) << out << plain;
}

RotaryTable MakeTable(int64_t context, int64_t half) {
  const at::Tensor angles = at::outer(at::arange(context, at::kFloat),
                                      at::pow(100.0, -at::arange(half, at::kFloat) / half));
  return {.cos = at::cos(angles), .sin = at::sin(angles)};
}

// Hugging Face's rotate_half form on [tokens, heads, D].
at::Tensor PlainRotate(const at::Tensor& x, const at::Tensor& positions, const RotaryTable& table) {
  const at::Tensor cos = at::cat({table.cos, table.cos}, 1).index_select(0, positions).unsqueeze(1);
  const at::Tensor sin = at::cat({table.sin, table.sin}, 1).index_select(0, positions).unsqueeze(1);
  const int64_t half = x.size(2) / 2;
  const at::Tensor rotated = at::cat({-x.narrow(2, half, half), x.narrow(2, 0, half)}, 2);
  return x * cos + rotated * sin;
}

struct PlainProblem {
  AttentionShape shape;
  PackedLayout layout;
  RotaryTable table;
};

PlainProblem MakeProblem(std::vector<int64_t> lengths = {1, 5, 33, 2}, int64_t head_dim = 8) {
  PlainProblem problem{{.heads = 6, .kv_heads = 2, .head_dim = head_dim},
                       {},
                       MakeTable(*std::max_element(lengths.begin(), lengths.end()), head_dim / 2)};
  std::vector<at::Tensor> positions;
  problem.layout.offsets = {0};
  problem.layout.answer_offsets = {0, 1, 4, 5, 7};
  for (int64_t length : lengths) {
    problem.layout.offsets.push_back(problem.layout.offsets.back() + length);
    positions.push_back(at::arange(length));
  }
  problem.layout.positions = at::cat(positions);
  std::vector<at::Tensor> answers;
  const std::vector<int64_t>& offsets = problem.layout.answer_offsets;
  for (size_t b = 0; b < lengths.size() && b + 1 < offsets.size(); ++b) {
    answers.push_back(at::arange(lengths[b] - (offsets[b + 1] - offsets[b]), lengths[b]));
  }
  problem.layout.answer_positions = at::cat(answers);
  return problem;
}

// Attention of one sequence by its formula, for queries from `first_query` on.
at::Tensor PlainSequence(const PlainProblem& problem, at::Tensor q, at::Tensor k,
                         const at::Tensor& v, int64_t first_query) {
  const AttentionShape& shape = problem.shape;
  const int64_t tokens = k.size(0);
  const auto heads = [&](const at::Tensor& x, int64_t count) {
    return x.reshape({x.size(0), count, shape.head_dim});
  };
  const at::Tensor positions = at::arange(tokens);
  q = PlainRotate(heads(q, shape.heads), positions.narrow(0, first_query, tokens - first_query),
                  problem.table);
  k = PlainRotate(heads(k, shape.kv_heads), positions, problem.table);
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor keys = k.repeat_interleave(group, 1).permute({1, 2, 0});
  const at::Tensor values = heads(v, shape.kv_heads).repeat_interleave(group, 1).transpose(0, 1);
  at::Tensor scores = at::matmul(q.transpose(0, 1), keys) / std::sqrt(double(shape.head_dim));
  const at::Tensor future =
      at::ones({tokens, tokens}, at::kBool).triu(1).narrow(0, first_query, tokens - first_query);
  scores = scores.masked_fill(future, -1e30);
  return at::matmul(at::softmax(scores, -1), values).transpose(0, 1).flatten(1);
}

// Compares PackedAttention and its gradients.
void ExpectPackedAttention(const PlainProblem& problem, OpTest& test) {
  const int64_t q = problem.shape.heads * problem.shape.head_dim;
  const int64_t k = problem.shape.kv_heads * problem.shape.head_dim;
  test.Compare(
      [&](const auto& x) {
        return PackedAttention(x[0].clone(), problem.layout, problem.shape, problem.table);
      },
      [&](const auto& x) {
        std::vector<at::Tensor> out;
        for (size_t b = 0; b + 1 < problem.layout.offsets.size(); ++b) {
          const int64_t begin = problem.layout.offsets[b];
          const at::Tensor rows = x[0].narrow(0, begin, problem.layout.offsets[b + 1] - begin);
          out.push_back(PlainSequence(problem, rows.narrow(1, 0, q), rows.narrow(1, q, k),
                                      rows.narrow(1, q + k, k), 0));
        }
        return at::cat(out);
      },
      {test.Random({problem.layout.offsets.back(), q + 2 * k})});
}

TEST_P(OpTest, PackedAttentionEqualsItsDefinition) { ExpectPackedAttention(MakeProblem(), *this); }

// Heads of 32 take the products in bf16; the longest sequence is several blocks of queries.
TEST_P(OpTest, PackedAttentionOfLongSequencesEqualsItsDefinition) {
  ExpectPackedAttention(MakeProblem({300, 1, 64, 33}, 32), *this);
}

// The same of AnswerAttention.
void ExpectAnswerAttention(const PlainProblem& problem, OpTest& test) {
  const int64_t q = problem.shape.heads * problem.shape.head_dim;
  const int64_t k = problem.shape.kv_heads * problem.shape.head_dim;
  const std::vector<int64_t>& answers = problem.layout.answer_offsets;
  test.Compare(
      [&](const auto& x) {
        return AnswerAttention(x[0].clone(), x[1].clone(), problem.layout, problem.shape,
                               problem.table);
      },
      [&](const auto& x) {
        std::vector<at::Tensor> out;
        for (size_t b = 0; b + 1 < answers.size(); ++b) {
          const int64_t begin = problem.layout.offsets[b];
          const int64_t tokens = problem.layout.offsets[b + 1] - begin;
          const at::Tensor rows = x[1].narrow(0, begin, tokens);
          const int64_t queries = answers[b + 1] - answers[b];
          out.push_back(PlainSequence(problem, x[0].narrow(0, answers[b], queries),
                                      rows.narrow(1, 0, k), rows.narrow(1, k, k),
                                      tokens - queries));
        }
        return at::cat(out);
      },
      {test.Random({answers.back(), q}), test.Random({problem.layout.offsets.back(), 2 * k})});
}

TEST_P(OpTest, AnswerAttentionEqualsItsDefinition) { ExpectAnswerAttention(MakeProblem(), *this); }

TEST_P(OpTest, AnswerAttentionOfLongSequencesEqualsItsDefinition) {
  ExpectAnswerAttention(MakeProblem({1, 300, 64, 33}, 32), *this);
}

// Linears side by side, of the given numbers of outputs.
FrozenLinears Linears(const at::Tensor& weight, const std::vector<int64_t>& outs,
                      const at::Tensor& bias = at::Tensor()) {
  FrozenLinears linears;
  int64_t begin = 0;
  for (const int64_t out : outs) {
    linears.push_back(std::make_shared<FrozenLinear>(
        weight.narrow(0, begin, out), bias.defined() ? bias.narrow(0, begin, out) : at::Tensor()));
    begin += out;
  }
  return linears;
}

// Two linears of 24 and 40 outputs; rows 3 to 9 and 9 to 60 have adapters of other ranks, the
// first three none.
std::vector<LoraSegment> Segments(const std::vector<at::Tensor>& x) {
  return {{3, 9, {{0, x[1], x[2], 0.5, {}}, {1, x[3], x[4], 2.0, {}}}},
          {9, 60, {{1, x[5], x[6], 1.5, {}}}}};
}

TEST_P(OpTest, LoraLinearEqualsItsDefinition) {
  const at::Tensor weight = Random({64, 20}, false);
  const at::Tensor bias = Random({64}, false);
  const auto random_f32 = [&](at::IntArrayRef shape) {
    return at::randn(shape).mul_(0.3).set_requires_grad(true);
  };
  const std::vector<at::Tensor> inputs = {
      Random({60, 20}),    random_f32({4, 20}), random_f32({24, 4}), random_f32({2, 20}),
      random_f32({40, 2}), random_f32({8, 20}), random_f32({40, 8})};
  const FrozenLinears linears = Linears(weight, {24, 40}, bias);
  Compare(
      [&](const auto& x) { return LoraLinear(x[0], linears, Segments(x)); },
      [&](const auto& x) {
        at::Tensor y = at::linear(x[0], weight.to(at::kFloat), bias.to(at::kFloat));
        for (const LoraSegment& segment : Segments(x)) {
          const at::Tensor rows = x[0].narrow(0, segment.begin, segment.end - segment.begin);
          for (const LoraPart& part : segment.parts) {
            const at::Tensor delta =
                part.scale * at::matmul(at::matmul(rows, part.a.t()), part.b.t());
            const int64_t before = part.linear == 0 ? 0 : 24;
            const int64_t behind = 64 - before - part.b.size(0);
            y = y + at::constant_pad_nd(delta, {before, behind, segment.begin, 60 - segment.end});
          }
        }
        return y;
      },
      inputs);
}

// Several blocks of rows and panels of columns, none of them full, and sums of odd length.
TEST_P(OpTest, LoraLinearOfOddShapesEqualsItsDefinition) {
  const int64_t rows = 333;
  const int64_t in = 71;
  const at::Tensor weight = Random({137, in}, false);
  const FrozenLinears linears = Linears(weight, {130, 7});
  const auto random_f32 = [&](at::IntArrayRef shape) {
    return at::randn(shape).mul_(0.1).set_requires_grad(true);
  };
  const auto parts = [](const std::vector<at::Tensor>& x) {
    return std::vector<LoraPart>{{0, x[1], x[2], 0.5, {}}, {1, x[3], x[4], 2.0, {}}};
  };
  Compare(
      [&](const auto& x) {
        return LoraLinear(x[0], linears, {{1, rows, parts(x)}});
      },
      [&](const auto& x) {
        const at::Tensor adapted = x[0].narrow(0, 1, rows - 1);
        std::vector<at::Tensor> deltas;
        for (const LoraPart& part : parts(x)) {
          deltas.push_back(part.scale * at::matmul(at::matmul(adapted, part.a.t()), part.b.t()));
        }
        return at::linear(x[0], weight.to(at::kFloat)) +
               at::constant_pad_nd(at::cat(deltas, 1), {0, 0, 1, 0});
      },
      {Random({rows, in}), random_f32({17, in}), random_f32({130, 17}), random_f32({1, in}),
       random_f32({7, 1})});
}

// The mask by its definition, one element at a time.
at::Tensor PlainMask(const Dropout& dropout, const DropoutRows& rows, int64_t n) {
  at::Tensor mask = at::zeros({rows.row.size(0), n}, at::kFloat);
  for (int64_t t = 0; t < mask.size(0); ++t) {
    for (int64_t c = 0; c < n; ++c) {
      const PhiloxCounter random = Philox4x32(
          {static_cast<uint32_t>(dropout.step), static_cast<uint32_t>(rows.row[t].item<int64_t>()),
           static_cast<uint32_t>(rows.position[t].item<int64_t>()), static_cast<uint32_t>(c / 4)},
          {static_cast<uint32_t>(dropout.seed), static_cast<uint32_t>(dropout.module)});
      if (UniformFloat(random[c % 4]) >= dropout.probability) {
        mask[t][c] = 1.0 / (1.0 - dropout.probability);
      }
    }
  }
  return mask;
}

TEST_P(OpTest, LoraLinearWithDropoutEqualsItsDefinition) {
  const at::Tensor weight = Random({64, 70}, false);
  const FrozenLinears linears = Linears(weight, {24, 40});
  const DropoutRows rows{at::arange(40).add_(1000), at::arange(40).mul_(3)};
  const Dropout first{.probability = 0.25, .seed = 9, .module = 3, .step = 5};
  const Dropout second{.probability = 0.25, .seed = 9, .module = 4, .step = 5};
  const auto random_f32 = [&](at::IntArrayRef shape) {
    return at::randn(shape).mul_(0.3).set_requires_grad(true);
  };
  const auto ours = [&](const std::vector<at::Tensor>& x) {
    const LoraSegment segment{2, 38, {{0, x[1], x[2], 0.5, first}, {1, x[3], x[4], 2.0, second}}};
    return LoraLinear(x[0], linears, {segment}, rows);
  };
  const auto plain = [&](const std::vector<at::Tensor>& x) {
    const auto delta = [&](const Dropout& dropout, const at::Tensor& a, const at::Tensor& b,
                           double scale) {
      const at::Tensor dropped = (x[0] * PlainMask(dropout, rows, 70)).narrow(0, 2, 36);
      return scale * at::matmul(at::matmul(dropped, a.t()), b.t());
    };
    const at::Tensor both =
        at::cat({delta(first, x[1], x[2], 0.5), delta(second, x[3], x[4], 2.0)}, 1);
    return at::linear(x[0], weight.to(at::kFloat)) + at::constant_pad_nd(both, {0, 0, 2, 2});
  };
  Compare(ours, plain,
          {Random({40, 70}), random_f32({4, 70}), random_f32({24, 4}), random_f32({1, 70}),
           random_f32({40, 1})});
}

TEST(LoraLinearTest, ARowIsTheSameBitsWhateverTheOtherRows) {
  at::manual_seed(3);
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({200, 96});
  const at::Tensor weight = at::randn({48, 96});
  const LoraPart part{0, at::randn({8, 96}), at::randn({48, 8}), 0.7, {}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const FrozenLinears linears = Linears(weight.to(dtype), {48});
    const at::Tensor typed = x.to(dtype);
    const at::Tensor all = LoraLinear(typed, linears, {{0, 200, {part}}});
    for (int64_t rows : {1, 2, 3, 7, 31, 32, 33, 150}) {
      for (int64_t begin : {0, 13, 50}) {
        const at::Tensor some =
            LoraLinear(typed.narrow(0, begin, rows), linears, {{0, rows, {part}}});
        EXPECT_TRUE(at::equal(some, all.narrow(0, begin, rows)))
            << dtype << ", " << rows << " rows from " << begin;
      }
    }
  }
}

TEST(RotaryTest, RotatingBackUndoesIt) {
  at::manual_seed(3);
  const RotaryTable table = MakeTable(16, 5);
  const at::Tensor x = at::randn({16, 30});
  const at::Tensor rotated = x.clone();
  RotateInPlace(rotated, at::arange(16), table, 2);
  EXPECT_FALSE(at::allclose(rotated, x));
  EXPECT_TRUE(at::equal(rotated.narrow(1, 20, 10), x.narrow(1, 20, 10)));
  RotateInPlace(rotated, at::arange(16), table, 2, /*inverse=*/true);
  EXPECT_TRUE(at::allclose(rotated, x, 1e-5, 1e-6));
}

}  // namespace
}  // namespace pricer

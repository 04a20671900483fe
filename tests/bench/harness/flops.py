"""How many floating-point operations the work takes. A multiply-add is two; embeddings, norms and activations are none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shapes:
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int

    @staticmethod
    def of(config):
        heads = config["num_attention_heads"]
        return Shapes(
            hidden=config["hidden_size"],
            ffn=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            layers=config["num_hidden_layers"],
        )

    def projections(self):
        """(out, in) of the linears of one layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q": (q, self.hidden), "k": (kv, self.hidden), "v": (kv, self.hidden), "o": (self.hidden, q),
            "gate": (self.ffn, self.hidden), "up": (self.ffn, self.hidden), "down": (self.hidden, self.ffn),
        }  # fmt: skip

    def parameters(self, names=None):
        """Of the frozen linears of one layer."""
        return sum(out * into for name, (out, into) in self.projections().items() if names is None or name in names)

    def lora_parameters(self, rank, names=None):
        """Of the low-rank matrices of one layer."""
        return sum(
            rank * (out + into) for name, (out, into) in self.projections().items() if names is None or name in names
        )

    def linear_parameters(self):
        return self.layers * self.parameters()


def attention_flops(shapes, lengths):
    """Causal scores and sums of one layer: position i looks at i + 1 positions."""
    return sum(4 * shapes.heads * shapes.head_dim * n * (n + 1) / 2 for n in lengths)


def last_token_attention_flops(shapes, lengths):
    return sum(4 * shapes.heads * shapes.head_dim * n for n in lengths)


def forward_flops(shapes, lengths, rank, bins):
    """`base`: 2 for each linear parameter and token. `computed`: that without what the last layer leaves out (all but
    keys and values of all but the answer's token), and with LoRA, attention and head."""
    tokens, rows = sum(lengths), len(lengths)
    kv, rest = ("k", "v"), ("q", "o", "gate", "up", "down")

    def both(names=None):
        return shapes.parameters(names) + shapes.lora_parameters(rank, names)

    full_layers = 2 * (shapes.layers - 1) * both() * tokens
    last_layer = 2 * (both(kv) * tokens + both(rest) * rows)
    attention = (shapes.layers - 1) * attention_flops(shapes, lengths) + last_token_attention_flops(shapes, lengths)
    return {
        "base": 2 * shapes.linear_parameters() * tokens,
        "computed": full_layers + last_layer + attention + 2 * shapes.hidden * bins * rows,
    }


def step_flops(shapes, lengths, rank, bins):
    """`base`: 2 forward and 2 backward for each linear parameter and token (frozen weights have no gradient), attention
    with twice its forward for its backward, LoRA with three products for each of its forward ones, head. `computed`: that
    without what last layer and first layer leave out (nothing before the first linears wants a gradient)."""
    tokens, rows = sum(lengths), len(lengths)
    kv, rest = ("k", "v"), ("q", "o", "gate", "up", "down")

    def both(names=None):
        return 4 * shapes.parameters(names) + 6 * shapes.lora_parameters(rank, names)

    head = 6 * shapes.hidden * bins * rows
    attention = 3 * attention_flops(shapes, lengths)
    last_attention = 3 * last_token_attention_flops(shapes, lengths)
    first_inputs = 2 * (shapes.parameters(("q", "k", "v")) + 3 * rank * shapes.hidden) * tokens
    return {
        "base": shapes.layers * (both() * tokens + attention) + head,
        "computed": (shapes.layers - 1) * (both() * tokens + attention)
        + both(kv) * tokens + both(rest) * rows + last_attention + head - first_inputs,
    }  # fmt: skip

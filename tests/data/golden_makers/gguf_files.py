"""Tiny GGUF files as llama.cpp's converter lays them out, and what transformers reads from them."""

import json

import gguf
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoModelForCausalLM

from golden_makers import common, models

NORMAL, CONTROL = 1, 3
LINEARS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
EVERY_TYPE = [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1]

# types: of the linears, in turn.
FILES = {
    "mixed": {
        "tokenizer": "llama3",
        "pre": "llama-bpe",
        "add_bos": True,
        "shape": models.shape(64, 4, 2, 96),
        "types": EVERY_TYPE,
        "embedding": Type.Q8_0,
        "head": Type.F16,
    },
    "smollm": {
        "tokenizer": "smollm",
        "pre": "smollm",
        "add_bos": False,
        "shape": models.shape(32, 2, 1, 96, tie_word_embeddings=True, rope_theta=100000.0),
        "types": [Type.Q4_1],
        "embedding": Type.Q8_0,
        "head": None,
    },
}
# Each is whole but for the one thing that is to be refused.
REFUSED = {
    "q6_k": {"words": ["Q6_K"]},
    "architecture": {"words": ["mamba"], "architecture": "mamba"},
    "pre": {"words": ["gigachat"], "pre": "gigachat"},
    "truncated": {"words": ["truncated.gguf"]},
}
SMALL = {
    "tokenizer": "smollm",
    "pre": "smollm",
    "add_bos": False,
    "shape": models.shape(32, 2, 2, 256, tie_word_embeddings=True, num_hidden_layers=1),
    "types": [Type.Q4_0],
    "embedding": Type.Q4_0,
    "head": None,
}


def read_tokenizer(output, name):
    folder = output / "tokenizers" / name
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return tokenizer, json.loads((folder / "tokenizer_config.json").read_text())


def vocabulary(tokenizer, limit):
    ids = {id: piece for piece, id in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    ids.update(special)
    tokens = [ids[i] for i in range(len(ids))][:limit]
    types = [CONTROL if i in special else NORMAL for i in range(len(tokens))]
    known = set(tokens)
    merges = [pair for pair in tokenizer["model"]["merges"] if "".join(pair) in known]
    return tokens, types, [" ".join(pair) for pair in merges]


def add_tokenizer(writer, output, options, limit):
    tokenizer, config = read_tokenizer(output, options["tokenizer"])
    tokens, types, merges = vocabulary(tokenizer, limit)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(options["pre"])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(config["bos_token"]))
    writer.add_eos_token_id(tokens.index(config["eos_token"]))
    writer.add_add_bos_token(options["add_bos"])
    return len(tokens)


def add_architecture(writer, config):
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def permuted(weight, heads):
    """Rows of each head from the half-split rotary layout to llama.cpp's interleaved one."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def tensor_list(model, options):
    """(GGUF name, fp32 values, type)."""
    config, state = model.config, {name: value.numpy() for name, value in model.state_dict().items()}
    made = [("token_embd.weight", state["model.embed_tokens.weight"], options["embedding"])]
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for name, path in NORMS.items():
            made.append((f"blk.{layer}.{name}.weight", state[f"model.layers.{layer}.{path}.weight"], Type.F32))
        for i, (name, path) in enumerate(LINEARS.items()):
            values = state[f"model.layers.{layer}.{path}.weight"]
            values = permuted(values, heads[name]) if name in heads else values
            kind = options["types"][(i + layer * len(LINEARS)) % len(options["types"])]
            made.append((f"blk.{layer}.{name}.weight", values, kind))
    made.append(("output_norm.weight", state["model.norm.weight"], Type.F32))
    if options["head"] is not None:
        made.append(("output.weight", state["lm_head.weight"], options["head"]))
    return made


def add_tensors(writer, tensors):
    for name, values, kind in tensors:
        data = values if kind == Type.F32 else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)


def random_model(name, options, size):
    shape = dict(options["shape"])
    if "rope_theta" in shape:
        shape["rope_parameters"] = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
    return models.random_model("gguf/" + name, {**shape, "vocab_size": size})


def zeros_q6_k(tensors):
    """One tensor as Q6_K, 210 bytes for 256 values; its content does not matter."""
    name, values, _ = tensors[-2]
    assert name == "blk.0.ffn_down.weight" and values.shape[1] == 256
    data = torch.zeros(values.shape[0], 210, dtype=torch.uint8).numpy()
    return [tensor for tensor in tensors if tensor[0] != name], (name, data)


def write_file(output, path, name, options, limit=None, architecture="llama"):
    writer = gguf.GGUFWriter(str(path), architecture)
    size = add_tokenizer(writer, output, options, limit)
    model = random_model(name, options, size)
    add_architecture(writer, model.config)
    tensors = tensor_list(model, options)
    types = {tensor[0]: tensor[2].name for tensor in tensors}
    if name == "refused/q6_k":
        tensors, (q6_name, q6_data) = zeros_q6_k(tensors)
        writer.add_tensor(q6_name, q6_data, raw_dtype=Type.Q6_K)
    add_tensors(writer, tensors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return size, types


def check_against_gguf(path, state, config):
    """transformers' tensors are those of the gguf package, bit for bit."""
    hf_names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for layer in range(config.num_hidden_layers):
        for name, module in {**LINEARS, **NORMS}.items():
            hf_names[f"blk.{layer}.{name}"] = f"model.layers.{layer}.{module}"
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for tensor in gguf.GGUFReader(path).tensors:
        name = tensor.name.removesuffix(".weight")
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        expected = state[hf_names[name] + ".weight"].numpy()
        part = name.split(".")[-1]
        if part in heads:
            expected = permuted(expected, heads[part])
        assert torch.equal(values.reshape(expected.shape), torch.from_numpy(expected.copy())), tensor.name


def make_file(output, root, name, options):
    path = root / f"{name}.gguf"
    size, types = write_file(output, path, name, options)
    model = AutoModelForCausalLM.from_pretrained(
        root, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    state = dict(model.state_dict())
    if options["head"] is None:
        del state["lm_head.weight"]
    check_against_gguf(path, state, model.config)
    all_ids = common.sequences("gguf/" + name, size)
    last_logits = common.golden_logits(model, all_ids)["last_logits"]
    values = {"sequences": all_ids, "tokenizer": "tokenizers/" + options["tokenizer"], "types": types}
    common.write_json(root / f"{name}.golden.json", values)
    common.write_tensors(root / f"{name}.golden.safetensors", {**state, "last_logits": last_logits})


def make_refused(output, root):
    for name, case in REFUSED.items():
        options = {**SMALL, "pre": case.get("pre", SMALL["pre"])}
        path = root / f"{name}.gguf"
        write_file(output, path, "refused/" + name, options, limit=300, architecture=case.get("architecture", "llama"))
        if name == "truncated":
            path.write_bytes(path.read_bytes()[:-1000])
    common.write_json(root / "refused.json", {name: case["words"] for name, case in REFUSED.items()})


def make(output):
    root = common.fresh_folder(output / "gguf")
    for name, options in FILES.items():
        make_file(output, root, name, options)
    make_refused(output, common.fresh_folder(root / "refused"))

"""Tiny random Llama checkpoints as transformers writes them, with logits."""

import json

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from golden_makers import common

ROPE_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
COMMON = {
    "vocab_size": 256,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "attn_implementation": "eager",
}


def shape(hidden, heads, kv_heads, ffn, **others):
    return {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        **others,
    }


VARIANTS = {
    "gqa": shape(64, 4, 2, 128),
    "tied": shape(32, 4, 2, 64, tie_word_embeddings=True),
    "mqa": shape(48, 6, 1, 80, vocab_size=320, initializer_range=0.3),
    "llama3-rope": shape(32, 2, 1, 64, rope_parameters=ROPE_LLAMA3, eos_token_id=[2, 3]),
    "odd": shape(36, 3, 3, 51, vocab_size=259, head_dim=10, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-6),
    "sharded": shape(32, 4, 4, 64, num_hidden_layers=3),
    "bf16": shape(32, 4, 2, 96, rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
}


def random_model(name, options):
    """Norms and biases random too: transformers starts them at one and zero, where mistakes do not show."""
    common.seed(name)
    model = LlamaForCausalLM(LlamaConfig(**{**COMMON, **options})).eval()
    random = common.generator(name + "/vectors")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return model


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", **options).eval()


def greedy(model, all_ids):
    def continuation(ids):
        prompt = torch.tensor([ids])
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=8, max_new_tokens=8
        )
        return out[0, len(ids):].tolist()

    return [continuation(ids) for ids in all_ids]


def write_golden(folder, name):
    """From the files as they lie on disk, loaded by transformers."""
    model = load(folder, dtype=torch.float32)
    all_ids = common.sequences("models/" + name, model.config.vocab_size)
    values = {"sequences": all_ids}
    tensors = common.golden_logits(model, all_ids)
    if name == "gqa":
        values["greedy"] = greedy(model, all_ids)
        with torch.no_grad():
            for i, ids in enumerate(all_ids):
                tensors[f"all_logits.{i}"] = model(torch.tensor([ids])).logits[0]
    if name == "bf16":
        low = load(folder, dtype=torch.bfloat16)
        tensors["last_logits_bf16"] = common.golden_logits(low, all_ids)["last_logits"]
    common.write_json(folder / "golden.json", values)
    common.write_tensors(folder / "golden.safetensors", tensors)


def make_variant(root, name, options):
    folder = common.fresh_folder(root / name)
    model = random_model("models/" + name, options)
    if name == "bf16":
        model = model.to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="80KB" if name == "sharded" else "1GB")
    write_golden(folder, name)


def version_4_config(config, type_key):
    """config.json as transformers 4 wrote it."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    scaling = dict(config["rope_parameters"])
    old["rope_theta"] = scaling.pop("rope_theta")
    old["rope_scaling"] = {(type_key if key == "rope_type" else key): value for key, value in scaling.items()}
    old["torch_dtype"] = config["dtype"]
    old["transformers_version"] = "4.43.1"
    return json.dumps(dict(sorted(old.items())), indent=2) + "\n"


def make_version_4(root):
    """The weights of llama3-rope under both spellings of the old rope fields; transformers must read them alike."""
    source, folder = root / "llama3-rope", common.fresh_folder(root / "rope-v4")
    for name in ("model.safetensors", "generation_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    config = json.loads((source / "config.json").read_text())
    logits = []
    for type_key in ("type", "rope_type"):
        (folder / "config.json").write_text(version_4_config(config, type_key))
        model = load(folder, dtype=torch.float32)
        logits.append(common.golden_logits(model, common.sequences("models/llama3-rope", 256))["last_logits"])
    expected = load(source, dtype=torch.float32)
    logits.append(common.golden_logits(expected, common.sequences("models/llama3-rope", 256))["last_logits"])
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
    (folder / "config.old-type.json").write_text(version_4_config(config, "type"))
    for name in ("golden.json", "golden.safetensors"):
        (folder / name).write_bytes((source / name).read_bytes())


def make(output):
    root = common.fresh_folder(output / "models")
    for name, options in VARIANTS.items():
        make_variant(root, name, options)
    make_version_4(root)

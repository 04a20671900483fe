"""PEFT adapters over the tiny models: good ones with logits, and ones with options that are to be refused."""

import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForSequenceClassification

from golden_makers import common, models, nf4

QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
REGEX = r"model\.layers\.\d+\.(self_attn\.(q|o)_proj|mlp\.(gate|down)_proj)"

# name: (base, number of bins or 0 for CAUSAL_LM, options)
ADAPTERS = {
    "causal-qv": ("models/gqa", 0, {"r": 4, "lora_alpha": 8, "target_modules": None}),
    "causal-qkvo": ("models/gqa", 0, {"r": 8, "lora_alpha": 5, "target_modules": QKVO}),
    "causal-all-linear": ("models/gqa", 0, {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"}),
    "causal-regex": ("models/gqa", 0, {"r": 3, "lora_alpha": 6, "target_modules": REGEX}),
    "causal-down": ("models/gqa", 0, {"r": 8, "lora_alpha": 8, "target_modules": ["down_proj"]}),
    "causal-rslora": ("models/gqa", 0, {"r": 6, "lora_alpha": 7, "target_modules": QKVO, "use_rslora": True}),
    "causal-patterns": (
        "models/gqa",
        0,
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": "all-linear",
            "rank_pattern": {"q_proj": 2, r"model.layers.1.mlp.(gate|up)_proj": 6, "layers.0.mlp.down_proj": 1},
            "alpha_pattern": {"v_proj": 3, r"^model\.layers\.1\..*o_proj": 20, "layers.0.self_attn.q_proj": 5},
        },
    ),
    "causal-layers": (
        "models/gqa",
        0,
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]},
    ),
    "causal-exclude": (
        "models/gqa",
        0,
        {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "exclude_modules": ["k_proj", "layers.0.mlp.up_proj"]},
    ),
    "causal-bf16": ("models/gqa", 0, {"r": 4, "lora_alpha": 8, "target_modules": QKVO}),
    "causal-tied": ("models/tied", 0, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    "causal-odd": ("models/odd", 0, {"r": 5, "lora_alpha": 9, "target_modules": "all-linear"}),
    "seqcls-all-linear": ("models/gqa", 128, {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
    "seqcls-qv": ("models/gqa", 16, {"r": 4, "lora_alpha": 8, "target_modules": None}),
    "seqcls-rslora": (
        "models/gqa",
        128,
        {
            "r": 8,
            "lora_alpha": 4,
            "target_modules": QKVO,
            "use_rslora": True,
            "rank_pattern": {"k_proj": 2},
            "alpha_pattern": {"o_proj": 11},
        },
    ),
    "seqcls-nf4": ("nf4/checkpoint", 128, {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
}

# name: (base, configuration, words of which the reason should hold at least one)
REFUSED = {
    "dora": ("models/gqa", LoraConfig(r=4, target_modules=["q_proj"], use_dora=True), ["use_dora"]),
    "modules-to-save": (
        "models/gqa",
        LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        ["modules_to_save", "lm_head"],
    ),
    "bias-all": ("models/odd", LoraConfig(r=4, target_modules=["q_proj"], bias="all"), ["bias"]),
    "lora-bias": ("models/gqa", LoraConfig(r=4, target_modules=["q_proj"], lora_bias=True), ["lora_bias"]),
    "trainable-tokens": (
        "models/gqa",
        LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[5, 6]),
        ["trainable_token_indices"],
    ),
    "ia3": (
        "models/gqa",
        IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
        ["peft_type", "IA3"],
    ),
    "embedding": ("models/gqa", LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"]), ["embed_tokens"]),
    "lm-head": ("models/gqa", LoraConfig(r=4, target_modules=["q_proj", "lm_head"]), ["lm_head"]),
    "two-patterns": (
        "models/gqa",
        LoraConfig(r=4, target_modules=["q_proj"], rank_pattern={"q_proj": 2, "layers.0.self_attn.q_proj": 6}),
        ["rank_pattern"],
    ),
}


def load_classifier(bins):
    def load(path, **options):
        return AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=bins, attn_implementation="eager", **options
        ).eval()

    return load


def load_base(output, base, bins):
    """In fp32; the class head of a base is random and replaced by the adapter's."""
    load = load_classifier(bins) if bins else models.load
    common.seed(base)
    if base.startswith("nf4/"):
        return nf4.dequantized_model(output / base, load)[0]
    return load(output / base, dtype=torch.float32)


def randomize(model, name, names=("lora_", "ia3_", "score.", "trainable_tokens", "modules_to_save", ".bias")):
    """PEFT starts B at zero, where no mistake shows."""
    random = common.generator("adapters/" + name)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad and any(part in key for part in names):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))


def lora_parameters(model):
    return [p for key, p in model.named_parameters() if "lora_" in key]


def save(model, folder, base):
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    (folder / "adapter_model.safetensors").chmod(0o644)


def targets(model):
    found = {}
    for path, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            found[path] = {"rank": module.r["default"], "scale": module.scaling["default"]}
    return found


def golden_values(model, all_ids, bins):
    inner = model.base_model.model
    logits = torch.stack([common.forward_last(inner, ids)[0] for ids in all_ids])
    return {"bin_logits" if bins else "last_logits": logits}


def to_bf16(parameters, round_only):
    for parameter in parameters:
        parameter.data = parameter.data.bfloat16()
        if round_only:
            parameter.data = parameter.data.float()


def make_adapter(output, name, base, bins, options):
    folder = common.fresh_folder(output / "adapters" / name)
    task = "SEQ_CLS" if bins else "CAUSAL_LM"
    common.seed("adapters/" + name)
    model = get_peft_model(load_base(output, base, bins), LoraConfig(task_type=task, **options)).eval()
    randomize(model, name)
    if name == "causal-bf16":
        to_bf16(lora_parameters(model), round_only=True)
    all_ids = common.sequences("adapters/" + name, model.config.vocab_size)
    tensors = golden_values(model, all_ids, bins)
    values = {"base": base, "task": task, "sequences": all_ids, "targets": targets(model)}
    if name == "causal-bf16":
        to_bf16(lora_parameters(model), round_only=False)
    save(model, folder, base)
    check_reloaded(output, folder, values, bins, tensors)
    common.write_json(folder / "golden.json", values)
    common.write_tensors(folder / "golden.safetensors", tensors)


def check_reloaded(output, folder, values, bins, tensors):
    """The saved files give the same values, and the adapter moves them."""
    base = load_base(output, values["base"], bins)
    key = "bin_logits" if bins else "last_logits"
    without = torch.stack([common.forward_last(base, ids)[0] for ids in values["sequences"]])
    model = PeftModel.from_pretrained(base, folder).eval()
    again = golden_values(model, values["sequences"], bins)[key]
    assert targets(model) == values["targets"], folder
    assert torch.equal(again, tensors[key]), folder
    assert (again - without).abs().max() > 0.1, folder


def make_refused(output, name, base, config, words):
    folder = common.fresh_folder(output / "adapters-refused" / name)
    config.task_type = "CAUSAL_LM"
    common.seed("adapters-refused/" + name)
    model = get_peft_model(load_base(output, base, 0), config)
    randomize(model, name)
    save(model, folder, base)
    common.write_json(folder / "refused.json", {"base": base, "reason_names": words})


def make(output):
    common.fresh_folder(output / "adapters")
    common.fresh_folder(output / "adapters-refused")
    for name, (base, bins, options) in ADAPTERS.items():
        make_adapter(output, name, base, bins, options)
    for name, (base, config, words) in REFUSED.items():
        make_refused(output, name, base, config, words)

"""NF4 tensors and checkpoints by bitsandbytes' CPU library.

Its AVX512 decoder is wrong for row lengths that are a multiple of 16 but not of 64, so the decoded values are those of its
reference function, and the library must agree where rows are multiples of 64.
"""

import itertools

import numpy as np
import torch
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute, _get_4bit_quantize_bounds
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from golden_makers import common, models

BLOCK = 64
CPU = torch.device("cpu")
FORMS = {"nested": True, "plain": False}


def thresholds():
    bounds, order = _get_4bit_quantize_bounds("nf4", CPU)
    assert order.tolist() == list(range(16))
    return bounds


def numbers():
    tables = {
        "levels": functional.get_4bit_type("nf4", device="cpu"),
        "thresholds": thresholds(),
        "dynamic_map": functional.create_dynamic_map(),
    }
    values = {}
    for name, table in tables.items():
        array = table.to(torch.float32).numpy()
        values[name + "_bits"] = array.view(np.uint32).tolist()
        values[name] = [float(x) for x in array]
    return values


def normal(name, *shape):
    return torch.randn(shape, generator=common.generator("nf4/" + name))


def zero_blocks():
    values = normal("zero-blocks", 24, 64)
    values[::3] = 0
    return values


def outliers():
    values = normal("outliers", 16, 128) * 0.01
    values[torch.arange(16), torch.arange(16) * 7 % 128] = 100.0 * (-1.0) ** torch.arange(16)
    return values


def magnitudes():
    return normal("magnitudes", 61, 64) * torch.pow(10.0, torch.arange(-30.0, 31.0)).unsqueeze(1)


def ties():
    """absmax 1, so that scaled values are the values: each threshold, and the fp32 values just below and above it."""
    exact = thresholds()
    up, down = (torch.nextafter(exact, torch.tensor(x)) for x in (2.0, -2.0))
    levels = functional.get_4bit_type("nf4", device="cpu")
    row = torch.cat([torch.tensor([1.0, -1.0, 0.0]), exact, up, down, levels])
    return torch.stack([row, row.flip(0)])


def with_absmax(values):
    """One block for each value, which is its absmax: a test of double quantization alone."""
    blocks = torch.zeros(len(values), BLOCK)
    blocks[:, 0] = values
    return blocks


def many_blocks():
    """The first draw whose fp32 mean depends on the order of the sum."""
    for draw in itertools.count():
        random = common.generator(f"nf4/many-blocks/{draw}")
        scale = torch.pow(10.0, -4 * torch.rand(1300, generator=random))
        blocks = with_absmax(torch.randn(1300, generator=random).abs() * scale).bfloat16()
        absmax = blocks[:, 0].float()
        if absmax.mean().item() != absmax.double().mean().float().item():
            return blocks


# name: (tensor, note)
def cases():
    return {
        "normal": (normal("normal", 128, 128), "exactly one nested block"),
        "nested-tail-of-one": (normal("nested-tail", 257, 64).half(), "fp16 source; second nested block holds one absmax"),
        "bf16": ((normal("bf16", 33, 192) * 0.05).bfloat16(), "bf16 source"),
        "fp16": ((normal("fp16", 16, 64) * 0.05).half(), "fp16 source"),
        "many-blocks": (many_blocks(), "nested alone; 1,300 blocks of one value: the order of the fp32 mean shows"),
        "zero-blocks": (zero_blocks(), "every third block is all zero"),
        "all-zero": (torch.zeros(4, 64), "residuals 0 / 0"),
        "equal-absmax": (with_absmax(torch.full((8,), 0.75)), "residuals 0 / 0 with an offset"),
        "nearly-equal": (with_absmax(torch.full((8,), 0.7)), "residuals of the mean's rounding alone"),
        "huge": (normal("huge", 16, 64) * 1e30, ""),
        "tiny": (normal("tiny", 16, 64) * 1e-30, ""),
        "denormal": (normal("denormal", 8, 64) * 1e-40, "absmax below the clamp of 1e-38"),
        "magnitudes": (magnitudes(), "1e-30 to 1e30 in one tensor"),
        "outliers": (outliers(), "one outlier of 10,000 times the rest in each row"),
        "ties": (ties(), "thresholds exactly, one ulp above, one below; then the levels"),
        "width-48": (normal("width-48", 7, 48), "blocks cross rows; short last block"),
        "width-80": (normal("width-80", 12, 80), "blocks cross rows; no short block"),
        "width-100": (normal("width-100", 3, 100), ""),
        "odd-count": (normal("odd-count", 5, 33), "165 values: last nibble is padding"),
        "odd-zero-tail": (torch.cat([normal("odd-zero-tail", 1, 64), torch.zeros(1, 3)], 1), "all-zero short block"),
        "short": (normal("short", 1, 10), "one short block"),
        "single": (torch.tensor([[-0.25]]), "one value"),
    }


def decoded_absmax(state):
    if not state.nested:
        return state.absmax
    return functional.dequantize_blockwise(state.absmax, state.state2) + state.offset


def decode(packed, state, dtype=torch.float32):
    levels = functional.get_4bit_type("nf4", device="cpu")
    return _dequantize_4bit_compute(packed.reshape(-1), decoded_absmax(state), levels, BLOCK, state.shape, dtype)


def quantize(values, nested):
    return functional.quantize_4bit(values, blocksize=BLOCK, compress_statistics=nested, quant_type="nf4")


def case_tensors(name, values):
    tensors = {f"{name}.input": values}
    for form, nested in FORMS.items():
        packed, state = quantize(values, nested)
        prefix = f"{name}.{form}"
        tensors[prefix + ".weight"] = packed
        for key, part in state.as_dict(packed=True).items():
            tensors[f"{prefix}.weight.{key}"] = part.clone()
        decoded = decode(packed, state)
        if values.shape[-1] % BLOCK == 0:
            state.dtype = torch.float32
            assert torch.equal(functional.dequantize_4bit(packed, state), decoded), prefix
        tensors[prefix + ".absmax"] = decoded_absmax(state).clone()
        tensors[prefix + ".decoded"] = decoded
    return tensors


def make_tensors(root):
    tensors, index = {}, []
    for name, (values, note) in cases().items():
        made = case_tensors(name, values)
        if name == "many-blocks":
            made = {key: made[key] for key in made if ".plain." not in key and not key.endswith(".decoded")}
        tensors.update(made)
        index.append({
            "name": name,
            "shape": list(values.shape),
            "dtype": str(values.dtype).replace("torch.", ""),
            "row_multiple_of_64": values.shape[-1] % BLOCK == 0,
            "note": note,
        })
    common.write_json(root / "tensors.json", {"cases": index})
    common.write_tensors(root / "tensors.safetensors", tensors)


def dequantized_model(folder, load=models.load, **options):
    """The checkpoint with every NF4 weight replaced by its decoded values: the reference for logits."""
    quantized = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
    weights = {
        name + ".weight": decode(module.weight.data, module.weight.quant_state)
        for name, module in quantized.named_modules()
        if isinstance(module, Linear4bit)
    }
    assert weights
    model = load(folder.parents[1] / "models" / "gqa", dtype=torch.float32, **options)
    missing = model.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    return model, weights


def make_checkpoint(output, name, nested):
    folder = common.fresh_folder(output / "nf4" / name)
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=nested,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = output / "models" / "gqa"
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=settings, dtype=torch.float32, device_map="cpu"
    )
    model.save_pretrained(folder)
    reference, weights = dequantized_model(folder)
    all_ids = common.sequences("nf4/" + name, reference.config.vocab_size)
    tensors = common.golden_logits(reference, all_ids)
    if nested:
        kept = [key for key in weights if key.startswith("model.layers.0.")]
        tensors.update({"decoded." + key.removesuffix(".weight"): weights[key] for key in kept})
    common.write_json(folder / "golden.json", {"sequences": all_ids})
    common.write_tensors(folder / "golden.safetensors", tensors)


def make(output):
    root = common.fresh_folder(output / "nf4")
    common.write_json(root / "numbers.json", numbers())
    make_tensors(root)
    make_checkpoint(output, "checkpoint", nested=True)
    make_checkpoint(output, "checkpoint-plain", nested=False)

"""Loss curves of both heads by the libraries' own trainers, in fp32, without dropout.

Each is run with one batch of 16 rows a step and with four of 4, and compared with a plain loop over single rows.
"""

import math

import torch
from peft import PeftModel

from golden_makers import adapters, common, curve_rows, curve_trainers

OPTIONS = {
    "learning_rate": 5e-3,
    "schedule": "cosine",
    "warmup_steps": 3,
    "total_steps": curve_rows.STEPS,
    "betas": [0.9, 0.999],
    "epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_gradient_norm": 1.0,
}
# name: (rows, base, what differs, whether B and the class head start at random values instead of zero). Of every one some
# steps are clipped and some are not.
VARIANTS = {
    "token-fp32": (curve_rows.TokenRows, "models/gqa", {"max_gradient_norm": 2.2}, False),
    "token-nf4": (
        curve_rows.TokenRows,
        "nf4/checkpoint",
        {"schedule": "linear", "weight_decay": 0.1, "max_gradient_norm": 3.0},
        True,
    ),
    "bins-fp32": (
        curve_rows.BinsRows,
        "models/gqa",
        {"head_learning_rate": 2e-3, "schedule": "constant_with_warmup", "warmup_steps": 5},
        False,
    ),
    "bins-nf4": (
        curve_rows.BinsRows,
        "nf4/checkpoint",
        {"learning_rate": 3e-3, "head_learning_rate": 2e-3, "weight_decay": 0.1, "max_gradient_norm": 1.5},
        True,
    ),
}
# Folder: micro-batches of a step.
SPLITS = {"1x16": 1, "4x4": 4}
LOSS_TOLERANCE, NORM_TOLERANCE = 1e-5, 1e-4


def scale(step, options):
    """Of the rates at one step, counted from 0: written down here to compare with the libraries' schedules."""
    warmup, total = options["warmup_steps"], options["total_steps"]
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / (total - warmup)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant_with_warmup": 1.0}[
        options["schedule"]
    ]


def plain_step(model, optimizer, rates, step_rows, rows, options):
    for group, rate in zip(optimizer.param_groups, rates):
        group["lr"] = rate
    optimizer.zero_grad()
    losses = [rows.loss_sum(model, row) for row in step_rows]
    loss = sum(losses) / sum(rows.count(row) for row in step_rows)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, options["max_gradient_norm"], foreach=False)
    optimizer.step()
    return {"loss": loss.item(), "gradient_norm": norm.item()}


def plain_loop(output, folder, base, rows, order, options):
    """The same run without any trainer, one unpadded row at a time; an NF4 base is replaced by its decoded weights."""
    model = PeftModel.from_pretrained(adapters.load_base(output, base, rows.bins), folder / "initial", is_trainable=True)
    optimizer = curve_trainers.make_optimizer(model, options)
    steps = []
    for k, step_rows in enumerate(order):
        rates = [options[key] * scale(k, options) for key in ("learning_rate", "head_learning_rate") if key in options]
        step = plain_step(model, optimizer, rates, step_rows, rows, options)
        steps.append({**step, **dict(zip(("learning_rate", "head_learning_rate"), rates))})
    return steps


def check_equal(what, steps, expected):
    tolerances = {"loss": LOSS_TOLERANCE, "gradient_norm": NORM_TOLERANCE}
    largest = {}
    for key in expected[0]:
        differences = [abs(a[key] - b[key]) / max(abs(b[key]), 1e-12) for a, b in zip(steps, expected, strict=True)]
        largest[key] = max(differences)
        assert largest[key] < tolerances.get(key, 1e-12), (what, key, differences)
    print(f"  {what}: " + ", ".join(f"{key} within {value:.1e}" for key, value in largest.items()), flush=True)


def check_course(name, steps, options):
    """The loss falls, and some steps are clipped."""
    norms, losses = [s["gradient_norm"] for s in steps], [s["loss"] for s in steps]
    clipped = sum(norm > options["max_gradient_norm"] for norm in norms)
    print(f"  {name}: loss {losses[0]:.3f} to {losses[-1]:.3f}, norm {min(norms):.3f} to {max(norms):.3f}, {clipped} clipped")
    assert sum(losses[-5:]) < sum(losses[:5]) and 0 < clipped < len(steps), name


def make_split(output, folder, split, rows, order, base, options, random_start):
    options = {**options, "micro_batches": SPLITS[split]}
    initial = folder / "initial" / "adapter_model.safetensors"

    def save_initial(model):
        before = initial.read_bytes() if initial.exists() else None
        adapters.save(model, initial.parent, base)
        assert before in (None, initial.read_bytes()), folder

    model, steps = curve_trainers.run(output, folder.name, base, rows, order, options, random_start, save_initial)
    adapters.save(model, folder / split / "final", base)
    values = {"base": base, "head": rows.head, "options": options, "order": order, "steps": steps}
    common.write_json(folder / split / "golden.json", values)
    return steps


def make_variant(output, name, kind, order, base, changes, random_start):
    folder = common.fresh_folder(output / "curves" / name)
    options, rows = {**OPTIONS, **changes}, kind()
    steps = {split: make_split(output, folder, split, rows, order, base, options, random_start) for split in SPLITS}
    check_course(name, steps["1x16"], options)
    check_equal(f"{name} 4x4 and 1x16", steps["4x4"], steps["1x16"])
    check_equal(f"{name} plain and 1x16", plain_loop(output, folder, base, rows, order, options), steps["1x16"])


def make(output):
    root = common.fresh_folder(output / "curves")
    order = curve_rows.make_order()
    for kind in (curve_rows.TokenRows, curve_rows.BinsRows):
        common.write_tensors(root / f"{kind.head}_rows.safetensors", kind().tensors())
    for name, (kind, *variant) in VARIANTS.items():
        make_variant(output, name, kind, order, *variant)

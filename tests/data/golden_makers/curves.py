"""Short training runs of the bins head: PEFT's SEQ_CLS model, plain PyTorch, fp32, no dropout."""

import math

import torch
from peft import LoraConfig, get_peft_model

from golden_makers import adapters, common

ROWS, BINS, STEPS, BATCH = 64, 32, 30, 8
OPTIONS = {
    "learning_rate": 5e-3,
    "head_learning_rate": 2e-3,
    "warmup_steps": 3,
    "total_steps": STEPS,
    "betas": [0.9, 0.999],
    "epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_gradient_norm": 1.0,
}
# name: (base, what differs, whether B and the class head start at random values instead of zero)
VARIANTS = {
    "fp32": ("models/gqa", {}, False),
    # Some steps are clipped, some are not.
    "nf4": ("nf4/checkpoint", {"weight_decay": 0.01, "max_gradient_norm": 2.6}, True),
}


def make_rows():
    """Token ids, and targets as the trainer makes them: a bell over the bins around a place that the ids decide."""
    random = common.generator("curves/rows")
    lengths = torch.randint(2, 41, (ROWS,), generator=random).tolist()
    ids = [torch.randint(common.FIRST_PLAIN_ID, 256, (n,), generator=random) for n in lengths]
    centre = torch.stack([row.double().mean() for row in ids])
    centre = 4 + (BINS - 8) * (centre - centre.min()) / (centre.max() - centre.min())
    bell = torch.exp(-0.5 * ((torch.arange(BINS).double() + 0.5 - centre.unsqueeze(1)) / 0.75) ** 2)
    return ids, (bell / bell.sum(1, keepdim=True)).float()


def make_order():
    random = common.generator("curves/order")
    epochs = math.ceil(STEPS * BATCH / ROWS)
    order = torch.cat([torch.randperm(ROWS, generator=random) for _ in range(epochs)])
    return order[: STEPS * BATCH].reshape(STEPS, BATCH).tolist()


def make_model(output, name, base, random_start):
    common.seed("curves/" + name)
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear")
    model = get_peft_model(adapters.load_base(output, base, BINS), config).eval()
    with torch.no_grad():
        head = model.base_model.model.score.modules_to_save["default"].weight
        head.zero_()
    if random_start:
        adapters.randomize(model, "curves/" + name)
    return model


def scale(step, options):
    warmup, total = options["warmup_steps"], options["total_steps"]
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def batch_loss(model, rows, ids, targets):
    """One row at a time, unpadded; sum of the cross-entropies over the rows of the batch."""
    logits = torch.cat([model(input_ids=ids[row].unsqueeze(0)).logits for row in rows])
    return torch.nn.functional.cross_entropy(logits, targets[rows], reduction="sum") / len(rows)


def make_optimizer(model, options):
    head = [p for key, p in model.named_parameters() if p.requires_grad and "score" in key]
    lora = adapters.lora_parameters(model)
    groups = [
        {"params": lora, "lr": options["learning_rate"]},
        {"params": head, "lr": options["head_learning_rate"]},
    ]
    return torch.optim.AdamW(
        groups, betas=tuple(options["betas"]), eps=options["epsilon"], weight_decay=options["weight_decay"], foreach=False
    )


def train_step(model, optimizer, step, options, rows, ids, targets):
    rates = [options["learning_rate"], options["head_learning_rate"]]
    for group, rate in zip(optimizer.param_groups, rates):
        group["lr"] = rate * scale(step, options)
    optimizer.zero_grad()
    loss = batch_loss(model, rows, ids, targets)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, options["max_gradient_norm"], foreach=False)
    optimizer.step()
    return {
        "loss": loss.item(),
        "gradient_norm": norm.item(),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "head_learning_rate": optimizer.param_groups[1]["lr"],
    }


def make_variant(output, name, base, changes, random_start, ids, targets):
    folder = common.fresh_folder(output / "curves" / name)
    options = {**OPTIONS, **changes}
    model = make_model(output, name, base, random_start)
    adapters.save(model, folder / "initial", base)
    optimizer, order = make_optimizer(model, options), make_order()
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
    steps = [train_step(model, optimizer, k, options, rows, ids, targets) for k, rows in enumerate(order)]
    adapters.save(model, folder / "final", base)
    norms = [s["gradient_norm"] for s in steps]
    assert max(norms) > options["max_gradient_norm"] and (name != "nf4" or min(norms) < options["max_gradient_norm"])
    assert steps[-1]["loss"] < steps[0]["loss"]
    common.write_json(folder / "golden.json", {"base": base, "options": options, "order": order, "steps": steps})


def make(output):
    root = common.fresh_folder(output / "curves")
    ids, targets = make_rows()
    offsets = torch.tensor([0, *[len(row) for row in ids]]).cumsum(0)
    tensors = {"ids": torch.cat(ids).int(), "offsets": offsets, "targets": targets}
    common.write_tensors(root / "rows.safetensors", tensors)
    for name, (base, changes, random_start) in VARIANTS.items():
        make_variant(output, name, base, changes, random_start, ids, targets)

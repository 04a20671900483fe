"""The peer of tests/bench/run: transformers + PEFT, a LlamaForSequenceClassification with a LoRA adapter.

Like pricer_benchmark it takes one JSON object a line and gives one answer a line; every answer has `peak_rss_bytes`.
  make-adapter   writes a random adapter, nothing of it zero, and ends
  forward        {"items": [rows], "batch": B, "logits": FILE or ""} -> {"seconds", "tokens"}
  tune           {"items": [rows], "batch": B} -> {"seconds", "tokens", "loss", "gradient_norm"}; one step of all rows
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_base(directory, bins, dtype):
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, num_labels=bins, dtype=dtype, attn_implementation="sdpa"
    )
    config = model.config
    if config.pad_token_id is None:
        eos = config.eos_token_id
        config.pad_token_id = eos[0] if isinstance(eos, list) else eos
    config.use_cache = False
    return model


def make_adapter(options):
    """Matrices of about the size that training gives them, so that the adapter changes every answer."""
    torch.manual_seed(options.seed)
    model = load_base(options.base, options.bins, torch.float32)
    config = LoraConfig(task_type="SEQ_CLS", r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear")
    model = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
            elif "score" in name and parameter.requires_grad:
                parameter.normal_(std=0.02)
    model.save_pretrained(options.output)


class Items:
    """What pricer_benchmark prepare has written."""

    def __init__(self, folder):
        folder = Path(folder)
        with open(folder / "items.jsonl", encoding="utf-8") as lines:
            self.ids = [torch.tensor(json.loads(line)["ids"]) for line in lines]
        self.bins = json.loads((folder / "bins.json").read_text())["bins"]
        data = bytearray((folder / "targets.f32").read_bytes())
        self.targets = torch.frombuffer(data, dtype=torch.float32).view(-1, self.bins)

    def tokens(self, rows):
        return sum(len(self.ids[row]) for row in rows)

    def padded(self, rows, pad_id):
        """Ids and mask of one batch, padded on the right to its longest row."""
        ids = [self.ids[row] for row in rows]
        lengths = torch.tensor([len(row) for row in ids])
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad_id)
        return {"input_ids": padded, "attention_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long()}


def load_model(options, bins, trainable):
    """In bf16 the forward pass has its adapter in bf16 too; for tuning PEFT keeps what is trained in fp32."""
    model = load_base(options.base, bins, DTYPES[options.dtype])
    model = PeftModel.from_pretrained(
        model, options.adapter, is_trainable=trainable, autocast_adapter_dtype=trainable
    )
    if trainable:
        # PEFT does so for LoRA, not for the head.
        score = model.base_model.model.score.float()
        score.register_forward_pre_hook(lambda module, args: (args[0].float(),))
        return model.train()
    model = model.to(DTYPES[options.dtype]).eval()
    return model.merge_and_unload() if options.merge else model


class Forward:
    def __init__(self, options, items):
        self.items = items
        self.model = load_model(options, items.bins, trainable=False)
        self.pad_id = self.model.config.pad_token_id

    def __call__(self, command):
        rows, batch = command["items"], command["batch"]
        start = time.perf_counter()
        logits = []
        with torch.inference_mode():
            for begin in range(0, len(rows), batch):
                inputs = self.items.padded(rows[begin : begin + batch], self.pad_id)
                logits.append(self.model(**inputs).logits.float())
        seconds = time.perf_counter() - start
        if command["logits"]:
            Path(command["logits"]).write_bytes(torch.cat(logits).numpy().tobytes())
        return {"seconds": seconds, "tokens": self.items.tokens(rows)}


class Tune:
    def __init__(self, options, items):
        self.items = items
        self.model = load_model(options, items.bins, trainable=True)
        self.pad_id = self.model.config.pad_token_id
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        groups = [
            {"params": [p for name, p in named if "lora_" in name], "lr": options.lr},
            {"params": [p for name, p in named if "lora_" not in name], "lr": options.head_lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)

    def __call__(self, command):
        rows, batch = command["items"], command["batch"]
        start = time.perf_counter()
        loss_sum = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for begin in range(0, len(rows), batch):
            some = rows[begin : begin + batch]
            logits = self.model(**self.items.padded(some, self.pad_id)).logits.float()
            targets = self.items.targets[some]
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / len(rows)
            loss.backward()
            loss_sum += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0).item()
        self.optimizer.step()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "tokens": self.items.tokens(rows), "loss": loss_sum, "gradient_norm": norm}


def peak_rss_bytes():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status: no line VmHWM")


def serve(make_handler, options):
    # Answers alone go to standard output, whatever libraries print.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(options.threads)

    def answer(value):
        print(json.dumps(value | {"peak_rss_bytes": peak_rss_bytes()}), file=answers, flush=True)

    handler = make_handler(options, Items(options.items))
    answer(
        {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "python": sys.version.split()[0],
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        }
    )
    for line in sys.stdin:
        answer(handler(json.loads(line)))


def add_serve(parsers, name, handler):
    parser = parsers.add_parser(name)
    for option in ("--base", "--items", "--adapter"):
        parser.add_argument(option, required=True)
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--merge", action="store_true", help="fold the adapter into the weights")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--head-lr", type=float, default=5e-4)
    parser.set_defaults(run=lambda options: serve(handler, options))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsers = parser.add_subparsers(required=True)
    maker = parsers.add_parser("make-adapter")
    maker.add_argument("--base", required=True)
    maker.add_argument("--output", required=True)
    maker.add_argument("--rank", type=int, default=16)
    maker.add_argument("--bins", type=int, default=128)
    maker.add_argument("--seed", type=int, default=1)
    maker.set_defaults(run=make_adapter)
    add_serve(parsers, "forward", Forward)
    add_serve(parsers, "tune", Tune)
    transformers.logging.set_verbosity_error()
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()

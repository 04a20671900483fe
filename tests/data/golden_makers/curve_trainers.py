"""The libraries' own training runs: TRL's SFTTrainer for the token head, transformers' Trainer for the bins head."""

import tempfile

import datasets
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from golden_makers import adapters, common, curve_rows

datasets.disable_progress_bars()


def lora_config(rows):
    return LoraConfig(task_type=rows.task, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear")


def load_base(output, base, rows):
    """As the checkpoint is: an NF4 base keeps its packed weights."""
    kind, options = (AutoModelForSequenceClassification, {"num_labels": rows.bins}) if rows.bins else (AutoModelForCausalLM, {})
    common.seed(base)
    return kind.from_pretrained(
        output / base, dtype=torch.float32, device_map="cpu", attn_implementation="eager", **options
    )


def arguments(folder, options):
    """For TrainingArguments and SFTConfig, which would choose another dtype, order, schedule and rate."""
    micro_batches = options["micro_batches"]
    return {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": curve_rows.BATCH // micro_batches,
        "gradient_accumulation_steps": micro_batches,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": options["learning_rate"],
        "lr_scheduler_type": options["schedule"],
        "warmup_steps": options["warmup_steps"],
        "adam_beta1": options["betas"][0],
        "adam_beta2": options["betas"][1],
        "adam_epsilon": options["epsilon"],
        "weight_decay": options["weight_decay"],
        "max_grad_norm": options["max_gradient_norm"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class StepRecorder(TrainerCallback):
    """The values in full precision, and the rates with which the optimizer really steps."""

    def __init__(self):
        self.rates, self.logs = [], []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.logs.append(dict(logs))

    def steps(self, with_head):
        assert len(self.rates) == len(self.logs) == curve_rows.STEPS
        steps = []
        for rates, log in zip(self.rates, self.logs):
            assert rates[0] == log["learning_rate"]
            step = {"loss": log["loss"], "gradient_norm": log["grad_norm"], "learning_rate": rates[0]}
            steps.append({**step, "head_learning_rate": rates[1]} if with_head else step)
        return steps


def tokenizer():
    """SFTTrainer demands one; of it, rows that are ids use the padding alone."""
    words = {f"<{i}>": i for i in range(curve_rows.VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<3>")),
        pad_token=f"<{curve_rows.PAD}>",
        bos_token="<1>",
        eos_token=f"<{curve_rows.END}>",
    )


def token_trainer(output, base, rows, order, options, folder):
    def row(index):
        ids, begin = rows.ids[index].tolist(), rows.prompt_lengths[index]
        return {"input_ids": ids, "completion_mask": [0] * begin + [1] * (len(ids) - begin)}

    trainer = SFTTrainer(
        model=load_base(output, base, rows),
        args=SFTConfig(**arguments(folder, options), completion_only_loss=True),
        train_dataset=datasets.Dataset.from_list([row(index) for index in order]),
        processing_class=tokenizer(),
        peft_config=lora_config(rows),
    )
    # On a 4-bit base it has cast them to bf16.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


class BinsTrainer(Trainer):
    """Soft targets; the mean is over the rows of the whole step, however many micro-batches it has."""

    loss_is_scaled_for_ga = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        targets = inputs.pop("targets")
        logits = model(**inputs).logits
        step_rows = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum") / step_rows


def pad(rows):
    def stack(tensors, value):
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    return {
        "input_ids": stack([row["ids"] for row in rows], curve_rows.PAD),
        "attention_mask": stack([torch.ones_like(row["ids"]) for row in rows], 0),
        "targets": torch.stack([row["targets"] for row in rows]),
    }


def head_parameter(model):
    return model.base_model.model.score.modules_to_save["default"].weight


def make_optimizer(model, options):
    """AdamW over LoRA and, where there is one, the class head at its own rate."""
    groups = [{"params": adapters.lora_parameters(model), "lr": options["learning_rate"]}]
    if "head_learning_rate" in options:
        groups.append({"params": [head_parameter(model)], "lr": options["head_learning_rate"]})
    return torch.optim.AdamW(
        groups, betas=tuple(options["betas"]), eps=options["epsilon"], weight_decay=options["weight_decay"], foreach=False
    )


def bins_trainer(output, base, rows, order, options, folder):
    common.seed("curves/bins/" + base)
    model = get_peft_model(load_base(output, base, rows), lora_config(rows))
    with torch.no_grad():
        head_parameter(model).zero_()
    return BinsTrainer(
        model=model,
        args=TrainingArguments(**arguments(folder, options), remove_unused_columns=False),
        train_dataset=[{"ids": rows.ids[index], "targets": rows.targets[index]} for index in order],
        data_collator=pad,
        optimizers=(make_optimizer(model, options), None),
    )


def run(output, name, base, rows, order, options, random_start, save_initial):
    """Trains over `order` [steps][rows]; the trained model and its steps. save_initial(model) comes before the first."""
    make = bins_trainer if rows.bins else token_trainer
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(output, base, rows, sum(order, []), options, folder)
        recorder = StepRecorder()
        trainer.add_callback(recorder)
        trainer.remove_callback(PrinterCallback)
        if random_start:
            adapters.randomize(trainer.model, "curves/" + name)
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters() if p.is_floating_point())
        save_initial(trainer.model)
        trainer.train()
    return trainer.model, recorder.steps(with_head=bool(rows.bins))

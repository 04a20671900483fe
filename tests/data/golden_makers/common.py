"""What every group uses: seeds, writers, the reference forward pass."""

import json
import shutil
import zlib

import torch
from safetensors.torch import save_file
from transformers.utils import logging

logging.disable_progress_bar()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

SEQUENCE_LENGTHS = (1, 2, 7, 33, 100)
# Ids below are pad, bos and eos.
FIRST_PLAIN_ID = 3


def generator(name):
    """Random numbers that depend on the name alone, whatever was made before."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def seed(name):
    torch.manual_seed(zlib.crc32(name.encode()))


def fresh_folder(path):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def sequences(name, vocabulary, lengths=SEQUENCE_LENGTHS):
    random = generator(name + "/sequences")
    return [torch.randint(FIRST_PLAIN_ID, vocabulary, (n,), generator=random).tolist() for n in lengths]


def write_tensors(path, tensors):
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, str(path))
    path.chmod(0o644)


def write_json(path, value):
    """One line for each key of the top level: readable, and small for long lists."""
    lines = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def forward_last(model, ids):
    """Logits (or class logits) and final-norm hidden state at the last position, one unpadded sequence."""
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0]
        logits = model(torch.tensor([ids])).logits
    return (logits[0, -1] if logits.dim() == 3 else logits[0]).float(), hidden[-1].float()


def golden_logits(model, all_ids):
    rows = [forward_last(model, ids) for ids in all_ids]
    logits = torch.stack([row[0] for row in rows])
    return {
        "last_logits": logits,
        "last_log_probabilities": torch.log_softmax(logits, dim=-1),
        "last_hidden": torch.stack([row[1] for row in rows]),
    }

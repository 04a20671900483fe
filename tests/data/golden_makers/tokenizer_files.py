"""Small tokenizers in three styles, trained here, and their ids over hard lines by AutoTokenizer."""

import json

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from golden_makers import common, text

LINES = 2000
# The splitting rule of Llama 3; digit runs of up to three.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Whole pieces that no merge reaches: they come out only where merges are ignored for pieces in the vocabulary.
WHOLE_PIECES = ["149", "999", "Ġkettleware", "Price", "qzx"]


def byte_trainer(size, specials):
    return trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def smollm():
    """Each digit alone, then byte-level BPE; no BOS added."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(text.corpus(3000, 1), byte_trainer(600, specials))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    return json.loads(tokenizer.to_str()), config


def with_whole_pieces(tokenizer_json, pieces):
    vocabulary = tokenizer_json["model"]["vocab"]
    for piece in pieces:
        if piece not in vocabulary:
            vocabulary[piece] = len(vocabulary)
    tokenizer_json["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(tokenizer_json))


def llama3(whole_pieces=WHOLE_PIECES):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(text.corpus(3000, 2), byte_trainer(620, []))
    tokenizer = with_whole_pieces(json.loads(tokenizer.to_str()), whole_pieces)
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    begin = (specials[0], tokenizer.token_to_id(specials[0]))
    template = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[begin])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": specials[0],
        "eos_token": specials[1],
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return json.loads(tokenizer.to_str()), config


def llama2(with_template=True):
    """SentencePiece's kind of BPE: spaces as U+2581, unknown bytes as <0x..>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    specials = ["<unk>", "<s>", "</s>"]
    # Letters of the Latin script alone, so that the others fall back to bytes.
    lines = ["".join(c for c in line if c.isascii() and c.isprintable()) for line in text.corpus(3000, 3)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=specials + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    made = json.loads(tokenizer.to_str())
    made["pre_tokenizer"]["split"] = False
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] in specials]
    tokenizer = Tokenizer.from_str(json.dumps(made))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    if with_template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
        )
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": not with_template,
        "legacy": False,
    }
    return json.loads(tokenizer.to_str()), config


def llama2_flags():
    """add_bos_token and add_eos_token without a template: transformers 5 does not read them beside a tokenizer.json."""
    return llama2(with_template=False)


TOKENIZERS = {"smollm": smollm, "llama3": llama3, "llama2": llama2, "llama2-flags": llama2_flags}


def write_tokenizer(folder, tokenizer, config):
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_ids(folder, lines):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids, offsets = [], [0]
    for line in lines:
        row = tokenizer(line)["input_ids"]
        assert row == plain.encode(line).ids, (folder, line)
        ids += row
        offsets.append(len(ids))
    common.write_tensors(
        folder / "golden.safetensors",
        {"ids": torch.tensor(ids, dtype=torch.int16), "offsets": torch.tensor(offsets, dtype=torch.int64)},
    )


def make(output):
    root = common.fresh_folder(output / "tokenizers")
    lines = text.lines(LINES, 7)
    (root / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")
    for name, build in TOKENIZERS.items():
        folder = common.fresh_folder(root / name)
        write_tokenizer(folder, *build())
        write_ids(folder, lines[:200] if name == "llama2-flags" else lines)

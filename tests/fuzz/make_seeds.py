#!/usr/bin/env python3
"""Writes the seeds that are binary: small files that are right, and one that is not. No packages."""

import json
import pathlib
import struct

SEEDS = pathlib.Path(__file__).parent / "seeds"


def write(target, name, data):
    directory = SEEDS / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


def safetensors(tensors, metadata=None):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def gguf_string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value):
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)


def gguf(values, tensors, version=3, alignment=32):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    for key, value in values.items():
        out += gguf_string(key) + gguf_value(value)
    data = b""
    for name, (shape, kind, content) in tensors.items():
        out += gguf_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        out += struct.pack("<IQ", kind, len(data))
        data += content + b"\0" * (-len(content) % alignment)
    return out + b"\0" * (-len(out) % alignment) + data


def llama_values():
    tokens = ["a", "b", "ab", "<|begin|>", "<|end|>"]
    return {
        "general.architecture": "llama", "general.name": "seed", "llama.block_count": 1,
        "llama.context_length": 64, "llama.embedding_length": 8, "llama.feed_forward_length": 12,
        "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.dimension_count": 4,
        "llama.rope.freq_base": 10000.0, "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1, 1, 1, 3, 3], "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 3, "tokenizer.ggml.eos_token_id": 4,
        "tokenizer.ggml.add_bos_token": False,
    }


def main():
    ones = struct.pack("<f", 1.0)
    write("safetensors", "lora", safetensors(
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": ("F32", [2, 4], ones * 8),
         "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": ("F32", [4, 2], ones * 8)},
        {"format": "pt"}))
    write("safetensors", "dtypes", safetensors(
        {name: (name, [2], b"\1" * 2 * size) for name, size in
         {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}.items()}))
    write("safetensors", "empty", safetensors({}))
    write("safetensors", "scalar", safetensors({"x": ("F32", [], ones), "none": ("F32", [0, 7], b"")}))
    write("safetensors", "overlap", struct.pack("<Q", 120) + json.dumps(
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
         "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}).encode().ljust(120) + ones * 3)

    write("gguf", "llama", gguf(llama_values(), {
        "token_embd.weight": ([5, 8], 0, ones * 40), "output_norm.weight": ([8], 0, ones * 8),
        "blk.0.attn_q.weight": ([8, 8], 1, b"\0\x3c" * 64),
        "blk.0.ffn_up.weight": ([12, 32], 8, (b"\0\x3c" + b"\1" * 32) * 12),
        "blk.0.ffn_down.weight": ([8, 32], 2, (b"\0\x3c" + b"\x11" * 16) * 8),
        "blk.0.ffn_gate.weight": ([8, 32], 3, (b"\0\x3c\0\0" + b"\x11" * 16) * 8)}))
    write("gguf", "scaled", gguf(
        {**llama_values(), "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0,
         "general.alignment": 64},
        {"rope_freqs.weight": ([2], 0, ones * 2)}, alignment=64))
    write("gguf", "version2", gguf({"general.architecture": "llama"}, {}, version=2))


if __name__ == "__main__":
    main()

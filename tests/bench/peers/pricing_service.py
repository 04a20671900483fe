"""The peer of tests/bench/service: pricer.v1.PricingService as one would write it in Python, of transformers + PEFT behind gRPC.

Two forms of it, by --form:
  generate      each call generates five tokens behind its prompt and reads the price out of the text
  micro-batch   calls that come within --wait-ms are one padded batch of one forward pass; the price is the median of the bins

Both answer with the price alone; nothing of what a request asks for beside its text is looked at. Prints "ready" when it serves.
"""

import argparse
import json
import queue
import re
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import torch
from grpc_tools import protoc
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

ROOT = Path(__file__).resolve().parents[3]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GENERATED_TOKENS = 5


def import_stubs():
    """Modules of our .proto files, made in a folder of their own."""
    folder = tempfile.mkdtemp(prefix="pricer-peer-")
    include = Path(protoc.__file__).parent / "_proto"
    files = ["pricer/v1/pricing.proto"]
    arguments = ["", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main([*arguments, *files]) != 0:
        sys.exit("the stubs of pricing.proto could not be made")
    sys.path.insert(0, folder)
    from pricer.v1 import pricing_pb2, pricing_pb2_grpc

    return pricing_pb2, pricing_pb2_grpc


def item_text(item):
    return item.text or "\n".join(filter(None, (item.title, item.brand, item.category, item.description, item.details)))


class Prompts:
    """Renders and cuts as the adapter's manifest says."""

    def __init__(self, base, manifest):
        prompt = manifest["prompt"]
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.head, self.tail = f"{prompt['question']}\n\n", f"\n\n{prompt['prefix']}"
        fixed = len(self.tokenizer(self.head + self.tail).input_ids)
        self.max_text_tokens = prompt["max_prompt_tokens"] - fixed

    def ids(self, text):
        tokens = self.tokenizer(text, add_special_tokens=False, truncation=True, max_length=self.max_text_tokens)
        return self.tokenizer(self.head + self.tokenizer.decode(tokens.input_ids) + self.tail).input_ids


class Generate:
    """One request after the other: `generate` of a PEFT model is not to be called by two threads at once."""

    def __init__(self, options, prompts, manifest):
        model = AutoModelForCausalLM.from_pretrained(options.base, dtype=DTYPES[options.dtype], attn_implementation="sdpa")
        self.model = with_adapter(model, options, "CAUSAL_LM").eval()
        self.prompts = prompts
        self.lock = threading.Lock()

    def __call__(self, text):
        ids = torch.tensor([self.prompts.ids(text)])
        with self.lock, torch.inference_mode():
            end = self.prompts.tokenizer.eos_token_id
            tokens = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=GENERATED_TOKENS,
                min_new_tokens=GENERATED_TOKENS,
                do_sample=False,
                pad_token_id=end,
            )
        found = re.search(r"\d+(\.\d+)?", self.prompts.tokenizer.decode(tokens[0, ids.shape[1] :]))
        return float(found.group()) if found else 0.0


class MicroBatch:
    """Threads of calls leave their prompts in a queue and wait for the thread that computes."""

    def __init__(self, options, prompts, manifest):
        bins = manifest["head"]["bins"]
        model = AutoModelForSequenceClassification.from_pretrained(
            options.base, num_labels=bins, dtype=DTYPES[options.dtype], attn_implementation="sdpa"
        )
        model.config.use_cache = False
        if model.config.pad_token_id is None:
            model.config.pad_token_id = prompts.tokenizer.eos_token_id
        self.model = with_adapter(model, options, "SEQ_CLS").eval()
        space = manifest["price_space"]
        edges = torch.linspace(torch.log(torch.tensor(space["min"])), torch.log(torch.tensor(space["max"])), bins + 1)
        self.middles = torch.exp((edges[:-1] + edges[1:]) / 2)
        self.prompts, self.wait = prompts, options.wait_ms / 1000
        self.most = options.batch
        self.waiting = queue.Queue()
        threading.Thread(target=self.run, daemon=True).start()

    def __call__(self, text):
        answer = futures.Future()
        self.waiting.put((self.prompts.ids(text), answer))
        return answer.result()

    def collect(self):
        batch = [self.waiting.get()]
        end = time.monotonic() + self.wait
        while len(batch) < self.most:
            try:
                batch.append(self.waiting.get(timeout=max(0.0, end - time.monotonic())))
            except queue.Empty:
                break
        return batch

    def run(self):
        while True:
            batch = self.collect()
            ids = [torch.tensor(ids) for ids, _ in batch]
            padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.model.config.pad_token_id)
            lengths = torch.tensor([len(row) for row in ids])
            mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
            with torch.inference_mode():
                logits = self.model(input_ids=padded, attention_mask=mask).logits.float()
            shares = torch.softmax(logits, -1).cumsum(-1)
            prices = self.middles[(shares < 0.5).sum(-1).clamp(max=len(self.middles) - 1)]
            for (_, answer), price in zip(batch, prices.tolist()):
                answer.set_result(price)


def with_adapter(model, options, task):
    """The adapter's LoRA matrices under the model's task, merged where asked for."""
    folder = Path(options.adapter)
    if json.loads((folder / "adapter_config.json").read_text())["task_type"] != task:
        folder = as_task(folder, task)
    model = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False).to(DTYPES[options.dtype])
    return model.merge_and_unload() if options.merge else model


def as_task(folder, task):
    from safetensors.torch import load_file, save_file

    copy = Path(tempfile.mkdtemp(prefix="pricer-peer-"))
    config = json.loads((folder / "adapter_config.json").read_text()) | {"task_type": task, "modules_to_save": None}
    (copy / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: value for name, value in tensors.items() if "lora_" in name}, copy / "adapter_model.safetensors")
    return copy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapter", required=True, help="a version of ours: PEFT's files and pricer.json")
    parser.add_argument("--form", choices=("generate", "micro-batch"), required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wait-ms", type=float, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--calls", type=int, default=64, help="that are answered at once (%(default)s)")
    parser.add_argument("--merge", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    manifest = json.loads((Path(options.adapter) / "pricer.json").read_text())
    pricing_pb2, pricing_pb2_grpc = import_stubs()
    price = {"generate": Generate, "micro-batch": MicroBatch}[options.form](
        options, Prompts(options.base, manifest), manifest
    )

    class Service(pricing_pb2_grpc.PricingServiceServicer):
        def PredictPrice(self, request, context):
            value = price(item_text(request.item))
            return pricing_pb2.PredictPriceResponse(prediction=pricing_pb2.Prediction(price=value, currency_code="USD"))

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=options.calls))
    pricing_pb2_grpc.add_PricingServiceServicer_to_server(Service(), server)
    server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()

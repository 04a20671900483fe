"""The peer of tests/bench/reading: the tokenizers crate through its own Python package.

Takes one JSON object a line and gives one answer a line; every answer has `peak_rss_bytes`.
  {} -> {"seconds", "rows", "tokens"}: encode_batch_fast of all prompts, which are in memory already
"""

import argparse
import json
import os
import resource
import sys
import time


def answer(fields):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(fields | {"peak_rss_bytes": peak}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="checkpoint directory")
    parser.add_argument("--prompts", required=True, help="a JSON array of texts")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    # Read when the package is loaded.
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(options.base, "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with open(options.prompts, encoding="utf-8") as file:
        prompts = json.load(file)
    answer({"tokenizers": tokenizers.__version__})
    for _ in sys.stdin:
        start = time.perf_counter()
        encodings = tokenizer.encode_batch_fast(prompts)
        seconds = time.perf_counter() - start
        tokens = sum(len(encoding) for encoding in encodings)
        answer({"seconds": seconds, "rows": len(encodings), "tokens": tokens})


if __name__ == "__main__":
    main()

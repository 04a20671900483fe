"""Rounds of work, we and the peer by turns on the same items, with the matrix products alone between them.

A round is cut into chunks. Each chunk is done by both sides one after the other (who begins changes from chunk to chunk),
so that what else the machine does hits both alike; a side's time of a round is the sum over its chunks.
"""

import math
import time
from array import array
from dataclasses import dataclass
from statistics import median

from harness.environment import BenchError, say
from harness.flops import Shapes, forward_flops, step_flops

CHUNK_ITEMS = 64
PROBE_ITEMS = 32


@dataclass(frozen=True)
class Work:
    """What both sides work on."""

    lengths: list  # tokens of each item
    shapes: Shapes  # of the base
    rank: int  # of the adapter
    bins: int  # of the head

    def by_length(self):
        return sorted(range(len(self.lengths)), key=lambda row: self.lengths[row])


@dataclass(frozen=True)
class Sides:
    ours: object
    peer: object
    products: object

    def chunk(self, number, ours, peer, products):
        """Answers of the three to their commands for one chunk."""
        if number % 2 == 0:
            ours, peer = self.ours.ask(**ours), self.peer.ask(**peer)
        else:
            peer, ours = self.peer.ask(**peer), self.ours.ask(**ours)
        return {"ours": ours, "peer": peer, "products": self.products.ask(**products)}


def chunks(items, size):
    return [items[begin : begin + size] for begin in range(0, len(items), size)]


def run_rounds(name, most, deadline, one_round):
    """At least one round, at most `most`, and none that would end after the deadline if it took as long as the longest."""
    rounds, longest = [], 0.0
    while len(rounds) < most and (not rounds or time.monotonic() + longest < deadline):
        start = time.monotonic()
        rounds.append(one_round(len(rounds)))
        longest = max(longest, time.monotonic() - start)
        say_round(name, rounds)
    return rounds


# The products alone: by ATen, those that share an input as one or one by one; and of packed weights, as we make them.
FORMS = ("fused", "separate", "packed")


def add_up(answers, tokens, items):
    """One round, from the answers to its chunks."""
    product_flops = sum(answer["products"]["flops"] for answer in answers)
    sums = {"items": items, "tokens": tokens}
    for side in ("ours", "peer"):
        sums[f"{side}_seconds"] = sum(answer[side]["seconds"] for answer in answers)
    for form in FORMS:
        seconds = sum(answer["products"][f"{form}_seconds"] for answer in answers)
        sums[f"{form}_flops_per_second"] = product_flops / seconds
    return sums


def summarize(rounds, flops, sides):
    """Medians over the rounds, and the ratios of medians."""

    def middle(name):
        return median(one[name] for one in rounds)

    items, tokens = rounds[0]["items"], rounds[0]["tokens"]
    rates = {form: middle(f"{form}_flops_per_second") for form in FORMS}
    gemm = max(rates.values())
    result = {"items": items, "tokens": tokens, "flops": flops, "rounds": rounds}
    result |= {"gemm_flops_per_second": gemm, "gemm_by_form": rates}
    for side in ("ours", "peer"):
        seconds = middle(f"{side}_seconds")
        result[side] = {
            "seconds": seconds,
            "items_per_second": items / seconds,
            "tokens_per_second": tokens / seconds,
            "gemm_share": flops["base"] / seconds / gemm,
            "peak_rss_bytes": getattr(sides, side).peak_rss_bytes,
        }
    result["ours"]["gemm_share_computed"] = flops["computed"] / result["ours"]["seconds"] / gemm
    ratios = [one["peer_seconds"] / one["ours_seconds"] for one in rounds]
    result["ratio"] = result["peer"]["seconds"] / result["ours"]["seconds"]
    result["ratio_of_rounds"] = {"lowest": min(ratios), "highest": max(ratios)}
    return result


def best_batch(peer, ordered, candidates):
    """The peer's fastest batch size on a stretch of items of neighbouring lengths, and the rates of all."""
    middle = max(0, (len(ordered) - PROBE_ITEMS) // 2)
    probe = ordered[middle : middle + PROBE_ITEMS]
    rates = {}
    for batch in candidates:
        answer = peer.ask(items=probe, batch=batch, logits="")
        rates[batch] = answer["tokens"] / answer["seconds"]
        say(f"peer, batch of {batch}: {rates[batch]:.0f} tokens/s")
    return max(rates, key=rates.get), rates


class Agreement:
    """Compares the files of logits that both sides write in the first round."""

    def __init__(self, folder):
        self.paths = folder / "ours.f32", folder / "peer.f32"
        self.logits = 0
        self.max_abs_difference = 0.0
        self.max_abs_logit = 0.0

    def add(self):
        ours, peer = (array("f", path.read_bytes()) for path in self.paths)
        if len(ours) != len(peer) or not ours:
            raise BenchError(f"We gave {len(ours)} bin logits and the peer {len(peer)}.")
        if not all(map(math.isfinite, ours)) or not all(map(math.isfinite, peer)):
            raise BenchError("A bin logit is not finite.")
        self.logits += len(ours)
        self.max_abs_difference = max(self.max_abs_difference, *(abs(a - b) for a, b in zip(ours, peer)))
        self.max_abs_logit = max(self.max_abs_logit, *map(abs, peer))


def measure_forward(sides, work, options, folder, deadline):
    """Prices all items; the peer in batches of neighbouring lengths, of the size that it is fastest with."""
    ordered = work.by_length()
    sides.ours.ask(items=ordered[: len(ordered) // 8 + 1], logits="")
    batch, rates = best_batch(sides.peer, ordered, options.peer_batches)
    agreement = Agreement(folder)
    products = {"tokens": options.batch_tokens, "backward": False}
    sides.products.ask(**products)

    def one_round(number):
        answers = []
        for index, chunk in enumerate(chunks(ordered, CHUNK_ITEMS)):
            paths = map(str, agreement.paths) if number == 0 else ("", "")
            ours, peer = ({"items": chunk, "logits": path} for path in paths)
            answers.append(sides.chunk(number + index, ours, peer | {"batch": batch}, products))
            if number == 0:
                agreement.add()
        return add_up(answers, sum(work.lengths), len(ordered))

    rounds = run_rounds("forward", options.rounds, deadline, one_round)
    result = summarize(rounds, forward_flops(work.shapes, work.lengths, work.rank, work.bins), sides)
    result["agreement"] = {
        "logits": agreement.logits,
        "max_abs_difference": agreement.max_abs_difference,
        "max_abs_logit": agreement.max_abs_logit,
    }
    return result | {"peer_batch": batch, "peer_batches_tokens_per_second": rates}


def every_nth(rows, count):
    count = min(count, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def measure_tuning(sides, work, options, deadline):
    """Steps of `tuning_batch` rows. The rows are every n-th by length, in groups of neighbouring lengths, which is what
    grouping by length in transformers' Trainer comes to."""
    ordered = every_nth(work.by_length(), options.tuning_items)
    lengths = [work.lengths[row] for row in ordered]
    steps = chunks(ordered, options.tuning_batch)
    products = {"tokens": options.micro_batch_tokens, "backward": True}
    made = []

    def step(number, rows):
        made.append(sides.chunk(number, {"items": rows}, {"items": rows, "batch": len(rows)}, products))
        return made[-1]

    def one_round(number):
        return add_up([step(number + index, rows) for index, rows in enumerate(steps)], sum(lengths), len(ordered))

    step(0, steps[0])  # warms up
    rounds = run_rounds("tuning", options.rounds, deadline, one_round)
    result = summarize(rounds, step_flops(work.shapes, lengths, work.rank, work.bins), sides)
    losses = [(answer["ours"]["loss"], answer["peer"]["loss"]) for answer in made]
    result["agreement"] = {
        "steps": len(made),
        "losses": losses,
        "first_gradient_norms": [made[0][side]["gradient_norm"] for side in ("ours", "peer")],
        "max_relative_loss_difference": max(abs(ours - peer) / abs(peer) for ours, peer in losses),
    }
    return result


def say_round(name, rounds):
    last = rounds[-1]
    ours, peer = (last["tokens"] / last[f"{side}_seconds"] for side in ("ours", "peer"))
    gemm = max(last[f"{form}_flops_per_second"] for form in FORMS) / 1e9
    say(f"{name}, round {len(rounds)}: we {ours:.0f} tokens/s, peer {peer:.0f}, products {gemm:.0f} GFLOP/s")

"""The report: what was measured, as JSON and as a page of Markdown."""

import json

# What is to be reached: our share of the products' rate, and our rate over the peer's. A ratio that would need more than
# the share counts as reached where the share is.
GOALS = {
    "forward": {"share": 0.85, "ratio": {"fp32": 1.25, "bf16": 1.25}},
    "tuning": {"share": 0.75, "ratio": {"fp32": 1.8, "bf16": 2.5}},
}
# Bin logits of the same adapter on the same tokens: absolute in fp32, relative to the largest logit in bf16.
MAX_LOGIT_DIFFERENCE = {"fp32": 1e-3, "bf16": 5e-2}
MAX_LOSS_DIFFERENCE = {"fp32": 1e-3, "bf16": 5e-2}


def disagreements(results, dtype):
    """Sentences on answers that differ: then not the same work was timed."""
    found = []
    if "forward" in results:
        agreement = results["forward"]["agreement"]
        unit = 1.0 if dtype == "fp32" else agreement["max_abs_logit"]
        if agreement["max_abs_difference"] > MAX_LOGIT_DIFFERENCE[dtype] * unit:
            found.append(f"The bin logits differ by up to {agreement['max_abs_difference']:.2g}.")
    if "tuning" in results:
        difference = results["tuning"]["agreement"]["max_relative_loss_difference"]
        if difference > MAX_LOSS_DIFFERENCE[dtype]:
            found.append(f"The losses differ by up to {difference:.2g} of themselves.")
    return found


def shortfalls(results):
    """Sentences on what the peer does faster."""
    return [
        f"The peer is faster at {name}: {result['ratio']:.2f} of its rate."
        for name, result in results.items()
        if result["ratio"] < 1.0
    ]


def percent(share):
    return f"{100 * share:.0f} %"


def part_rows(name, result, dtype):
    ours, peer, goals = result["ours"], result["peer"], GOALS[name]
    spread = result["ratio_of_rounds"]
    mebibyte = 1 << 20
    return [
        f"| items/s | {ours['items_per_second']:.2f} | {peer['items_per_second']:.2f} | |",
        f"| tokens/s | {ours['tokens_per_second']:.0f} | {peer['tokens_per_second']:.0f} | |",
        f"| ratio (rounds: {spread['lowest']:.2f} to {spread['highest']:.2f}) | **{result['ratio']:.2f}** | 1 "
        f"| {goals['ratio'][dtype]} |",
        f"| share of the matrix products' rate | **{percent(ours['gemm_share'])}** | {percent(peer['gemm_share'])} "
        f"| {percent(goals['share'])} |",
        f"| the same, of what is really computed | {percent(ours['gemm_share_computed'])} | | |",
        f"| peak resident memory, MiB | {ours['peak_rss_bytes'] / mebibyte:.0f} "
        f"| {peer['peak_rss_bytes'] / mebibyte:.0f} | |",
    ]


def part_notes(name, result):
    gflops = {form: rate / 1e9 for form, rate in result["gemm_by_form"].items()}
    rates = "{fused:.0f} GFLOP/s fused, {separate:.0f} one by one, {packed:.0f} of packed weights".format(**gflops)
    notes = [f"{result['items']} items, {result['tokens']} tokens, {len(result['rounds'])} rounds; products: {rates}."]
    agreement = result["agreement"]
    if name == "forward":
        notes.append(
            f"Peer in batches of {result['peer_batch']}. Largest difference of {agreement['logits']} bin logits: "
            f"{agreement['max_abs_difference']:.1e} (largest logit {agreement['max_abs_logit']:.1f})."
        )
    else:
        notes.append(
            f"Loss after {agreement['steps'] - 1} updates: {agreement['losses'][-1][0]:.5f} and "
            f"{agreement['losses'][-1][1]:.5f}; largest relative difference on the way: "
            f"{agreement['max_relative_loss_difference']:.1e}."
        )
    return " ".join(notes)


def machine_line(machine):
    flags = ", ".join(machine["flags"]) or "no AVX2"
    return (
        f"{machine['cpu']} (family {machine['cpu_family']}, model {machine['cpu_model']}), {machine['cores']} cores, "
        f"L3 {machine['l3_cache']}, {flags}, {machine['memory_bytes'] / (1 << 30):.0f} GiB; "
        f"load at start {machine['load_at_start']:.1f}."
    )


def markdown(report):
    lines = [f"Machine: {machine_line(report['machine'])}  "]
    lines.append(f"Command: `{report['command']}`, {report['dtype']}, {report['threads']} threads, "
                 f"adapter of rank {report['rank']} on all linears.  ")  # fmt: skip
    lines.append("Versions: " + ", ".join(f"{name} {value}" for name, value in report["versions"].items()) + ".")
    for name, result in report["results"].items():
        title = {"forward": "Forward", "tuning": "Tuning step"}[name]
        lines += ["", f"| {title} | Pricer | transformers + PEFT | to reach |", "|---|---|---|---|"]
        lines += part_rows(name, result, report["dtype"])
        lines += ["", part_notes(name, result)]
    return "\n".join(lines) + "\n"


def write(report, path):
    """`path` and, beside it, the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(report), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

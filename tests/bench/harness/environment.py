"""What the benchmark needs on the machine: our programs, the peer's Python, a base model, the work."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent.parent
CACHE = Path(os.environ.get("PRICER_CACHE") or Path.home() / ".cache" / "pricer")
PEER = BENCH / "peers" / "transformers_peft.py"


class BenchError(Exception):
    """One sentence for the person who ran the benchmark."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def call(what, *command, **options):
    """Runs a command; its output is shown only where it fails."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode(errors="replace")[-4000:])
        raise BenchError(f"{what} failed with exit code {done.returncode}; its last words are above.")


def build_programs(build, names):
    """Paths of our programs, built where they are not up to date."""
    if not (ROOT / ".deps" / "wheels").exists():
        say("setting up")
        call("scripts/setup", ROOT / "scripts" / "setup")
    if not (build / "build.ninja").exists():
        call("cmake", "cmake", "--preset", "release", "-B", build, cwd=ROOT)
    say(f"building {' and '.join(names)} in {build}")
    call("The build", "ninja", "-C", build, *names)
    return [build / "bin" / name for name in names]


def peer_python():
    """A Python that has the packages of peers/requirements.txt: PRICER_BENCH_PYTHON, or our own environment."""
    given = os.environ.get("PRICER_BENCH_PYTHON")
    if given:
        return Path(given)
    folder, wanted = CACHE / "bench-venv", (BENCH / "peers" / "requirements.txt").read_text()
    stamp, python = folder / "requirements.txt", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"installing the peer's packages in {folder} (several GB, once)")
    shutil.rmtree(folder, ignore_errors=True)
    call("Making a Python environment", sys.executable, "-m", "venv", folder)
    call("Installing the peer's packages", python, "-m", "pip", "install", "--quiet", "-r", PEER.parent / "requirements.txt")
    stamp.write_text(wanted)
    return python


def smollm2(build):
    """SmolLM2-135M in fp32, imported once from the GGUF file that scripts/setup fetches."""
    gguf = ROOT / ".deps" / "smollm2.gguf"
    (trainer,) = build_programs(build, ["pricer-trainer"])
    key = hashlib.sha256(gguf.read_bytes()).hexdigest()[:16]
    folder = CACHE / f"bench-base-{key}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        say(f"importing {gguf.resolve().name} into {folder}")
        call("The import", trainer, "import", "--gguf", gguf, "--output", part, "--dtype", "fp32")
        part.rename(folder)
    return folder


def prepare_work(program, python, base, options, folder):
    """Writes the items, tokenized, and a random adapter; returns their folders."""
    items, adapter = folder / "items", folder / "adapter"
    data = ["--data", options.data] if options.data else []
    say(f"preparing {options.items} items and an adapter of rank {options.rank}")
    call("Preparing the items", program, "prepare", "--base", base, "--items", options.items, "--seed", options.seed,
         "--output", items, *data)
    call("Making the adapter", python, PEER, "make-adapter", "--base", base, "--output", adapter,
         "--rank", options.rank, "--seed", options.seed)
    return items, adapter


def machine():
    """What a reader must know of the machine to judge the figures."""
    fields = {}
    for line in subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = fields.get("Flags", "").split()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": fields.get("Model name", "unknown"),
        "cpu_family": fields.get("CPU family"),
        "cpu_model": fields.get("Model"),
        "l3_cache": fields.get("L3 cache"),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in wanted if flag in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_at_start": os.getloadavg()[0],
    }

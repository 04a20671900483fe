#!/usr/bin/env python3
"""Makes the golden files of this folder with transformers, PEFT, TRL, bitsandbytes and gguf.

    pip install -r requirements.txt          (in a virtual environment; Python 3.11)
    python make_golden.py                    writes every group beside this script
    python make_golden.py --only nf4 gguf    some groups; those they build on must be there
    python make_golden.py --check            makes all in a temporary folder and compares bytes; --only narrows it

Everything is seeded. README.md says what each group holds.
"""

import argparse
import importlib
import os
import pathlib
import shutil
import sys
import tempfile

# One instruction set, one thread and no hash randomness: the same bytes on any x86-64 machine that has AVX2, as far as
# the libraries allow it.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_COMPILE_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "CUDA_VISIBLE_DEVICES": "",
}

# Group to the module that makes it, in the order in which they build on each other.
GROUPS = {
    "tokenizers": "tokenizer_files",
    "models": "models",
    "nf4": "nf4",
    "adapters": "adapters",
    "gguf": "gguf_files",
    "curves": "curves",
    "token_prices": "token_prices",
}


def restart_with_environment():
    """The variables count only when set before Python and the libraries start."""
    if all(os.environ.get(key) == value for key, value in ENVIRONMENT.items()):
        return
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})


def make(output, groups):
    for group, module in GROUPS.items():
        if group in groups:
            print(f"{group} ...", flush=True)
            importlib.import_module("golden_makers." + module).make(output)


def folders(groups):
    return [*groups, *(["adapters-refused"] if "adapters" in groups else [])]


def data_files(root, groups):
    found = {}
    for group in folders(groups):
        for path in sorted((root / group).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(root))] = path
    return found


def check(root, groups):
    """Makes the groups anew, on a copy of the others, and compares; the exit status."""
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="golden-"))
    try:
        for folder in set(folders(GROUPS)) - set(folders(groups)):
            shutil.copytree(root / folder, scratch / folder)
        make(scratch, groups)
        old, new = data_files(root, groups), data_files(scratch, groups)
        bad = sorted(set(old) ^ set(new))
        bad += [name for name in old if name in new and old[name].read_bytes() != new[name].read_bytes()]
    finally:
        shutil.rmtree(scratch)
    for name in bad:
        print(f"differs: {name}")
    print(f"{len(old)} files, {len(bad)} differ")
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--output", type=pathlib.Path, default=here, help="folder to write to (default: this one)")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="groups to make (default: all)")
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    arguments = parser.parse_args()
    restart_with_environment()
    if arguments.check:
        sys.exit(check(arguments.output.resolve(), arguments.only))
    make(arguments.output.resolve(), arguments.only)


if __name__ == "__main__":
    main()

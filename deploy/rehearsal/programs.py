"""Pricer's programs as the rehearsal and the test of the manifests run them: a small world of base,
catalogue and tuned versions, and servers."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

TUNING = [
    "--max-steps", "8", "--lr", "2e-3", "--head-lr", "2e-2", "--lora-r", "4", "--validation-items", "24",
    "--threads", "1", "--device", "cpu",
]


class Failure(Exception):
    """What did not hold, in a sentence."""


def check(holds, words):
    if not holds:
        raise Failure(words)


class Programs:
    """Where the programs are, and how they are run to their end."""

    def __init__(self, build):
        self.build = pathlib.Path(build).resolve()

    def path(self, name):
        for folder in ("bin", "tests/bin"):
            if (self.build / folder / name).exists():
                return str(self.build / folder / name)
        raise Failure(f"{self.build}: expected the program {name} in bin/ or tests/bin/; build it first")

    def run(self, *command, codes=(0,), environment=None):
        """Returns what it has printed to standard output."""
        done = subprocess.run(
            [self.path(command[0]), *map(str, command[1:])], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})},
        )
        check(done.returncode in codes,
              f"{' '.join(map(str, command))}: exit code {done.returncode}, expected {codes}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *command, output=None, environment=None):
        return subprocess.Popen(
            [self.path(command[0]), *map(str, command[1:])], stdin=subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL, stderr=subprocess.STDOUT if output else subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )


class World:
    """A base, a catalogue and tuned versions of the adapter `shop`, in a folder."""

    def __init__(self, programs, folder, base=None, versions=(1, 2), items=400):
        self.programs = programs
        self.folder = pathlib.Path(folder)
        self.base = base or str(self.folder / "base")
        self.catalog = self.folder / "catalog"
        if base is None:
            programs.run("tiny_checkpoint", self.base)
        programs.run("pricer-trainer", "catalog", "--items", items, "--seed", 3, "--output", self.catalog)
        for version in versions:
            programs.run(
                "pricer-trainer", "tune", "--base", self.base, "--data", self.catalog / "train.jsonl", "--validation",
                self.catalog / "validation.jsonl", "--output", self.folder / "staged", "--name", "shop", "--runs",
                self.folder / "runs", "--seed", version, *TUNING)

    def publish(self, version, adapters):
        """As the trainer does: the folder appears under its name at once."""
        aside = pathlib.Path(adapters) / "shop" / f".{version}"
        shutil.copytree(self.folder / "staged" / "shop" / str(version), aside)
        aside.rename(aside.with_name(str(version)))


class Server:
    """A pricer-server, with ports of its own that it keeps when it is started again."""

    def __init__(self, programs, log, arguments, address="127.0.0.1"):
        self.programs = programs
        self.log = pathlib.Path(log)
        self.arguments = [str(argument) for argument in arguments]
        self.address = address
        self.ports = {"": 0, "admin_": 0, "health_": 0, "metrics_": 0}
        self.process = None

    def target(self, listener=""):
        return f"{self.address}:{self.ports[listener]}"

    def start(self, seconds=120):
        flags = ["--listen", self.target(), "--admin-listen", self.target("admin_"), "--health-listen",
                 self.target("health_"), "--metrics-listen", self.target("metrics_")]
        with open(self.log, "w", encoding="utf-8") as output:
            self.process = self.programs.start("pricer-server", *self.arguments, *flags, output=output)
        ready = self.wait_for_line("serving", seconds)
        self.ports = {listener: int(ready[f"{listener}port"]) for listener in self.ports}

    def wait_for_line(self, message, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.log.read_text(encoding="utf-8").splitlines():
                if f'"message":"{message}"' in line:
                    return json.loads(line)
            check(self.process.poll() is None, f"pricer-server ended: {self.log.read_text(encoding='utf-8')}")
            time.sleep(0.05)
        raise Failure(f"{self.log}: no line {message} within {seconds} s")

    def stop(self, sent=signal.SIGTERM, seconds=60):
        self.process.send_signal(sent)
        code = self.process.wait(seconds)
        expected = 0 if sent == signal.SIGTERM else -sent
        check(code == expected, f"pricer-server: exit code {code} after signal {sent}, expected {expected}")

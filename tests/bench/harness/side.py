"""One process that works on request, ours or the peer's."""

import json
import subprocess
import tempfile

from harness.environment import BenchError


class Side:
    """Starts a program and asks it line by line. While one side works, the others wait for their next line."""

    def __init__(self, name, command):
        self.name = name
        self.peak_rss_bytes = 0
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.about = self._read()

    def ask(self, **command):
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            words = self.log.read().decode(errors="replace").strip()[-2000:]
            raise BenchError(f"{self.name} ended with exit code {self.process.wait()}: {words}")
        answer = json.loads(line)
        self.peak_rss_bytes = answer.pop("peak_rss_bytes")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()

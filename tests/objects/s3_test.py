#!/usr/bin/env python3
"""Jobs over s3://, against a server of objects.

  tests/objects/s3_test.py --build build/release --server versitygw
"""

import argparse
import gzip
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "rehearsal"))

from programs import Programs, Server, World  # noqa: E402

OPTIONS = None
ROWS = 5000


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class ObjectStoreTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="objects.")
        cls.addClassCleanup(directory.cleanup)
        cls.folder = pathlib.Path(directory.name)
        cls.programs = Programs(OPTIONS.build)
        cls.world = World(cls.programs, cls.folder, versions=(1,))
        adapters = cls.folder / "adapters"
        (adapters / "shop").mkdir(parents=True)
        cls.world.publish(1, adapters)
        cls.server = Server(cls.programs, cls.folder / "server.log",
                            ["--base", cls.world.base, "--adapters", adapters, "--threads", "1", "--device", "cpu"])
        cls.server.start()
        cls.addClassCleanup(cls.server.stop)
        # The store keeps each object as a file, so what is in it can be looked at.
        cls.bucket = cls.folder / "store" / "shop"
        cls.bucket.mkdir(parents=True)
        cls.port = free_port()
        cls.start_store()
        cls.addClassCleanup(lambda: cls.stop_store())
        cls.write_items()

    @classmethod
    def start_store(cls):
        cls.store = cls.start_store_at(cls.port)

    @classmethod
    def start_store_at(cls, port, *flags):
        store = subprocess.Popen(
            [OPTIONS.server, *flags, "--port", f"127.0.0.1:{port}", "posix", cls.folder / "store"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "ROOT_ACCESS_KEY": "key", "ROOT_SECRET_KEY": "secret"})
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return store
            except OSError:
                assert store.poll() is None and time.monotonic() < end, "the store does not start"
                time.sleep(0.05)

    @classmethod
    def stop_store(cls):
        cls.store.kill()
        cls.store.wait()

    @classmethod
    def write_items(cls):
        lines = [json.dumps({"id": f"i-{row}", "title": f"cast iron skillet of {row} mm" if row % 1000 else ""})
                 for row in range(1, ROWS + 1)]
        text = "\n".join(lines) + "\n"
        (cls.bucket / "items.jsonl").write_text(text)
        (cls.bucket / "items.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        (cls.bucket / "items.csv").write_text(
            "id,title\n" + "".join(f"i-{row},{json.loads(line)['title']}\n" for row, line in enumerate(lines, 1)))

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="work.", dir=self.folder)
        self.addCleanup(directory.cleanup)
        self.work = pathlib.Path(directory.name)

    def environment(self, **more):
        return {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_EC2_METADATA_DISABLED": "true", **more}

    def batch(self, *arguments, environment=None):
        """Exit code and what was said."""
        done = subprocess.run(
            [self.programs.path("pricer"), "batch", "--server", self.server.target(), "--adapter", "shop", *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            env={**os.environ, **self.environment(), **(environment or {})})
        return done.returncode, done.stdout

    def expected(self):
        if not hasattr(type(self), "whole"):
            output = self.folder / "whole.jsonl"
            code, said = self.batch("--input", self.bucket / "items.jsonl", "--output", output)
            self.assertEqual(code, 3, said)
            type(self).whole = output.read_text()
        return self.whole

    def test_objects_are_priced_as_files_are(self):
        expected = self.expected()
        for name in ("items.jsonl", "items.jsonl.gz", "items.csv"):
            output = self.work / f"{name}.out"
            code, said = self.batch("--input", f"s3://shop/{name}", "--output", output)
            self.assertEqual(code, 3, said)
            self.assertEqual([json.loads(line)["price"] for line in output.read_text().splitlines()],
                             [json.loads(line)["price"] for line in expected.splitlines()])

    def test_an_output_appears_when_it_is_whole(self):
        code, said = self.batch("--input", "s3://shop/items.jsonl", "--output", "s3://shop/nightly/prices.jsonl", "--work", self.work)
        self.assertEqual(code, 3, said)
        self.assertEqual((self.bucket / "nightly/prices.jsonl").read_text(), self.expected())
        rejects = (self.bucket / "nightly/prices.rejects.jsonl").read_text().splitlines()
        self.assertEqual(len(rejects), ROWS // 1000)
        self.assertEqual(list(self.work.iterdir()), [])
        # Compared with another day's, both in the store.
        code, said = self.batch("--compare", "s3://shop/nightly/prices.jsonl", "--output", self.folder / "whole.jsonl")
        self.assertEqual(code, 0, said)
        self.assertIn(f"{ROWS - ROWS // 1000} unchanged", said)

    def test_shards_are_merged_into_one_object(self):
        for index in range(3):
            code, said = self.batch("--input", "s3://shop/items.jsonl", "--output", "s3://shop/sharded.jsonl", "--work", self.work,
                                    "--shards", 3, "--merge", environment={"JOB_COMPLETION_INDEX": str(index)})
            # The one that ends last says what has become of all of them.
            self.assertEqual(code, 3 if index == 2 else 0, said)
            self.assertEqual((self.bucket / "sharded.jsonl").exists(), index == 2)
        self.assertEqual((self.bucket / "sharded.jsonl").read_text(), self.expected())

    def test_a_store_that_is_gone_costs_no_row(self):
        arguments = ["--input", self.bucket / "items.jsonl", "--output", "s3://shop/late.jsonl", "--work", self.work]
        self.stop_store()
        try:
            code, said = self.batch(*arguments)
            self.assertEqual(code, 75, said)
            self.assertIn("the same command takes them there", said)
            self.assertTrue((self.work / "late.jsonl").exists())
        finally:
            self.start_store()
        code, said = self.batch(*arguments)
        self.assertEqual(code, 3, said)
        self.assertIn(f"{ROWS} of them by an earlier run", said)
        self.assertEqual((self.bucket / "late.jsonl").read_text(), self.expected())

    def test_a_certificate_must_be_of_an_authority(self):
        cert, key, port = self.work / "cert.pem", self.work / "key.pem", free_port()
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-keyout",
             key, "-out", cert, "-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        store = self.start_store_at(port, "--cert", cert, "--key", key)
        self.addCleanup(store.wait)
        self.addCleanup(store.kill)
        arguments = ["--input", "s3://shop/items.jsonl", "--output", self.work / "out.jsonl"]
        environment = {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}"}
        code, said = self.batch(*arguments, environment={**environment, "SSL_CERT_FILE": str(cert)})
        self.assertEqual(code, 3, said)
        code, said = self.batch(*arguments, environment=environment)
        self.assertEqual(code, 1, said)
        self.assertIn("certificate", said)

    def sync(self, *arguments, environment=None):
        done = subprocess.run(
            [self.programs.path("pricer"), "adapters", "sync", *map(str, arguments)], stdin=subprocess.DEVNULL, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **self.environment(), **(environment or {})})
        return done.returncode, done.stdout

    def test_adapters_go_to_a_store_and_from_there_to_a_server(self):
        jobs, here, store = self.work / "jobs", self.work / "here", "s3://shop/adapters"
        (jobs / "shop").mkdir(parents=True)
        here.mkdir()
        self.world.publish(1, jobs)
        self.programs.run("pricer", "adapters", "label", "shop", "stable", 1, "--adapters", jobs)
        code, said = self.sync(jobs, store)
        self.assertEqual(code, 0, said)
        self.assertEqual((self.bucket / "adapters/shop/1/_READY").read_text(), (jobs / "shop/1/_READY").read_text())
        code, said = self.sync(store, here)
        self.assertEqual(code, 0, said)
        for path in (jobs / "shop").rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                self.assertEqual((here / path.relative_to(jobs)).read_bytes(), path.read_bytes(), path)
        # What is there is not copied again.
        code, said = self.sync(store, here)
        self.assertIn("1 versions in s3://shop/adapters, 0 copied", said)
        server = Server(self.programs, self.work / "server.log",
                        ["--base", self.world.base, "--adapters", here, "--threads", "1", "--device", "cpu"])
        server.start()
        self.addCleanup(server.stop)
        answer = json.loads(self.programs.run("pricer", "price", "--json", "--server", server.target(), "--adapter", "shop", "--title", "pan"))
        self.assertEqual(int(answer["served_by"]["version"]), 1)

    def test_a_copy_goes_on_when_the_store_is_back(self):
        jobs, here, store = self.work / "jobs", self.work / "here", "s3://shop/later"
        (jobs / "shop").mkdir(parents=True)
        here.mkdir()
        self.world.publish(1, jobs)
        self.stop_store()
        try:
            code, said = self.sync(jobs, store, "--timeout", "1s")
            self.assertEqual(code, 1, said)
            self.assertIn("UNAVAILABLE: s3://shop/later", said)
            follower = subprocess.Popen(
                [self.programs.path("pricer"), "adapters", "sync", store, here, "--every", "1s"], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **self.environment()})
            self.addCleanup(follower.stdout.close)
            self.addCleanup(follower.wait)
            self.addCleanup(follower.kill)
            self.assertIn("UNAVAILABLE", follower.stdout.readline())
        finally:
            self.start_store()
        code, said = self.sync(jobs, store)
        self.assertEqual(code, 0, said)
        lines = [follower.stdout.readline()]
        while "shop/1 is copied" not in lines[-1]:
            self.assertNotEqual(lines[-1], "", lines)
            lines.append(follower.stdout.readline())
        self.assertTrue((here / "shop/1/_READY").exists())
        follower.terminate()
        self.assertEqual(follower.wait(30), 0)

    def test_what_is_gone_is_removed_when_that_is_asked_for(self):
        jobs, here, store = self.work / "jobs", self.work / "here", "s3://shop/pruned"
        (jobs / "shop").mkdir(parents=True)
        here.mkdir()
        self.world.publish(1, jobs)
        (jobs / "shop" / "1").rename(jobs / "shop" / "2")
        self.world.publish(1, jobs)
        self.assertEqual(self.sync(jobs, store)[0], 0)
        self.assertEqual(self.sync(store, here)[0], 0)
        shutil.rmtree(jobs / "shop" / "1")
        code, said = self.sync(jobs, store, "--delete")
        self.assertEqual(code, 0, said)
        self.assertIn("shop/1 is removed", said)
        self.assertFalse((self.bucket / "pruned/shop/1/_READY").exists())
        self.assertEqual(self.sync(store, here, "--delete")[0], 0)
        self.assertEqual([path.name for path in (here / "shop").iterdir()], ["2"])

    def test_an_output_in_a_store_is_compressed_as_its_name_says(self):
        code, said = self.batch("--input", "s3://shop/items.jsonl", "--output", "s3://shop/packed.jsonl.gz", "--work", self.work)
        self.assertEqual(code, 3, said)
        self.assertEqual(gzip.decompress((self.bucket / "packed.jsonl.gz").read_bytes()).decode(), self.expected())
        rejects = gzip.decompress((self.bucket / "packed.rejects.jsonl.gz").read_bytes()).decode().splitlines()
        self.assertEqual(len(rejects), ROWS // 1000)
        self.assertEqual(list(self.work.iterdir()), [])

    def test_what_is_in_the_folder_for_lines_stays(self):
        (self.work / "kept.jsonl.gz").write_text("another file")
        code, said = self.batch("--input", "s3://shop/items.jsonl", "--output", "s3://shop/kept.jsonl.gz", "--work", self.work)
        self.assertEqual(code, 3, said)
        self.assertEqual((self.work / "kept.jsonl.gz").read_text(), "another file")
        code, said = self.batch("--input", "s3://shop/items.jsonl", "--output", "s3://shop/kept.jsonl", "--work", self.work,
                                "--rejects", self.work / "kept.jsonl")
        self.assertEqual(code, 2, said)
        self.assertIn("--rejects: expected another file", said)

    def test_what_is_wrong_is_named(self):
        output = ["--output", self.work / "out.jsonl"]
        for arguments, environment, code, words in (
            (["--input", "s3://shop/none.jsonl", *output], {}, 1, "NOT_FOUND: s3://shop/none.jsonl: there is no such object"),
            (["--input", "s3://none/items.jsonl", *output], {}, 1, "s3://none/items.jsonl"),
            (["--input", "s3://shop", *output], {}, 1, "it is a folder"),
            (["--input", "s3://shop/items.jsonl", *output], {"AWS_SECRET_ACCESS_KEY": "wrong"}, 1, "PERMISSION_DENIED: s3://shop/items.jsonl"),
            (["--input", "s3://shop/items.jsonl", "--output", "s3://shop/out.jsonl"], {}, 2, "expected --work"),
            (["--input", "s3://shop/items.jsonl", "--work", self.work, *output], {}, 2, "--work: expected an object"),
            (["--input", self.bucket / "items.jsonl", "--output", "s3://none/out.jsonl", "--work", self.work], {}, 1, "NO_SUCH_BUCKET"),
        ):
            got, said = self.batch(*arguments, environment=environment)
            self.assertEqual(got, code, said)
            self.assertIn(words, said)


def main():
    global OPTIONS  # unittest makes its cases itself
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--server", required=True, help="versitygw")
    OPTIONS, rest = parser.parse_known_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()

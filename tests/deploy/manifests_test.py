#!/usr/bin/env python3
"""The Kubernetes manifests: every container's command line is run for real, with its volumes as folders here, its
configuration, its probes and its secrets; and what must agree between files is compared.

  tests/deploy/manifests_test.py --build build/release --manifests FOLDER

FOLDER holds what kustomize makes of each folder, <name>.yaml. Addresses are taken to a loopback address, GPUs become CPUs
and jobs are made short; all else is as it is written.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "rehearsal"))

from programs import TUNING, Programs, Server, World  # noqa: E402

# Ports are the manifests' own, so they are of an address that nothing else uses.
ADDRESS = "127.0.85.1"
ENTRYPOINTS = {"pricer-server": ["pricer-server"], "pricer-server-gpu": ["pricer-server"],
               "pricer-trainer-gpu": ["pricer-trainer"]}
OPTIONS = None


def documents(name):
    text = (pathlib.Path(OPTIONS.manifests) / f"{name}.yaml").read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]


def find(name, kind, object_name=None):
    found = [d for d in documents(name) if d["kind"] == kind and (object_name is None or d["metadata"]["name"] == object_name)]
    assert len(found) == 1, f"{name}: expected one {kind} {object_name or ''}, got {len(found)}"
    return found[0]


def image_name(container):
    return container["image"].split("/")[-1].split(":")[0]


class Pod:
    """A pod's volumes as folders, and its containers' command lines over them."""

    def __init__(self, spec, manifests, folder, volumes, environment=None):
        self.spec = spec
        self.config_maps = {d["metadata"]["name"]: d["data"] for d in documents(manifests) if d["kind"] == "ConfigMap"}
        self.folder = pathlib.Path(folder)
        self.volumes = volumes  # claim or secret -> folder
        self.environment = environment or {}

    def path_of(self, volume):
        """Where the volume is here, if it is no ConfigMap."""
        if "persistentVolumeClaim" in volume:
            return self.volumes[volume["persistentVolumeClaim"]["claimName"]]
        if "secret" in volume:
            return self.volumes[volume["secret"]["secretName"]]
        path = self.folder / volume["name"]
        path.mkdir(exist_ok=True)
        return path

    def mounts(self, container):
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        mounts = {}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                continue
            path = pathlib.Path(self.path_of(volume))
            sub_path = mount.get("subPath") or self.expand(mount.get("subPathExpr", ""), container)
            path = path / sub_path
            path.mkdir(exist_ok=True)
            mounts[mount["mountPath"]] = path
        return mounts

    def expand(self, text, container):
        """$(NAME), of variables that the pod's own labels and its maps give, and that the test sets."""
        names = re.findall(r"\$\((\w+)\)", text)
        declared = {variable["name"] for variable in container.get("env", [])}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                declared |= self.config_maps[source["configMapRef"]["name"]].keys()
        for name in names:
            assert name in declared, f"$({name}) is not among the container's variables {declared}"
            text = text.replace(f"$({name})", self.environment[name])
        return text

    def localize(self, text, mounts, changes):
        # Longest first, and all at once: what is put in has such names too.
        names = "|".join(re.escape(mount) for mount in sorted(mounts, key=len, reverse=True))
        text = re.sub(rf"(?<![\w/.])({names})(?![\w-])", lambda found: str(mounts[found.group(1)]), text)
        text = text.replace("0.0.0.0:", f"{ADDRESS}:").replace("127.0.0.1:", f"{ADDRESS}:")
        text = re.sub(r"pricer(-headless)?(\.pricer\.svc)?:8500", f"{ADDRESS}:8500", text)
        for pattern, replacement in changes.items():
            text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        return text

    def command_line(self, container, changes=None):
        changes = changes or {}
        mounts = self.mounts(container)
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "configMap" not in volume:
                continue
            path = self.folder / f"{container['name']}-{volume['name']}"
            path.mkdir(exist_ok=True)
            for file, text in self.config_maps[volume["configMap"]["name"]].items():
                (path / file).write_text(self.localize(text, mounts, changes), encoding="utf-8")
            mounts[mount["mountPath"]] = path
        command = container.get("command") or ENTRYPOINTS[image_name(container)]
        # What a variable stands for is a place here already.
        arguments = [self.localize(str(argument), mounts, changes) for argument in container.get("args", [])]
        return command + [self.expand(argument, container) for argument in arguments]


class ManifestsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="manifests.")
        cls.addClassCleanup(cls.directory.cleanup)
        cls.folder = pathlib.Path(cls.directory.name)
        cls.programs = Programs(OPTIONS.build)
        cls.world = World(cls.programs, cls.folder, versions=(1,))
        cls.adapters = cls.folder / "adapters"
        (cls.adapters / "shop").mkdir(parents=True)
        cls.world.publish(1, cls.adapters)
        cls.programs.run("pricer", "adapters", "label", "shop", "stable", 1, "--adapters", cls.adapters)
        for folder in ("data", "results", "runs", "tls", "tokens"):
            (cls.folder / folder).mkdir(exist_ok=True)
        for split in ("train", "validation"):
            (cls.folder / "data" / f"{split}.jsonl").write_text((cls.world.catalog / f"{split}.jsonl").read_text())
        for name in ("sample", "items"):
            (cls.folder / "data" / f"{name}.jsonl").write_text((cls.world.catalog / "validation.jsonl").read_text())
        cls.volumes = {
            "pricer-base": cls.world.base, "pricer-adapters": cls.adapters, "pricer-data": cls.folder / "data",
            "pricer-results": cls.folder / "results", "pricer-runs": cls.folder / "runs", "pricer-tls": cls.folder / "tls",
            "pricer-tokens": cls.folder / "tokens",
        }
        cls.make_secrets()

    @classmethod
    def make_secrets(cls):
        tls = cls.folder / "tls"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
             "-keyout", tls / "tls.key", "-out", tls / "tls.crt", "-subj", "/CN=pricer", "-addext",
             f"subjectAltName=IP:{ADDRESS}"], check=True, capture_output=True)
        (tls / "ca.crt").write_text((tls / "tls.crt").read_text())
        tokens = cls.folder / "tokens"
        secrets = {name: f"{name}-" + "s" * 32 for name in ("job", "metrics")}
        (tokens / "tokens.json").write_text(json.dumps({"tokens": [
            {"name": "job", "secret": secrets["job"], "permissions": ["predict"]},
            {"name": "metrics", "secret": secrets["metrics"], "permissions": ["metrics"]}]}))
        for name, secret in secrets.items():
            (tokens / name).write_text(secret)

    def scratch(self):
        directory = tempfile.TemporaryDirectory(prefix="pod.", dir=self.folder)
        self.addCleanup(directory.cleanup)
        return directory.name

    def pod(self, spec, manifests, environment=None):
        return Pod(spec, manifests, self.scratch(), self.volumes, environment)

    def run_container(self, pod, container, changes=None, more=(), environment=None):
        command = pod.command_line(container, changes) + list(more)
        return self.programs.run(*command, environment={**pod.environment, **(environment or {})})

    def start_server(self, pod, container):
        """As its manifest says, but on the CPU; its probes answer."""
        command = pod.command_line(container, {r"^cuda$": "cpu"})
        self.assertIn("base=", self.programs.run(*command, "--check-config"))
        server = Server(self.programs, pathlib.Path(pod.folder) / "server.log", command[1:], ADDRESS)
        with open(server.log, "w", encoding="utf-8") as output:
            server.process = self.programs.start(*command, output=output)
        self.addCleanup(kill, server.process)
        server.wait_for_line("serving", 120)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            grpc = container[probe]["grpc"]
            self.programs.run("pricer", "health", "--server", f"{ADDRESS}:{grpc['port']}", "--service", grpc["service"])
        return server

    def server_of(self, manifests, runs_jobs=None):
        deployment = find(manifests, "Deployment", "pricer-server")
        pod = self.pod(deployment["spec"]["template"]["spec"], manifests)
        server = self.start_server(pod, pod.spec["containers"][0])
        if runs_jobs is not None:
            runs_jobs()
        server.stop(signal.SIGTERM)
        return deployment

    def nightly(self, manifests):
        job = find(manifests, "CronJob", "pricer-nightly")["spec"]["jobTemplate"]["spec"]
        results = self.folder / "results" / "night-1"
        for index in range(job["completions"]):
            pod = self.pod(job["template"]["spec"], manifests, {"JOB_NAME": "night-1"})
            self.run_container(pod, pod.spec["containers"][0], environment={"JOB_COMPLETION_INDEX": str(index)})
            self.assertEqual((results / "prices.jsonl").exists(), index == job["completions"] - 1)
        rows = [json.loads(line) for line in (results / "prices.jsonl").read_text().splitlines()]
        items = [json.loads(line) for line in (self.folder / "data" / "items.jsonl").read_text().splitlines()]
        self.assertEqual([row["id"] for row in rows], [item["id"] for item in items])
        self.assertEqual({row["error"] for row in rows}, {None})
        for file in results.iterdir():
            file.unlink()

    def tune(self, manifests):
        job = find(manifests, "Job", "pricer-tune")
        pod = self.pod(job["spec"]["template"]["spec"], manifests, {"JOB_UID": f"uid-{manifests}", **self.store_environment(manifests)})
        short = {r'^device = "cuda"$': "", r'^hold = ".*"$': 'hold = "1s"', r"^replicas = \d+$": "replicas = 1",
                 r"^max-far-share = .*$": "max-far-share = 1", "^epochs = 1$": ""}
        for _ in range(2):  # the second pod of a job finds the run published
            self.run_container(pod, named(pod, "tune"), short, TUNING)
        said = self.run_container(pod, pod.spec["containers"][0], short)
        newest = max(int(path.name) for path in (self.adapters / "shop").iterdir() if path.name.isdigit())
        self.assertIn(f"stable is version {newest}", said)
        labels = json.loads((self.adapters / "shop" / "labels.json").read_text())
        self.assertEqual(labels["labels"], {"stable": newest})

    def test_servers_on_cpus_answer_their_probes_and_serve_the_jobs(self):
        self.server_of("cpu", lambda: (self.jobs("nightly", "tune")))

    def jobs(self, nightly, tune):
        self.nightly(nightly)
        self.tune(tune)

    def test_servers_on_gpus_answer_their_probes(self):
        self.server_of("gpu")

    def test_with_tls_and_tokens_servers_and_jobs_know_each_other(self):
        self.server_of("full", lambda: self.jobs("full", "full-tune"))

    def test_stable_is_rolled_back_by_a_job(self):
        labels = self.adapters / "shop" / "labels.json"
        before = labels.read_text()
        self.addCleanup(labels.write_text, before)
        self.programs.run("pricer", "adapters", "label", "shop", "canary", 1, "--adapters", self.adapters)
        self.programs.run("pricer", "adapters", "label", "shop", "canary", 1, "--percent", 50, "--adapters", self.adapters)
        pod = self.pod(find("roll-back", "Job")["spec"]["template"]["spec"], "roll-back")
        container = dict(pod.spec["containers"][0])
        container["args"] = [{"stable": "canary"}.get(argument, argument) for argument in container["args"]]
        self.assertIn("rolled back", self.run_container(pod, container))
        self.assertEqual(json.loads(labels.read_text())["labels"]["canary"], 1)

    def test_the_server_of_kserve_answers_its_probes(self):
        runtime = find("kserve", "ServingRuntime")
        spec = runtime["spec"]
        container = dict(spec["containers"][0])
        claim = find("kserve", "InferenceService")["spec"]["predictor"]["model"]["storageUri"]
        # KServe's own part: what storageUri names is at /mnt/models.
        container["volumeMounts"] = container["volumeMounts"] + [{"name": "model", "mountPath": "/mnt/models"}]
        volumes = spec["volumes"] + [{"name": "model", "persistentVolumeClaim": {"claimName": claim.removeprefix("pvc://")}}]
        pod = self.pod({**spec, "volumes": volumes}, "kserve")
        self.start_server(pod, container).stop()

    def test_ranks_of_the_distributed_job_tune_together(self):
        job = find("tune-distributed", "PyTorchJob")["spec"]["pytorchReplicaSpecs"]
        world_size = sum(replicas["replicas"] for replicas in job.values())
        ranks = []
        for name in ("Master", "Worker"):
            spec = job[name]["template"]["spec"]
            self.assertEqual(spec["containers"][0]["name"], "pytorch")  # what the operator looks for
            for _ in range(job[name]["replicas"]):
                pod = self.pod(spec, "tune-distributed", {"JOB_NAME": "ranks-1"})
                command = pod.command_line(spec["containers"][0], {r'^device = "cuda"$': "", "^epochs = 1$": "", "name = .*": 'name = "ranks"'})
                # As the operator sets them.
                environment = {"RANK": str(len(ranks)), "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1",
                               "MASTER_PORT": "23456"}
                ranks.append(self.programs.start(*command, *TUNING, environment=environment))
        self.assertEqual([rank.wait(300) for rank in ranks], [0] * world_size)
        self.assertTrue((self.adapters / "ranks" / "1" / "_READY").exists())

    def store_environment(self, manifests):
        """Where a store of adapters is used, a folder stands in for it: tests/objects has a real one."""
        maps = [d["data"] for d in documents(manifests) if d["kind"] == "ConfigMap" and d["metadata"]["name"].startswith("pricer-adapter-store")]
        if not maps:
            return {}
        self.assertTrue(maps[0]["ADAPTER_STORE"].startswith("s3://"))
        store = self.folder / "store"
        store.mkdir(exist_ok=True)
        return {"ADAPTER_STORE": str(store)}

    def wait_for_version(self, version, seconds=30):
        """That the server answers by."""
        end = time.monotonic() + seconds
        while True:
            said = self.programs.run("pricer", "price", "--json", "--server", f"{ADDRESS}:8500", "--adapter", "shop", "--title", "pan")
            answered = json.loads(said)["served_by"]["version"]
            if int(answered) == version:
                return
            self.assertLess(time.monotonic(), end, f"answered by {answered}, expected {version}")
            time.sleep(0.2)

    @contextlib.contextmanager
    def sidecars(self, pod):
        """Beside what is run inside; told to stop after it, as by the kubelet."""
        running = []
        for container in pod.spec.get("initContainers", []):
            if container.get("restartPolicy") == "Always":
                log = pathlib.Path(pod.folder) / f"{container['name']}.log"
                with open(log, "w", encoding="utf-8") as output:
                    running.append(self.programs.start(*pod.command_line(container, {"^10s$": "1s"}), output=output))
                self.addCleanup(kill, running[-1])
        yield
        for process in running:
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(30), 0)

    def test_servers_follow_a_store_of_adapters(self):
        labels = self.adapters / "shop" / "labels.json"
        before = labels.read_text()
        self.addCleanup(labels.write_text, before)
        environment = self.store_environment("object-store")
        self.programs.run("pricer", "adapters", "sync", self.adapters, environment["ADAPTER_STORE"])
        pod = self.pod(find("object-store", "Deployment")["spec"]["template"]["spec"], "object-store", environment)
        self.run_container(pod, named(pod, "fetch"))
        with self.sidecars(pod):
            server = self.start_server(pod, named(pod, "server"))
            self.tune("object-store-tune")  # which waits until the servers answer by the new version
            job = self.pod(find("object-store-roll-back", "Job")["spec"]["template"]["spec"], "object-store-roll-back",
                           environment)
            self.run_container(job, named(job, "roll-back"))
            self.run_container(job, named(job, "push"))
            self.wait_for_version(json.loads(before)["labels"]["stable"])
        server.stop()

    def test_every_option_of_the_server_is_in_its_config_map(self):
        config = (ROOT / "deploy/base/config/server.toml").read_text()
        named = set(re.findall(r"^(?:# )?([a-z0-9-]+) = ", config, flags=re.MULTILINE))
        help_text = self.programs.run("pricer-server", "--help")
        options = set(re.findall(r"^ +--([a-z0-9-]+)", help_text, flags=re.MULTILINE)) - {"version", "config", "check-config"}
        self.assertEqual(named, options)

    def test_grace_periods_fit_into_each_other(self):
        spec = find("cpu", "Deployment")["spec"]["template"]["spec"]
        config = next(iter(d for d in documents("cpu") if d["kind"] == "ConfigMap"))["data"]["server.toml"]
        grace = int(re.search(r'^grace-period = "(\d+)s"', config, flags=re.MULTILINE).group(1))
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        self.assertGreater(spec["terminationGracePeriodSeconds"], grace + pause)

    def test_selectors_find_the_pods(self):
        for name in ("cpu", "gpu", "full"):
            labels = find(name, "Deployment")["spec"]["template"]["metadata"]["labels"]
            selectors = [find(name, "Deployment")["spec"]["selector"]["matchLabels"],
                         find(name, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
                         find(name, "NetworkPolicy", "pricer-server")["spec"]["podSelector"]["matchLabels"],
                         find(name, "Service", "pricer")["spec"]["selector"],
                         find(name, "Service", "pricer-headless")["spec"]["selector"]]
            for selector in selectors:
                self.assertLessEqual(selector.items(), labels.items(), name)
        # Jobs may call the servers, and are let out to them.
        jobs = [find("nightly", "CronJob")["spec"]["jobTemplate"]["spec"]["template"], find("tune", "Job")["spec"]["template"]]
        policies = {d["metadata"]["name"]: d["spec"] for d in documents("cpu") if d["kind"] == "NetworkPolicy"}
        for job in jobs:
            labels = job["metadata"]["labels"].items()
            caller = policies["pricer-server"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
            self.assertLessEqual(caller.items(), labels)
            self.assertLessEqual(policies["pricer-jobs"]["podSelector"]["matchLabels"].items(), labels)
        monitor = find("full", "ServiceMonitor")["spec"]["selector"]["matchLabels"]
        self.assertLessEqual(monitor.items(), find("full", "Service", "pricer-headless")["metadata"]["labels"].items())

    def test_what_servers_are_scaled_by_is_recorded(self):
        rules = (ROOT / "deploy/monitoring/rules.yaml").read_text()
        recorded = set(re.findall(r"record: (\S+)", rules))
        query = find("full", "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
        self.assertEqual(set(re.findall(r"pricer:[a-z0-9_:]+", query)), recorded)
        # promtool's test is of this very query.
        self.assertIn(f"expr: {query}\n", (ROOT / "deploy/monitoring/rules_test.yaml").read_text())
        adapter = yaml.safe_load((ROOT / "deploy/components/hpa/prometheus_adapter_rule.yaml").read_text())
        self.assertEqual({rule["seriesQuery"].split("{")[0] for rule in adapter}, recorded)
        metric = find("hpa", "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
        self.assertEqual([rule["name"]["as"] for rule in adapter], [metric])
        # A number of replicas beside an autoscaler would be put back by each apply.
        for name in ("full", "hpa"):
            self.assertNotIn("replicas", find(name, "Deployment")["spec"])

    def test_all_of_it_is_in_one_namespace(self):
        for path in pathlib.Path(OPTIONS.manifests).glob("*.yaml"):
            for document in documents(path.stem):
                if document["kind"] != "Namespace":
                    self.assertEqual(document["metadata"].get("namespace"), "pricer", f"{path.stem}: {document['kind']}")

    def test_no_container_may_more_than_it_needs(self):
        for path in pathlib.Path(OPTIONS.manifests).glob("*.yaml"):
            name = path.stem
            for pod in pod_specs(documents(name)):
                context = {**pod.get("securityContext", {}), **pod["containers"][0]["securityContext"]}
                self.assertTrue(context["runAsNonRoot"], name)
                self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"}, name)
            for container in containers(documents(name)):
                security = container["securityContext"]
                where = f"{name}: {container['name']}"
                self.assertTrue(security["readOnlyRootFilesystem"], where)
                self.assertFalse(security["allowPrivilegeEscalation"], where)
                self.assertEqual(security["capabilities"], {"drop": ["ALL"]}, where)
                self.assertIn("memory", container["resources"]["limits"], where)
                self.assertRegex(container["image"], r"^[a-z.]+/[a-z-]+:\d", where)


def kill(process):
    if process.poll() is None:
        process.kill()
        process.wait()


def named(pod, name):
    return next(c for c in pod.spec.get("initContainers", []) + pod.spec["containers"] if c["name"] == name)


def containers(node):
    """All of them, wherever they are."""
    if isinstance(node, list):
        return [container for child in node for container in containers(child)]
    if not isinstance(node, dict):
        return []
    found = []
    for key, child in node.items():
        found += child if key in ("containers", "initContainers") else containers(child)
    return found


def pod_specs(node):
    """Whatever has containers."""
    if isinstance(node, list):
        return [spec for child in node for spec in pod_specs(child)]
    if not isinstance(node, dict):
        return []
    return ([node] if "containers" in node else []) + [spec for child in node.values() for spec in pod_specs(child)]


def main():
    global OPTIONS  # unittest makes its cases itself
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--manifests", required=True)
    OPTIONS, rest = parser.parse_known_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Pre-training as a user runs it: `gvsl jobs` and examples/python/pretrain.py against a real gvsld and its
gvsl-trainer, on phantoms, with a tiny network on the CPU."""
import json
import pathlib
import re
import struct
import subprocess
import tempfile
import unittest

from service import BIN, Service, until

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUICK = ROOT / "examples/jobs/quick-mr-cpu.textproto"
# Seconds instead of minutes; every second step is told.
SMALL = ["data.crop=32", "network.card.spacing_mm=6,6,6", "upkeep.report_every=2", "upkeep.checkpoint_every=10"]


def steps_of(lines):
    return [int(match[1]) for line in lines if (match := re.match(r"step (\d+) of ", line))]


class JobsCli(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name)
        cls.service = Service().start()
        cls.addClassCleanup(cls.service.close)
        cls.service.must("phantoms", "make", "--count", 4, "--size", "48,48,40", "--spacing", "6,6,8", "-o",
                         cls.folder / "phantoms")
        images = sorted((cls.folder / "phantoms").glob("*image.nii.gz"))
        stored = cls.service.must("--json", "volumes", "import", "--modality", "MR", *images).json()["volumes"]
        cls.volumes = [volume["name"] for volume in stored]

    def settings(self, steps, *more):
        words = []
        for setting in [*SMALL, f"optimization.steps={steps}", *more]:
            words += ["--set", setting]
        return words

    def submit(self, steps, *more):
        """The name of a new job."""
        return self.service.must("--json", "jobs", "submit", QUICK, *self.settings(steps, *more)).json()["name"]

    def show(self, job):
        return self.service.must("--json", "jobs", "show", job).json()

    def spawn(self, *command):
        """A program whose output grows in a file."""
        path = self.folder / f"output{len(list(self.folder.iterdir()))}"
        with open(path, "w") as out, open(f"{path}.error", "w") as error:
            process = subprocess.Popen([str(word) for word in command], env=self.service.environment(), stdout=out,
                                       stderr=error)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, path

    def ended(self, process, path):
        code = process.wait(timeout=300)
        return code, path.read_text().splitlines(), pathlib.Path(f"{path}.error").read_text()

    def test_the_quick_example_trains_a_model_that_extracts_features(self):
        result = self.service.must("jobs", "submit", QUICK, *self.settings(20), "--name", "quick", "--watch")
        lines = result.out.splitlines()
        self.assertEqual(steps_of(lines), [1, *range(2, 21, 2)], result.out)
        self.assertTrue(any(line.startswith("checkpoint at step 10") for line in lines), result.out)
        job, model = re.search(r"^(jobs/\S+) has succeeded: (models/\S+)$", result.out, re.M).groups()

        record = self.show(job.removeprefix("jobs/"))
        self.assertEqual((record["state"], record["step"], record["model"]), ("SUCCEEDED", "20", model))
        self.assertEqual(record["trainingVolumeCount"], 4)
        self.assertEqual(self.service.must("--json", "models", "show", model).json()["displayName"], "quick")
        self.service.must("features", "global", self.volumes[0], "--model", model, "-o", self.folder / "global.npy")
        self.assertIn(job, self.service.must("jobs", "list", "--filter", "state = SUCCEEDED").out)

        # What it told is there to be asked for again: as JSON, one document a line.
        told = [json.loads(line) for line in self.service.must("--json", "jobs", "watch", job).out.splitlines()]
        self.assertEqual(told[0]["job"]["name"], job)
        sequences = [int(part["event"]["sequence"]) for part in told if "event" in part]
        self.assertEqual(sequences, list(range(1, len(sequences) + 1)))
        after = self.service.must("jobs", "watch", job, "--after", sequences[-2]).out.splitlines()
        self.assertEqual(len(after), 2, after)  # the state and the last event

        picture = self.folder / "losses.png"
        self.service.must("jobs", "plot", job, "-o", picture)
        content = picture.read_bytes()
        self.assertEqual(content[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(struct.unpack(">II", content[16:24]), (1200, 720))

        files = self.service.must("--json", "jobs", "artifacts", job).json()["artifacts"]
        sizes = {file["path"]: int(file["sizeBytes"]) for file in files}
        self.assertIn("last.safetensors", sizes)
        self.assertIn("checkpoints/step-000000020.safetensors", sizes)
        for path in ["last.safetensors", "checkpoints/step-000000020.safetensors"]:
            out = self.folder / "downloaded.safetensors"
            self.service.must("jobs", "download", job, path, "-o", out)
            self.assertEqual(out.stat().st_size, sizes[path])
        self.assertEqual(self.service.gvsl("jobs", "download", job, "../metadata.sqlite", "-o", out).code, 1)

        log = self.service.must("jobs", "logs", job).out
        self.assertEqual(self.service.must("jobs", "logs", job, "--follow").out, log)

        self.service.must("jobs", "delete", job)
        self.assertEqual(self.service.gvsl("jobs", "show", job).code, 1)
        self.service.must("models", "show", model)

    def test_held_out_volumes_are_validated_and_the_best_is_named(self):
        # By name: the filter would take the held-out ones for training as well.
        result = self.service.must(
            "jobs", "submit", QUICK, *self.settings(10, "data.filter=", "data.volumes=" + ",".join(self.volumes[:2]),
                                                    "data.validation_volumes=" + ",".join(self.volumes[2:]),
                                                    "upkeep.validate_every=5"), "--watch")
        self.assertEqual(re.findall(r"^validation at step (\d+) ", result.out, re.M), ["5", "10"], result.out)
        job = re.search(r"^(jobs/\S+) has succeeded", result.out, re.M)[1]
        self.assertIn(self.show(job)["bestValidation"]["step"], ("5", "10"))

    def test_a_dry_run_estimates_and_queues_nothing(self):
        before = self.service.must("jobs", "list").out
        result = self.service.must("jobs", "submit", QUICK, *self.settings(20), "--dry_run")
        self.assertIn("estimate", result.out)
        self.assertIn("spatial_probability: 1", result.out)  # a default, filled in
        self.assertEqual(self.service.must("jobs", "list").out, before)

    def test_a_wrong_spec_is_refused_with_the_fields_that_are_wrong(self):
        for settings, words in ((["data.crop=40"], ["data.crop"]),
                                (["data.filter=modality = \"US\""], ["data"]),
                                (["data.filter=", "data.volumes=volumes/unknown"], ["volumes/unknown"]),
                                (["optimization.learning_rate=-1"], ["learning_rate"])):
            result = self.service.gvsl("jobs", "submit", QUICK, *self.settings(20, *settings))
            self.assertEqual(result.code, 1, settings)
            for word in words:
                self.assertIn(word, result.error)
        bad = self.folder / "bad.textproto"
        bad.write_text("data {\n  crop: 32\n  cropp: 3\n}\n")
        result = self.service.gvsl("jobs", "submit", bad)
        self.assertEqual(result.code, 1)
        self.assertIn("bad.textproto: line 3: data.cropp", result.error)
        self.assertEqual(self.service.gvsl("jobs", "submit", QUICK, "--set", "data.cropp=3").code, 2)

    def test_submitting_again_with_the_same_request_id_gives_the_same_job(self):
        words = ["--json", "jobs", "submit", QUICK, *self.settings(2), "--request_id", "once"]
        first, second = self.service.must(*words).json(), self.service.must(*words).json()
        self.assertEqual(first["name"], second["name"])
        self.service.must("jobs", "watch", first["name"])

    def test_a_cancelled_job_goes_on_where_it_was(self):
        job = self.submit(400)
        until(lambda: int(self.show(job)["step"]) >= 4, 120)
        refused = self.service.gvsl("--json", "jobs", "delete", job)
        self.assertEqual((refused.code, refused.json()["details"][0]["reason"]), (1, "JOB_RUNNING"))
        self.assertIn("cancelled", self.service.must("jobs", "cancel", job, "--wait").out)
        stopped = int(self.show(job)["step"])
        self.assertLess(stopped, 400)
        watched = self.service.gvsl("jobs", "watch", job)
        self.assertEqual(watched.code, 1)
        self.assertIn("gvsl jobs resume " + job, watched.error)
        self.service.must("jobs", "plot", job, "-o", self.folder / "cancelled.png")

        process, path = self.spawn(BIN / "gvsl", "jobs", "resume", job, "--watch")
        until(lambda: len(steps_of(path.read_text().splitlines())) >= 2, 120)
        self.service.must("jobs", "plot", job, "-o", self.folder / "running.png")
        self.service.must("jobs", "cancel", job, "--wait")
        code, lines, error = self.ended(process, path)
        self.assertEqual(code, 1, error)
        self.assertTrue(any(line.startswith("goes on from step ") for line in lines), lines)
        self.assertGreaterEqual(steps_of(lines)[0], stopped)
        self.service.must("jobs", "delete", job)

    def test_a_watch_goes_on_over_the_death_of_the_server(self):
        job = self.submit(100)
        process, path = self.spawn(BIN / "gvsl", "jobs", "watch", job)
        for _ in range(2):
            told = len(steps_of(path.read_text().splitlines()))
            until(lambda: len(steps_of(path.read_text().splitlines())) > told, 120)
            self.service.restart()
        code, lines, error = self.ended(process, path)
        self.assertEqual(code, 0, error)
        self.assertEqual(steps_of(lines), [1, *range(2, 101, 2)])  # each once

    def pretrain(self, *arguments):
        return self.spawn("/usr/bin/python3", ROOT / "examples/python/pretrain.py", *arguments)

    def test_pretrain_py_follows_its_job_over_the_death_of_the_server(self):
        spec = self.folder / "python.textproto"
        spec.write_text(self.service.must("jobs", "submit", QUICK, *self.settings(60), "--dry_run").out
                        .split("\n\n", 1)[1])
        process, path = self.pretrain(spec, "--server", self.service.address, "--name", "python")
        until(lambda: len(steps_of(path.read_text().splitlines())) >= 2, 120)
        self.service.restart()
        code, lines, error = self.ended(process, path)
        self.assertEqual(code, 0, error)
        self.assertEqual(steps_of(lines), [1, *range(2, 61, 2)])
        model = re.search(r"has made (models/\S+)", lines[-1])[1]
        self.assertEqual(self.service.must("--json", "models", "show", model).json()["displayName"], "python")

    def test_pretrain_py_says_what_is_wrong(self):
        bad = self.folder / "worse.textproto"
        bad.write_text("data {\n  cropp: 3\n}\n")
        for arguments, code, words in (
                ([bad], 1, "worse.textproto: line 2"), ([self.folder / "absent"], 1, "cannot read"),
                ([QUICK, "--server", "127.0.0.1:1"], 1, "is it running?"),
                (["--job", "unknown", "--server", self.service.address], 1, "NOT_FOUND"),
                ([QUICK, "--proto", self.folder], 1, "--proto"), ([], 2, "usage")):
            result = self.ended(*self.pretrain(*arguments))
            self.assertEqual(result[0], code, arguments)
            self.assertIn(words, result[2])
            self.assertNotIn("Traceback", result[2])


if __name__ == "__main__":
    unittest.main(verbosity=2)

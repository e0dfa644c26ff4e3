#!/usr/bin/python3
"""gvsl-trainer as a process: a job's folder (docs/adr/0006-job-folder.md) from its first start to its end, over
kills, signals, a full disk and several ranks."""
import hashlib
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import tempfile
import time
import unittest

import numpy

BIN = pathlib.Path(os.environ.get("GVSL_BIN_DIR", "build/bin"))
SIDE = 32


def crc32c(data):
    """CRC-32C by its definition, slowly: independent of the program's."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


class Trainer(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.random = random.Random(7)
        self.volumes = [self.volume(i) for i in range(6)]

    def volume(self, number):
        """A task's volume of blobs that lie a little differently in each."""
        noise = numpy.random.default_rng(number)
        grid = numpy.stack(numpy.meshgrid(*[numpy.arange(SIDE)] * 3, indexing="ij"))
        voxels = noise.integers(0, 20, (SIDE,) * 3).astype(numpy.float64)
        for base, height in (((10, 10, 12), 500), ((20, 18, 22), 800), ((12, 22, 8), 300)):
            centre = numpy.array(base) + noise.uniform(-2, 2, 3)
            voxels += height * numpy.exp(-((grid - centre[:, None, None, None]) ** 2).sum(0) / 40)
        raw = voxels.astype("<i2").tobytes()
        path = self.folder / f"voxels{number}"
        path.write_bytes(raw)
        return (f'name: "volumes/{number}" path: "{path}" voxels_sha256: "{hashlib.sha256(raw).hexdigest()}" '
                f"grid {{ size: [{SIDE}, {SIDE}, {SIDE}] spacing_mm: [1, 1, 1] origin_mm: [0, 0, 0] "
                "direction: [1, 0, 0, 0, 1, 0, 0, 0, 1] } voxel_type: INT16 modality: \"MR\"")

    def job(self, name, steps=8, optimization="", upkeep="checkpoint_every: 2", folder=None):
        """A job's folder, ready to start."""
        job = (folder or self.folder) / name
        job.mkdir()
        lines = [f'job: "jobs/{name}"',
                 "spec {",
                 f"  data {{ crop: {SIDE} }}",
                 '  network { size: "tiny" card { orientation: "LPS" spacing_mm: [1, 1, 1] '
                 "other { method: MIN_MAX } ct { method: WINDOW high: 2048 } } }",
                 f"  optimization {{ steps: {steps} learning_rate: 1e-3 seed: 5 {optimization} }}",
                 f"  upkeep {{ report_every: 1 validate_every: 4 validation_pairs: 2 {upkeep} }}",
                 "}",
                 f'cache_dir: "{self.folder}/cache"',
                 'data_sha256: "abc" device: "cpu" threads: 1']
        lines += [f"training {{ {volume} }}" for volume in self.volumes[:4]]
        lines += [f"validation {{ {volume} }}" for volume in self.volumes[4:]]
        (job / "task.textproto").write_text("\n".join(lines) + "\n")
        return job

    def spawn(self, job):
        with open(job / "log.txt", "ab") as log:
            process = subprocess.Popen([BIN / "gvsl-trainer", job], stdout=log, stderr=log)
        self.addCleanup(process.kill)
        return process

    def run_job(self, job, code=0):
        process = self.spawn(job)
        self.assertEqual(process.wait(timeout=300), code, (job / "log.txt").read_text())

    def events(self, job):
        path = job / "events.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def losses(self, job):
        """By step; of a step that was told twice, both."""
        told = {}
        for event in self.events(job):
            if "step" in event:
                step = event["step"]
                told.setdefault(int(step["step"]), set()).add(step["losses"]["total"])
        return told

    def until_step(self, job, process, step):
        while process.poll() is None and max(self.losses(job), default=0) < step:
            time.sleep(0.02)

    def test_runs_a_job_to_its_model(self):
        job = self.job("whole")
        self.run_job(job)
        events = self.events(job)
        self.assertEqual([int(event["sequence"]) for event in events], list(range(1, len(events) + 1)))
        self.assertIn("started", events[0])
        ended = events[-1]["ended"]
        self.assertEqual((ended["outcome"], ended["step"], ended["model"]), ("SUCCEEDED", "8", "best.safetensors"))
        self.assertEqual(set(self.losses(job)), set(range(1, 9)))
        self.assertEqual(sorted(path.name for path in (job / "checkpoints").iterdir()),
                         [f"step-00000000{step}.safetensors" for step in (4, 6, 8)])
        self.assertTrue(list((job / "pictures").glob("step-000000008.png")))
        raw = (job / ended["model"]).read_bytes()
        size, = struct.unpack("<Q", raw[:8])
        metadata = json.loads(raw[8:8 + size])["__metadata__"]
        card = next(json.loads(value) for value in metadata.values() if value.startswith("{"))
        self.assertEqual((card["geometry"], card["crop"]), ("corrected", SIDE))
        provenance = json.loads(card["provenance"])
        self.assertEqual((provenance["job"], provenance["data_sha256"]), ("jobs/whole", "abc"))
        self.assertIn("validation", provenance)

    def test_writes_tensorboard_files_whose_checksums_hold(self):
        job = self.job("board", steps=4)
        self.run_job(job)
        path, = (job / "tensorboard").iterdir()
        self.assertIn("tfevents", path.name)
        raw = path.read_bytes()

        def masked(data):
            value = crc32c(data)
            return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF

        at, records = 0, []
        while at < len(raw):
            length, length_crc = struct.unpack("<QI", raw[at:at + 12])
            data = raw[at + 12:at + 12 + length]
            data_crc, = struct.unpack("<I", raw[at + 12 + length:at + 16 + length])
            self.assertEqual((masked(raw[at:at + 8]), masked(data)), (length_crc, data_crc))
            records.append(data)
            at += 16 + length
        self.assertIn(b"brain.Event:2", records[0])
        self.assertTrue(any(b"training/similarity" in record for record in records))
        self.assertTrue(any(b"\x89PNG" in record for record in records))

    def test_a_job_killed_at_any_moment_gives_the_losses_of_one_that_was_not(self):
        straight = self.job("straight", steps=10)
        self.run_job(straight)
        killed = self.job("killed", steps=10)
        for step in (3, 6):
            process = self.spawn(killed)
            self.until_step(killed, process, step)
            time.sleep(self.random.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            self.assertEqual(process.wait(), -signal.SIGKILL, "it was to be killed before its end")
        self.run_job(killed)
        starts = [int(event["started"].get("step", 0)) for event in self.events(killed) if "started" in event]
        self.assertEqual(len(starts), 3)
        self.assertEqual(starts, sorted(starts))
        self.assertGreater(starts[1], 0, "it went on from a checkpoint")
        self.assertEqual(self.losses(killed), self.losses(straight))
        self.assertEqual((killed / "last.safetensors").read_bytes()[-1000:],
                         (straight / "last.safetensors").read_bytes()[-1000:])
        numbers = [int(event["sequence"]) for event in self.events(killed)]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))

    def test_deletes_what_a_killed_process_was_writing(self):
        job = self.job("leftovers", steps=2)
        (job / "checkpoints").mkdir()
        left = [job / "best.safetensors.part-AbCd12", job / "checkpoints/step-000000002.safetensors.part-AbCd12"]
        for path in left:
            path.write_bytes(b"half a file")
        self.run_job(job)
        self.assertFalse([path for path in left if path.exists()])

    def test_goes_on_with_the_volumes_that_it_began_with_or_says_so(self):
        job = self.job("modality", steps=500)
        process = self.spawn(job)
        self.until_step(job, process, 3)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)
        stopped = self.events(job)[-1]["ended"]
        task = job / "task.textproto"
        task.write_text(task.read_text().replace('modality: "MR"', 'modality: "CT"', 1))
        self.run_job(job, code=1)
        ended = self.events(job)[-1]["ended"]
        self.assertIn("modality", ended["message"])
        self.assertEqual((ended["outcome"], ended["step"]), ("FAILED", stopped["step"]))

    def test_keeps_the_last_step_when_it_is_told_to_stop(self):
        job = self.job("stopped", steps=500, upkeep="checkpoint_every: 1000")
        process = self.spawn(job)
        self.until_step(job, process, 3)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)
        last = self.events(job)[-1]["ended"]
        self.assertEqual(last["outcome"], "STOPPED")
        self.assertGreaterEqual(int(last["step"]), 3)
        self.assertTrue((job / "checkpoints" / f"step-{int(last['step']):09d}.safetensors").exists())
        process = self.spawn(job)
        self.until_step(job, process, int(last["step"]) + 1)
        process.kill()
        starts = [event["started"] for event in self.events(job) if "started" in event]
        self.assertEqual(starts[1]["step"], last["step"])

    def test_lets_one_process_alone_work_in_a_folder(self):
        job = self.job("locked", steps=500)
        process = self.spawn(job)
        self.until_step(job, process, 1)
        before = len(self.events(job))
        second = subprocess.run([BIN / "gvsl-trainer", job], capture_output=True, text=True, timeout=60)
        self.assertEqual(second.returncode, 3)
        self.assertIn("at work", second.stderr)
        self.assertIsNone(process.poll())
        self.assertGreaterEqual(len(self.events(job)), before)

    def test_cuts_off_half_a_line_that_a_crash_has_left(self):
        job = self.job("cut", steps=2)
        (job / "events.jsonl").write_text('{"sequence":"1","time":"2026-01-01T00:00:00Z","warning":{}}\n{"sequ')
        self.run_job(job)
        events = self.events(job)
        self.assertEqual([int(event["sequence"]) for event in events], list(range(1, len(events) + 1)))
        self.assertIn("started", events[1])

    def test_two_ranks_take_the_steps_of_one_with_the_whole_batch(self):
        one = self.job("one", steps=4, optimization="batch_size: 4")
        two = self.job("two", steps=4, optimization="batch_size: 4 world_size: 2")
        self.run_job(one)
        self.run_job(two)
        for step, (expected,) in self.losses(one).items():
            value, = self.losses(two)[step]
            # Sums in another order; Adam divides small gradients by their own size, which amplifies.
            self.assertLess(abs(value - expected), 1e-5 if step == 1 else 2e-3, f"step {step}")

    def test_four_ranks_find_each_other(self):
        job = self.job("four", steps=2, optimization="batch_size: 4 world_size: 4")
        self.run_job(job)
        self.assertEqual(set(self.losses(job)), {1, 2})
        self.assertFalse((job / ".ranks").exists())

    def children(self, process):
        return pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

    def test_a_rank_that_dies_before_they_have_met_ends_the_job_for_another_try(self):
        job = self.job("early", steps=500, optimization="batch_size: 2 world_size: 2")
        process = self.spawn(job)
        while process.poll() is None and not self.children(process):
            time.sleep(0.001)
        os.kill(int(self.children(process)[0]), signal.SIGKILL)
        self.assertEqual(process.wait(timeout=60), 1, "it waits for nobody who cannot come")
        ended = self.events(job)[-1]["ended"]
        self.assertEqual((ended["outcome"], ended["retryable"]), ("FAILED", True))
        self.assertIn("rank 1", ended["message"])

    def test_a_lost_rank_ends_the_job_for_another_try(self):
        job = self.job("lost", steps=500, optimization="batch_size: 2 world_size: 2")
        process = self.spawn(job)
        self.until_step(job, process, 2)
        child, = self.children(process)
        os.kill(int(child), signal.SIGKILL)
        self.assertEqual(process.wait(timeout=120), 1)
        ended = self.events(job)[-1]["ended"]
        self.assertEqual((ended["outcome"], ended["retryable"]), ("FAILED", True))
        self.assertGreaterEqual(int(ended["step"]), 2)
        self.assertIn("rank", ended["message"])

    def test_ranks_end_with_the_one_that_leads_them(self):
        job = self.job("orphans", steps=500, optimization="batch_size: 2 world_size: 2")
        process = self.spawn(job)
        self.until_step(job, process, 1)
        child, = self.children(process)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while pathlib.Path(f"/proc/{child}/exe").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(os.path.exists(f"/proc/{child}/exe"))

    def test_a_full_disk_ends_it_with_advice_and_loses_nothing(self):
        if os.geteuid() != 0:
            self.skipTest("a small file system can only be mounted by root")
        small = self.folder / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=36m", "tmpfs", small]).returncode != 0:
            self.skipTest("this machine lets root mount nothing")
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=True)
        # A checkpoint of `tiny` is 25 MB: the first fits, the second does not beside it.
        job = self.job("full", folder=small)
        self.run_job(job, code=1)
        ended = self.events(job)[-1]["ended"]
        self.assertEqual(ended["outcome"], "FAILED")
        self.assertFalse(ended.get("retryable", False))
        self.assertRegex(ended["message"], "free space.*resume")
        self.assertEqual(ended["step"], "4", "the second checkpoint's")
        kept = list((job / "checkpoints").iterdir())
        self.assertEqual([path.name for path in kept], ["step-000000002.safetensors"])
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        self.run_job(job)
        starts = [event["started"] for event in self.events(job) if "started" in event]
        self.assertEqual(starts[1]["step"], "2")

    def test_says_what_is_wrong_and_where(self):
        usage = subprocess.run([BIN / "gvsl-trainer"], capture_output=True, text=True)
        self.assertEqual(usage.returncode, 2)
        self.assertIn("usage", usage.stderr)
        nowhere = subprocess.run([BIN / "gvsl-trainer", self.folder / "nowhere"], capture_output=True, text=True)
        self.assertEqual(nowhere.returncode, 1)
        self.assertIn("nowhere", nowhere.stderr)
        for text, told in (("spec { nonsense: 1 }", "line 1"), ("spec { data { crop: 33 } }", "data.crop"),
                           ('spec { data { crop: 32 } network { size: "huge" } }', "huge")):
            job = self.folder / hashlib.sha256(text.encode()).hexdigest()[:8]
            job.mkdir()
            (job / "task.textproto").write_text(text)
            self.run_job(job, code=1)
            ended = self.events(job)[-1]["ended"]
            self.assertEqual(ended["outcome"], "FAILED")
            self.assertIn(told, ended["message"])
            self.assertNotIn(str(self.folder), ended["message"], "a client is told no path of the server")


if __name__ == "__main__":
    unittest.main()

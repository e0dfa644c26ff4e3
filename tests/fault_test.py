#!/usr/bin/python3
"""Faults while the real programs work: killed servers and clients, a full disk, wrong starts, a drain. What was
acknowledged stays, what was cut goes on, and nothing is left behind."""
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import nibabel
import numpy

from service import BIN, Service, until


class Fault(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.random = random.Random(11)
        self.service = None

    def start(self, *arguments):
        self.service = Service(*arguments)
        self.addCleanup(self.service.close)
        return self.service.start()

    @property
    def data(self):
        return self.service.folder / "data"

    def volume(self, name, side, seed):
        """A NIfTI file of random int16 voxels, 2 * side^3 bytes; the path and the voxels."""
        voxels = numpy.random.default_rng(seed).integers(-1000, 2000, (side, side, side), dtype=numpy.int16)
        path = self.folder / name
        nibabel.save(nibabel.Nifti1Image(voxels, numpy.eye(4)), path)
        return path, voxels

    def spawn(self, *arguments):
        process = subprocess.Popen([BIN / "gvsl", *map(str, arguments)], env=self.service.environment(),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        return process

    def imported(self, *paths):
        """Imports files, which must succeed; their names."""
        answer = self.service.must("--json", "volumes", "import", *paths, timeout=60)
        return [volume["name"] for volume in answer.json()["volumes"]]

    def names(self):
        return {volume["name"] for volume in
                self.service.must("--json", "volumes", "list", "--limit", "0").json()["volumes"]}

    def assert_stored(self, name, voxels):
        out = self.folder / "back.nii"
        self.service.must("volumes", "download", name, "-o", out)
        numpy.testing.assert_array_equal(numpy.asanyarray(nibabel.load(out).dataobj), voxels)

    def parts(self):
        return list((self.data / "uploads").glob("*.part"))

    def held_bytes(self):
        sizes = subprocess.run(["find", self.data, "-type", "f", "-printf", "%s\n"], capture_output=True).stdout
        return sum(map(int, sizes.split()))

    def blobs(self):
        return [path for path in (self.data / "blobs").rglob("*") if path.is_file()]

    def test_what_the_disk_damaged_is_told_and_the_same_upload_mends_it(self):
        self.start()
        path, voxels = self.volume("a.nii", 24, 1)
        name = self.imported(path)[0]
        model = self.service.must("--json", "models", "create", "--size", "tiny", "--seed", "1").json()["name"]
        for blob in self.blobs():
            content = bytearray(blob.read_bytes())
            content[-1] ^= 1
            blob.write_bytes(content)
        out = self.folder / "damaged.nii"
        told = self.service.gvsl("--json", "volumes", "download", name, "-o", out)
        self.assertEqual(told.code, 1)
        self.assertEqual(told.json()["details"][0]["reason"], "STORED_DATA_LOST")
        self.assertFalse(out.exists())
        told = self.service.gvsl("features", "global", name, "--model", model)
        self.assertEqual(told.code, 1, "weights that are not those of the fingerprint")
        # With other words it is another volume of the same voxels: one blob, whole again.
        self.service.must("volumes", "import", "--name", "again", path)
        self.assert_stored(name, voxels)

    def test_a_killed_server_loses_nothing_that_it_acknowledged_and_leaves_nothing_behind(self):
        files = [self.volume(f"v{i}.nii", 160, i) for i in range(4)]  # 8 MB each
        acknowledged = {}
        self.start()
        for _ in range(6):
            clients = {i: self.spawn("--json", "volumes", "import", path) for i, (path, _) in enumerate(files)
                       if i not in acknowledged}
            held = self.held_bytes()
            until(lambda: self.held_bytes() != held or all(client.poll() is not None for client in clients.values()))
            time.sleep(self.random.uniform(0, 0.1))
            self.service.kill()
            for i, client in clients.items():
                client.terminate()  # it would wait for the server to come back
                out, _ = client.communicate(timeout=30)
                if client.returncode == 0:
                    acknowledged[i] = json.loads(out)["volumes"][0]["name"]
            self.service.start()
            self.assertLessEqual(set(acknowledged.values()), self.names())
            for i, name in acknowledged.items():
                self.assert_stored(name, files[i][1])
        # What was cut is completed by the same command, and is there once.
        self.assertEqual(len(set(self.imported(*[path for path, _ in files]))), 4)
        self.assertEqual(len(self.names()), 4)
        self.assertEqual(len(self.blobs()), 4)
        self.assertEqual(list((self.data / "uploads").iterdir()), [])
        self.assertEqual(list((self.data / "scratch").iterdir()), [])

    def test_an_upload_cut_by_the_death_of_both_sides_goes_on_with_the_bytes_it_had(self):
        path, voxels = self.volume("large.nii", 320, 1)  # 64 MiB
        self.start()
        client = self.spawn("volumes", "import", path)
        until(lambda: any(part.stat().st_size > 1 << 20 for part in self.parts()))
        client.kill()
        client.wait()
        self.service.kill()
        part, = self.parts()
        self.assertLess(part.stat().st_size, voxels.nbytes)
        kept = self.data / "kept"
        os.link(part, kept)  # its inode is not given to another file
        self.service.start()
        name, = self.imported(path)
        self.assert_stored(name, voxels)
        blob, = self.blobs()
        self.assertEqual(blob.stat().st_ino, kept.stat().st_ino, "the upload began anew")

    def test_imports_of_the_same_file_at_the_same_time_make_one_volume(self):
        path, voxels = self.volume("same.nii", 256, 2)  # 32 MiB
        self.start()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            names = list(pool.map(lambda _: self.imported(path)[0], range(4)))
        self.assertEqual(self.names(), set(names))
        self.assertEqual(len(set(names)), 1)
        self.assertEqual(len(self.blobs()), 1)
        self.assert_stored(names[0], voxels)

    def test_a_full_disk_is_told_and_loses_nothing(self):
        if os.geteuid() != 0:
            self.skipTest("a small file system can only be mounted by root")
        self.service = Service()
        self.addCleanup(self.service.close)
        self.data.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", self.data]).returncode != 0:
            self.skipTest("this machine lets root mount nothing")
        self.addCleanup(subprocess.run, ["umount", "-l", self.data], check=True)
        self.service.start()
        first, first_voxels = self.volume("first.nii", 100, 3)  # 2 MB
        large, _ = self.volume("large.nii", 256, 4)  # 32 MiB
        small, small_voxels = self.volume("small.nii", 60, 5)
        name, = self.imported(first)

        result = self.service.gvsl("volumes", "import", large)
        self.assertEqual(result.code, 1)
        self.assertIn("free", result.error)
        self.assertEqual(self.parts(), [], "an upload that cannot fit holds the disk")

        with open(self.data / "junk", "wb") as junk:
            try:
                while True:
                    junk.write(bytes(1 << 16))
                    junk.flush()
            except OSError:
                pass
        for arguments in (["volumes", "import", small], ["volumes", "update", name, "--tag", "x" * 60],
                          ["models", "create", "--size", "tiny"]):
            result = self.service.gvsl(*arguments)
            if arguments[1] != "update" or result.code != 0:  # a small record may fit into pages that are there
                self.assertEqual(result.code, 1, arguments)
                self.assertRegex(result.error.lower(), "free space|disk|no space", arguments)
        self.service.must("health")
        self.assert_stored(name, first_voxels)
        (self.data / "junk").unlink()
        second, = self.imported(small)
        self.service.must("models", "create", "--size", "tiny")
        self.service.kill()
        self.service.start()
        self.assertEqual(self.names(), {name, second})
        self.assert_stored(name, first_voxels)
        self.assert_stored(second, small_voxels)
        self.assertEqual(len(self.blobs()), 3)

    def refused_start(self, code, saying, *arguments):
        result = subprocess.run([BIN / "gvsld", *map(str, arguments)], capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        for words in saying:
            self.assertIn(words, result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)

    def test_a_wrong_start_ends_at_once_with_one_clear_line(self):
        self.start()
        free = ["--listen", "127.0.0.1:0"]
        self.refused_start(1, ["another gvsld", str(self.data)], "--data_dir", self.data, *free)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            self.refused_start(1, ["listen", "in use"], "--data_dir", self.folder / "other", "--listen",
                               f"127.0.0.1:{taken.getsockname()[1]}")
        (self.folder / "file").write_text("")
        self.refused_start(1, ["data_dir", "file/below"], "--data_dir", self.folder / "file" / "below", *free)
        self.refused_start(1, ["data_dir", "/proc"], "--data_dir", "/proc/gvsl", *free)
        self.refused_start(2, ["data_dir"], *free)
        self.refused_start(2, ["listen", "8500"], "--data_dir", self.folder / "other", "--listen", "8500")
        self.refused_start(2, ["device", "gpu"], "--data_dir", self.folder / "other", "--device", "gpu", *free)
        config = self.folder / "bad.textproto"
        config.write_text("listen: \"127.0.0.1:0\"\nqueue_size: 3\n")
        self.refused_start(2, ["bad.textproto", "line 2", "queue_size"], "--config", config)
        self.refused_start(1, ["absent.textproto"], "--config", self.folder / "absent.textproto")
        noise = self.folder / "noise"
        noise.mkdir()
        (noise / "metadata.sqlite").write_bytes(bytes(range(256)) * 40)
        self.refused_start(1, ["metadata.sqlite"], "--data_dir", noise, *free)
        self.service.must("health")  # none of them hurt the one that runs

    def dense(self, side, window):
        """Begins a dense stream of a volume on a grid of side^3; returns its client and output once features
        arrive."""
        voxels = numpy.random.default_rng(6).integers(0, 2000, (32, 32, 32), dtype=numpy.int16)
        path, out = self.folder / "dense.nii", self.folder / "dense.npy"
        nibabel.save(nibabel.Nifti1Image(voxels, numpy.diag([side / 32] * 3 + [1])), path)
        self.service.must("models", "create", "--size", "tiny")
        client = self.spawn("features", "dense", *self.imported(path), "--window", window, "-o", out)
        until(lambda: any(part.stat().st_size > 0 for part in self.folder.glob("dense.npy.part-*")))
        return client, out

    def test_a_stopping_server_lets_a_stream_finish_and_refuses_new_calls(self):
        self.start("--drain_timeout_s", "60")
        client, out = self.dense(96, 32)
        self.service.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in (self.service.folder / "log").read_text())
        refused = self.service.gvsl("volumes", "list")
        if self.service.process.poll() is None and client.poll() is None:
            self.assertEqual(refused.code, 1)
            self.assertIn("stopping", refused.error)
        _, error = client.communicate(timeout=60)
        self.assertEqual(client.returncode, 0, error)
        self.assertEqual(numpy.load(out).shape, (8, 96, 96, 96))
        self.assertEqual(self.service.process.wait(timeout=60), 0)

    def test_a_stream_that_outlasts_the_drain_is_cut_and_leaves_no_file(self):
        self.start("--drain_timeout_s", "1")
        client, out = self.dense(256, 16)
        self.assertEqual(self.service.stop(), 0)
        _, error = client.communicate(timeout=60)
        self.assertEqual(client.returncode, 1)
        self.assertNotIn("interrupted", error)  # nobody interrupted this program
        self.assertEqual(list(self.folder.glob("dense.npy*")), [])

    def test_output_that_cannot_be_written_is_a_failure(self):
        self.start()
        with open("/dev/full", "w") as full:
            process = subprocess.run([BIN / "gvsl", "status"], env=self.service.environment(), stdout=full,
                                     stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertIn("could not be written", process.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/python3
"""The DICOM receiver with DCMTK's senders and a real server: what was answered with success ends in a volume or in
the ledger, whatever dies in between."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from service import BIN, DATA, SKIPPED, Service, until

if not shutil.which("storescu"):
    print("skipped: dcmtk's storescu is not there")
    sys.exit(SKIPPED)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class IngestServe(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.spool = self.folder / "spool"
        self.port = free_port()
        self.receiver = None
        self.addCleanup(self.kill)
        self.service = Service()
        self.addCleanup(self.service.close)

    def serve(self, *arguments, quiet=2):
        with open(self.folder / "log", "a") as log:
            self.receiver = subprocess.Popen(
                [BIN / "gvsl-ingest", "serve", "--spool", self.spool, "--port", str(self.port),
                 "--quiet_seconds", str(quiet), "--key_file", self.folder / "key", "--min_free_bytes", "0",
                 "--server", self.service.address or "127.0.0.1:1", *map(str, arguments)], stderr=log)
        until(lambda: self.echo() == 0)

    def kill(self):
        if self.receiver and self.receiver.poll() is None:
            self.receiver.kill()
            self.receiver.wait()

    def echo(self, called="GVSL"):
        self.assertIsNone(self.receiver.poll(), self.log())
        return subprocess.run(["echoscu", "-aec", called, "127.0.0.1", str(self.port)], capture_output=True).returncode

    def log(self):
        return (self.folder / "log").read_text()

    def store(self, files, *arguments, called="GVSL", wait=True):
        sender = subprocess.Popen(["storescu", "-v", "-aec", called, *arguments, "127.0.0.1", str(self.port),
                                   *map(str, files)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if wait:
            sender.output = sender.communicate()[0]
        return sender

    def status(self):
        done = subprocess.run([BIN / "gvsl-ingest", "status", "--json", "--spool", self.spool], capture_output=True,
                              text=True, check=True)
        return json.loads(done.stdout)["series"]

    def phantoms(self, count=2, slices=12, first=0):
        studies = self.folder / "studies"
        subprocess.run([BIN / "gvsl-ingest", "phantom", "--patient", str(first), "--count", str(count), "--size",
                        f"32,28,{slices}", "--spacing", "10,10,20", "-o", studies], check=True, capture_output=True)
        return sorted(studies.rglob("*.dcm"))

    def volumes(self):
        return self.service.must("--json", "volumes", "list").json().get("volumes", [])

    def spooled_uids(self):
        """What of each file's name is made from its SOP Instance UID."""
        return {path.name.split("-")[0] for path in self.spool.glob("series/*/instances/*.dcm")}

    @staticmethod
    def uid_name(file):
        dump = subprocess.run(["dcmdump", "+P", "0008,0018", file], capture_output=True, text=True, check=True).stdout
        return hashlib.sha256(re.search(r"\[(.*?)\]", dump)[1].encode()).hexdigest()[:32]

    @staticmethod
    def acknowledged(output):
        """The files that a sender's words show as stored."""
        done, current = [], None
        for line in output.splitlines():
            if match := re.match(r"I: Sending file: (.*)", line):
                current = match[1]
            elif "Received Store Response (Success)" in line:
                done.append(current)
        return done

    def test_series_over_many_associations_become_volumes(self):
        self.service.start()
        self.serve()
        files = self.phantoms(count=3)
        # Sixteen senders, each with slices of all three series.
        senders = [self.store(files[part::16], wait=False) for part in range(16)]
        for sender in senders:
            sender.communicate()
            self.assertEqual(sender.returncode, 0)
        until(lambda: [series["state"] for series in self.status()] == ["uploaded"] * 3)
        volumes = self.volumes()
        self.assertEqual(len(volumes), 3)
        self.assertEqual({tuple(volume["grid"]["size"]) for volume in volumes}, {("32", "28", "12")})
        # Sent again: nothing new.
        self.assertEqual(self.store(files).returncode, 0)
        self.assertEqual([series["state"] for series in self.status()], ["uploaded"] * 3)
        self.assertEqual(len(self.spooled_uids()), 36)

    def test_late_slices_make_a_new_revision(self):
        self.service.start()
        self.serve()
        files = self.phantoms(count=1)
        self.store(files[:8])
        until(lambda: [series["state"] for series in self.status()] == ["uploaded"])
        self.store(files[8:])
        until(lambda: len(self.volumes()) == 2)
        self.assertEqual({volume["grid"]["size"][2] for volume in self.volumes()}, {"8", "12"})

    def test_others_are_not_answered(self):
        self.serve()
        self.assertNotEqual(self.echo(called="OTHER"), 0)
        self.kill()
        self.port = free_port()
        self.serve("--allow_ae_title", "ECHOSCU")
        self.assertEqual(self.echo(), 0)
        self.assertNotEqual(self.store(self.phantoms(count=1)).returncode, 0)  # calls itself STORESCU
        self.assertEqual(self.spooled_uids(), set())
        self.assertIn("rejected", self.log())

    def test_a_spool_has_one_receiver(self):
        self.serve()
        second = subprocess.run([BIN / "gvsl-ingest", "serve", "--spool", self.spool, "--port", str(free_port()),
                                 "--key_file", self.folder / "key"], capture_output=True, text=True, timeout=60)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another gvsl-ingest", second.stderr)

    def test_what_was_answered_with_success_survives_a_kill(self):
        files = self.phantoms(count=4, slices=40)
        acknowledged = []
        for attempt in range(3):
            self.serve()
            senders = [self.store(files[part::4], wait=False) for part in range(4)]
            # In the midst of it, at another place each time.
            before = len(self.spooled_uids())
            until(lambda: len(self.spooled_uids()) >= min(before + 10 + 15 * attempt, len(files)))
            self.kill()
            for sender in senders:
                acknowledged += self.acknowledged(sender.communicate()[0])
        self.assertGreater(len(acknowledged), 30)
        kept = self.spooled_uids()
        for file in set(acknowledged):
            self.assertIn(self.uid_name(file), kept, file)
        # And the rest arrives when it is sent again.
        self.service.start()
        self.serve()
        self.assertEqual(self.store(files).returncode, 0)
        until(lambda: [series["state"] for series in self.status()] == ["uploaded"] * 4)
        self.assertEqual(len(self.volumes()), 4)
        self.assertEqual(list((self.spool / "incoming").iterdir()), [])

    def test_a_server_away_for_a_while_loses_nothing(self):
        self.serve()
        self.service.start()
        port = int(self.service.address.split(":")[1])
        self.service.kill()
        self.kill()
        self.serve()
        self.store(self.phantoms(count=2))
        until(lambda: [series["state"] for series in self.status()] == ["retrying"] * 2)
        self.service.start(port)
        until(lambda: [series["state"] for series in self.status()] == ["uploaded"] * 2)
        self.assertEqual(len(self.volumes()), 2)

    def test_a_drain_answers_and_ends_well(self):
        self.serve()
        self.store(self.phantoms(count=1))
        self.receiver.send_signal(signal.SIGTERM)
        self.assertEqual(self.receiver.wait(timeout=40), 0)
        self.assertIn("stopped", self.log())
        self.assertEqual(len(self.spooled_uids()), 12)

    def test_a_full_spool_and_too_large_objects_are_refused_for_now(self):
        files = self.phantoms(count=1, slices=2)
        self.serve("--min_free_bytes", 1 << 49)
        self.assertEqual(self.acknowledged(self.store(files).output), [])
        self.assertIn('"status":42752', self.log())  # A700H
        self.assertEqual(self.spooled_uids(), set())
        self.kill()
        self.port = free_port()
        self.serve("--max_object_bytes", 1 << 20)
        large = self.folder / "large"
        subprocess.run([BIN / "gvsl-ingest", "phantom", "--size", "1024,1024,2", "-o", large], check=True,
                       capture_output=True)
        self.assertEqual(self.acknowledged(self.store(sorted(large.rglob("*.dcm"))).output), [])
        self.assertEqual(len(self.acknowledged(self.store(files).output)), 2)
        self.assertEqual(len(self.spooled_uids()), 2)

    def test_a_connection_cut_in_the_middle_leaves_the_receiver_well(self):
        self.serve()
        for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x00\x00\x00\x10", os.urandom(4096)):
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                connection.sendall(garbage)
        self.assertEqual(self.echo(), 0)

    def test_refused_instances_are_in_the_ledger(self):
        self.service.start()
        self.serve()
        self.store(self.phantoms(count=1)[::3])  # every third: even, so a volume
        with_gap = self.phantoms(count=1, first=7)
        with_gap = [file for file in with_gap if "patient7" in str(file)]
        self.store(with_gap[:4] + with_gap[7:])
        until(lambda: sorted(series["state"] for series in self.status()) == ["uploaded"] * 2)
        self.assertEqual(sorted(series["verdicts"] for series in self.status()), ["4 USED", "9 GAP"])
        ledgers = [json.loads(path.read_text()) for path in self.spool.glob("ledgers/*.json")]
        self.assertEqual(sorted(len(ledger) for ledger in ledgers), [4, 9])

    @unittest.skipUnless((DATA / "dicom").is_dir(), "no public series (set GVSL_TEST_DATA)")
    def test_compressed_instances_are_kept_as_they_come(self):
        self.service.start()
        self.serve()
        files = sorted((DATA / "dicom/d2n_mr_jpegls/dicom").iterdir())
        self.assertEqual(len(self.acknowledged(self.store(files, "-xt").output)), 4)
        until(lambda: [series["state"] for series in self.status()] == ["uploaded"])
        kept = next(self.spool.glob("series/*/instances/*.dcm"))
        dump = subprocess.run(["dcmdump", "+P", "0002,0010", kept], capture_output=True, text=True, check=True).stdout
        self.assertIn("JPEGLSLossless", dump)
        self.assertEqual(self.volumes()[0]["modality"], "MR")


if __name__ == "__main__":
    unittest.main()

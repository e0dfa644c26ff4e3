#!/usr/bin/python3
"""The DICOM receiver with DCMTK's senders and a real server: who may send, what becomes of what was sent, the inbox,
tags, metrics, the log, TLS."""
import json
import signal
import socket
import subprocess
import unittest
import urllib.request

from ingest_service import IngestTest, acknowledged, free_port, require_programs, uids_of
from service import DATA, until

require_programs("storescu", "dcmodify", "openssl")


def own_address():
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


class IngestServe(IngestTest):
    def test_series_over_sixteen_associations_become_volumes_that_features_come_from(self):
        self.service.start()
        self.serve()
        files = self.phantoms(count=3)
        # Each sender has slices of all three series.
        senders = [self.store(files[part::16], wait=False) for part in range(16)]
        for sender in senders:
            sender.communicate()
            self.assertEqual(sender.returncode, 0)
        self.until_uploaded(3)
        volumes = self.volumes()
        self.assertEqual(len(volumes), 3)
        self.assertEqual({tuple(volume["grid"]["size"]) for volume in volumes}, {("32", "28", "12")})
        self.service.must("models", "create", "--size", "tiny", "--seed", "5")
        self.service.must("features", "global", *[volume["name"] for volume in volumes], "-o",
                          self.folder / "features.npy")
        # Sent again, by another sender and another way: nothing new.
        self.assertEqual(self.store(files).returncode, 0)
        done = subprocess.run(["dcmsend", "-aet", "OTHER", "-aec", "GVSL", "127.0.0.1", str(self.port), *files],
                              capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.states(), ["uploaded"] * 3)
        self.assertEqual(len(list(self.spool.glob("series/*/instances/*"))), 36)

    def test_late_slices_make_a_new_revision(self):
        self.service.start()
        self.serve()
        files = self.phantoms(count=1)
        self.store(files[:8])
        self.until_uploaded(1)
        self.store(files[8:])
        until(lambda: len(self.volumes()) == 2, every=0.1)
        self.assertEqual({volume["grid"]["size"][2] for volume in self.volumes()}, {"8", "12"})

    def test_others_are_not_answered(self):
        self.serve("--allow_ae_title", "ECHOSCU")
        self.assertNotEqual(self.echo(called="OTHER"), 0)
        self.assertNotEqual(self.store(self.phantoms(count=1)).returncode, 0)  # calls itself STORESCU
        self.assertEqual(self.spooled_uids(), set())
        self.assertEqual([event["peer"] for event in self.events("rejected")], ["OTHER", "STORESCU"])

    def test_other_machines_are_not_answered_unless_they_are_named(self):
        address = own_address()
        if address is None or address.startswith("127."):
            self.skipTest("this machine has no network but loopback")
        self.serve()
        self.assertNotEqual(self.echo(host=address), 0)
        self.assertEqual([event["peer"] for event in self.events("rejected")], [address])
        self.kill()
        self.port = free_port()
        self.serve("--allow_host", address)
        self.assertEqual(self.echo(host=address), 0)

    def test_a_spool_has_one_receiver_and_so_has_a_port(self):
        self.serve()
        for spool, port, told in ((self.spool, free_port(), "another gvsl-ingest"),
                                  (self.folder / "other", self.port, f"port {self.port}")):
            second = self.ingest("serve", "--spool", spool, "--port", port, "--key_file", self.key, check=False)
            self.assertEqual(second.returncode, 1)
            self.assertIn(told, second.stderr)

    def test_a_drain_answers_and_ends_well(self):
        self.serve()
        files = self.phantoms(count=1, slices=40)  # which fit well into the 30 s of a drain
        sender = self.store(files, wait=False)
        until(lambda: len(self.spooled_uids()) > 2)
        self.receiver.send_signal(signal.SIGTERM)
        output = sender.communicate()[0]
        self.assertEqual(self.receiver.wait(timeout=40), 0)
        # The association under way was let end.
        self.assertEqual(len(acknowledged(output)), len(files))
        self.assertEqual([event["event"] for event in self.events("stopped")], ["stopped"])

    def test_refused_instances_are_in_the_ledger(self):
        self.service.start()
        self.serve()
        self.store(self.phantoms(count=1)[::3])  # every third: even, so a volume
        with_gap = self.phantoms(count=1, first=7, folder="gap")
        self.store(with_gap[:4] + with_gap[7:])
        self.until_uploaded(2)
        self.assertEqual(sorted(series["verdicts"] for series in self.status()), ["4 USED", "9 GAP"])
        self.assertEqual(sorted(self.ledger().values()), ["GAP"] * 9 + ["USED"] * 4)

    @unittest.skipUnless((DATA / "dicom").is_dir(), "no public series (set GVSL_TEST_DATA)")
    def test_compressed_instances_are_kept_as_they_come(self):
        self.service.start()
        self.serve()
        files = sorted((DATA / "dicom/d2n_mr_jpegls/dicom").iterdir())
        self.assertEqual(len(acknowledged(self.store(files, "-xt").output)), 4)
        self.until_uploaded(1)
        kept = next(self.spool.glob("series/*/instances/*.dcm"))
        dump = subprocess.run(["dcmdump", "+P", "0002,0010", kept], capture_output=True, text=True, check=True).stdout
        self.assertIn("JPEGLSLossless", dump)
        self.assertEqual(self.volumes()[0]["modality"], "MR")

    def test_volumes_get_tags_by_rules_and_are_embedded(self):
        self.service.start()
        self.service.must("models", "create", "--size", "tiny", "--seed", "5")
        rules = self.folder / "rules.json"
        rules.write_text(json.dumps([{"tag": "ward-3", "aeTitle": "ct_ward*"},
                                     {"tag": "chest", "modality": "CT", "bodyPart": "CHEST"},
                                     {"tag": "never", "description": "no such words"}]))
        # A series must be quiet for a day, but for two seconds where it is this sender's.
        self.serve("--tag", "trial-7", "--tag_rules", rules, "--embed", "--ae_quiet_seconds", "CT_WARD3=2", quiet=86400)
        files = self.phantoms(count=2)
        subprocess.run(["dcmodify", "-nb", "-i", "(0018,0015)=CHEST", *files], check=True, capture_output=True)
        self.store(files, "-aet", "CT_WARD3")
        self.until_uploaded(2)
        volumes = self.volumes()
        for volume in volumes:
            self.assertLessEqual({"trial-7", "ward-3", "chest"}, set(volume["tags"]))
            self.assertNotIn("never", volume["tags"])
        until(lambda: len(self.events("uploaded")) == 2)
        # Nothing is left to embed, so the other one is found at once.
        found = self.service.must("--json", "search", volumes[0]["name"]).json()
        self.assertEqual([hit["volume"] for hit in found["hits"]], [volumes[1]["name"]])
        self.assertEqual(self.events("not_embedded"), [])

    def test_wrong_rules_are_told_before_anything_is_received(self):
        rules = self.folder / "rules.json"
        for text, told in (("{", "JSON list"), ('[{"tag": "a"}, {"modality": "CT"}]', "rule 2 has no tag"),
                           ('[{"tag": "a", "bodypart": "CHEST"}]', "unknown field bodypart")):
            rules.write_text(text)
            done = self.ingest("serve", "--spool", self.spool, "--port", self.port, "--key_file", self.key,
                               "--tag_rules", rules, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(told, done.stderr)

    def test_files_of_the_inbox_go_into_the_spool(self):
        self.service.start()
        inbox = self.folder / "inbox"
        (inbox / "ward").mkdir(parents=True)
        self.serve("--inbox", inbox, "--inbox_settle_seconds", "1")
        for file in self.phantoms(count=1):
            file.rename(inbox / "ward" / file.name)
        (inbox / "ward" / "Doe^Jane.txt").write_text("no DICOM")
        (inbox / ".still-copying").write_text("half a fi")
        self.until_uploaded(1)
        self.assertEqual(len(self.volumes()), 1)
        until(lambda: not (inbox / "ward").exists())
        self.assertEqual((inbox / ".refused/ward/Doe^Jane.txt").read_text(), "no DICOM")
        self.assertTrue((inbox / ".still-copying").exists())
        self.assertEqual(len(self.events("inbox_kept")), 12)
        self.assertIn("no whole DICOM file", self.events("inbox_refused")[0]["error"])

    def test_what_happens_is_counted_for_prometheus(self):
        self.service.start()
        address = f"127.0.0.1:{free_port()}"
        self.serve("--metrics_listen", address, "--allow_ae_title", "STORESCU", "--allow_ae_title", "ECHOSCU")

        def metrics():
            with urllib.request.urlopen(f"http://{address}/metrics") as answer:
                lines = answer.read().decode().splitlines()
            return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines
                                                           if line.startswith("gvsl_ingest_"))}

        files = self.phantoms(count=1)
        before = metrics()
        self.assertEqual(before['gvsl_ingest_spool_series{state="waiting"}'], 0)
        self.store(files)
        self.store(files, "-aet", "STRANGER")
        waiting = metrics()
        self.assertEqual(waiting['gvsl_ingest_instances_total{status="0000"}'], 12)
        self.assertEqual(waiting['gvsl_ingest_associations_total{result="rejected"}'], 1)
        # Datasets alone: a file has a meta header of some hundred bytes as well.
        size = sum(file.stat().st_size for file in files)
        self.assertLess(waiting["gvsl_ingest_received_bytes_total"], size)
        self.assertGreater(waiting["gvsl_ingest_received_bytes_total"], size - 12 * 1024)
        self.until_uploaded(1)
        until(lambda: metrics().get('gvsl_ingest_series_total{reason="OK",result="uploaded"}') == 1, every=0.1)
        after = metrics()
        self.assertEqual(after["gvsl_ingest_volumes_total"], 1)
        self.assertEqual(after['gvsl_ingest_spool_series{state="uploaded"}'], 1)
        self.assertEqual(after["gvsl_ingest_spool_waiting_instances"], 0)
        self.assertGreater(after["gvsl_ingest_spool_free_bytes"], 0)

    def test_the_log_is_json_and_names_no_patient(self):
        self.service.start()
        self.serve()
        files = self.phantoms(count=1)
        marker = "GVSLPHI"
        edits = [edit for tag in ("0010,0010", "0010,0020", "0008,103e", "0008,1030", "0008,0080", "0008,0090")
                 for edit in ("-i", f"({tag})={marker}")]
        subprocess.run(["dcmodify", "-nb", *edits, *files], check=True, capture_output=True)
        self.store(files[:4] + files[7:])
        self.until_uploaded(1)
        uids = [uid for tag in ("0008,0018", "0020,000d", "0020,000e")
                for uid in uids_of(files[:1], tag).values()]
        for line in self.log().splitlines():
            self.assertIn("event", json.loads(line))
            for text in (marker, *uids):
                self.assertNotIn(text, line)
        # The ledger, for those who have the spool, names the instances.
        self.assertEqual(len(self.ledger()), 9)

    def certificates(self):
        """An authority, and a key and certificate by it; another key and certificate by nobody."""
        def openssl(*arguments):
            subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=self.folder)

        new = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
        openssl("req", "-x509", *new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        openssl("req", *new[:3], "-subj", "/CN=peer", "-keyout", "peer.key", "-out", "peer.csr")
        openssl("x509", "-req", "-in", "peer.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days",
                "2", "-out", "peer.pem")
        openssl("req", "-x509", *new, "-subj", "/CN=stranger", "-keyout", "stranger.key", "-out", "stranger.pem")

    def test_with_tls_only_peers_with_a_trusted_certificate_are_answered(self):
        self.certificates()
        options = ["--tls_key", self.folder / "peer.key", "--tls_certificate", self.folder / "peer.pem",
                   "--tls_trusted", self.folder / "ca.pem"]

        def tls(who):
            return ["+tls", self.folder / f"{who}.key", self.folder / f"{who}.pem", "+cf", self.folder / "ca.pem"]

        self.serve(*options, wait=False)
        until(lambda: self.echo(*tls("peer")) == 0, every=0.1)
        files = self.phantoms(count=1)
        self.assertEqual(self.store(files, *tls("peer")).returncode, 0)
        self.assertEqual(len(self.spooled_uids()), 12)
        self.assertNotEqual(self.echo(*tls("stranger")), 0)
        self.assertNotEqual(self.echo(), 0)
        done = self.ingest("serve", "--spool", self.folder / "other", "--port", free_port(), "--key_file", self.key,
                           *options[:2], check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--tls_certificate", done.stderr)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/python3
"""A real archive, Orthanc, stores public series: it sends them to the receiver, and they are fetched from it. Both give
the volumes that an import of the same files gives."""
import json
import sys
import unittest

from ingest_service import ORTHANC, Archive, IngestTest, free_port, require_programs, uids_of
from service import DATA, SKIPPED, until

require_programs("echoscu", "dcmdump")
if not ORTHANC or not (DATA / "dicom").is_dir():
    print("skipped: needs Debian's orthanc and the public series (set GVSL_TEST_DATA)")
    sys.exit(SKIPPED)

# Anatomy, native and compressed, regular and tilted, 101 files.
CASES = ("mr_siemens_prisma_t1_HFS_raw", "mr_hippocampus_crop", "ct_ge_tilt_varspacing_jpegls")


class IngestPeer(IngestTest):
    def setUp(self):
        super().setUp()
        self.service.start()
        self.files = [file for case in CASES for file in sorted((DATA / "dicom" / case / "dicom").rglob("*"))
                      if file.is_file()]
        self.assertGreater(len(self.files), 90)
        self.archive = Archive(self.folder, {"gvsl": ["GVSL", "127.0.0.1", self.port]})
        self.addCleanup(self.archive.close)
        self.ask = self.archive.ask
        for file in self.files:
            self.ask("instances", file.read_bytes())

    def studies(self):
        return sorted(set(uids_of(self.files, "0020,000d").values()))

    def imported(self):
        """The names of the volumes that an import of the same files gives: those that are there already, if what is
        there is the same in voxels, geometry, words and pseudonyms."""
        report = json.loads(self.ingest("import", "--json", "--key_file", self.key, *self.files).stdout)
        return {volume["name"] for series in report["series"] for volume in series["volumes"]}

    def listed(self):
        return {volume["name"] for volume in self.volumes()}

    def test_what_the_archive_sends_becomes_the_volumes_of_its_files(self):
        self.serve("--allow_ae_title", "ORTHANC", "--allow_ae_title", "ECHOSCU")
        sent = self.ask("modalities/gvsl/store", json.dumps(self.ask("studies")).encode())
        self.assertEqual((sent["InstancesCount"], sent["FailedInstancesCount"]), (len(self.files), 0))
        series = len(set(uids_of(self.files, "0020,000e").values()))
        self.until_uploaded(series)
        volumes = self.listed()
        self.assertGreaterEqual(len(volumes), 3)
        self.assertEqual(len(self.ledger()), len(self.files))
        self.assertEqual(self.imported(), volumes)
        self.assertEqual(self.listed(), volumes)
        self.service.must("models", "create", "--size", "tiny", "--seed", "5")
        self.service.must("features", "global", *volumes, "-o", self.folder / "features.npy")
        self.commits(series)

    def commits(self, series):
        """Storage Commitment of what was sent, from the spool and then from the ledgers."""
        def ask(instances):
            asked = self.ask("modalities/gvsl/storage-commitment", json.dumps({"DicomInstances": instances}).encode())
            return asked["Path"].lstrip("/")

        def told(path):
            until(lambda: self.ask(path)["Status"] != "Pending", every=0.1)
            answer = self.ask(path)
            return answer["Status"], {one["SOPInstanceUID"]: one["FailureReason"] for one in answer["Failures"]}

        def serve(port, *arguments):
            self.kill()
            self.serve("--commitment_peer", f"ORTHANC@127.0.0.1:{port}", *arguments)

        classes = uids_of(self.files, "0008,0016")
        instances = [[classes[file], uid] for file, uid in uids_of(self.files).items()]
        some_class, some_uid = instances[0]
        # The report waits for a peer that cannot be reached, also over the death of the receiver.
        serve(free_port())
        path = ask(instances)
        until(lambda: self.events("commitment_retry"))
        self.assertEqual(self.ask(path)["Status"], "Pending")
        serve(self.archive.dicom_port)
        self.assertEqual(told(path), ("Success", {}))
        self.assertEqual(told(ask([["1.2.840.10008.5.1.4.1.1.4.1", some_uid], [some_class, "1.2.3"], *instances[1:]])),
                         ("Failure", {some_uid: 0x0119, "1.2.3": 0x0112}))
        self.assertTrue(all(one["committed"] for one in self.status()))
        # Those that are in volumes leave the spool, and can be committed to all the same.
        serve(self.archive.dicom_port, "--keep_seconds", "0")
        in_volumes = {uid for uid, verdict in self.ledger().items() if verdict == "USED"}
        self.assertGreater(len(in_volumes), 90)
        until(lambda: len(self.status()) < series, every=0.1)
        self.assertEqual(told(ask([one for one in instances if one[1] in in_volumes])), ("Success", {}))

    def test_studies_are_fetched_from_the_archive(self):
        studies = [word for study in self.studies() for word in ("--study", study)]
        peer = self.archive.peer
        done = self.ingest("fetch", "--peer", peer, *studies, "--json", "--key_file", self.key)
        fetched = json.loads(done.stdout)["series"]
        self.assertEqual(sum(len(series["instances"]) for series in fetched), len(self.files))
        volumes = self.listed()
        self.assertGreaterEqual(len(volumes), 3)
        self.assertEqual(self.imported(), volumes)
        # What cannot be had is told, and what can is had.
        for arguments, told in ((["--peer", peer, "--study", "1.2.3"], "no CT, MR or PET series of the study 1.2.3"),
                                (["--peer", f"ORTHANC@127.0.0.1:{free_port()}", "--study", "1.2.3"],
                                 "cannot open an association"),
                                (["--peer", "127.0.0.1", "--study", "1.2.3"], "AET@HOST:PORT")):
            done = self.ingest("fetch", *arguments, "--key_file", self.key, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(told, done.stderr)
        done = self.ingest("fetch", "--peer", peer, "--study", "1.2.3", *studies, "--key_file", self.key, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("USED", done.stdout)
        self.assertEqual(self.listed(), volumes)
        # Or the archive sends, to a receiver that makes the same volumes of it.
        self.serve()
        done = self.ingest("fetch", "--peer", peer, *studies, "--move", "GVSL")
        self.assertIn(f"GVSL: {len(self.files)} instances", done.stdout)
        self.until_uploaded(len(fetched))
        self.assertEqual(self.listed(), volumes)
        done = self.ingest("fetch", "--peer", peer, *studies, "--move", "NOBODY", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("did not send", done.stderr)


if __name__ == "__main__":
    unittest.main()

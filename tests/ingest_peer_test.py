#!/usr/bin/python3
"""A real archive, Orthanc, stores public series: it sends them to the receiver, and they are fetched from it. Both give
the volumes that an import of the same files gives."""
import json
import os
import shutil
import subprocess
import sys
import unittest
import urllib.request

from ingest_service import IngestTest, free_port, require_programs, uids_of
from service import DATA, SKIPPED, until

ORTHANC = shutil.which("Orthanc", path=os.environ.get("PATH", "") + ":/usr/sbin")
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
        self.dicom_port, self.http_port = free_port(), free_port()
        (self.folder / "orthanc.json").write_text(json.dumps({
            "StorageDirectory": str(self.folder / "archive"), "IndexDirectory": str(self.folder / "archive"),
            "HttpPort": self.http_port, "DicomPort": self.dicom_port, "DicomAet": "ORTHANC",
            "AuthenticationEnabled": False, "Plugins": [], "DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True,
            "DicomModalities": {"gvsl": ["GVSL", "127.0.0.1", self.port]}}))
        with open(self.folder / "orthanc.log", "w") as log:
            self.archive = subprocess.Popen([ORTHANC, self.folder / "orthanc.json"], stdout=subprocess.DEVNULL,
                                            stderr=log)
        self.addCleanup(self.archive.wait)
        self.addCleanup(self.archive.kill)
        until(self.archive_answers, every=0.1)
        for file in self.files:
            self.ask("instances", file.read_bytes())

    def archive_answers(self):
        self.assertIsNone(self.archive.poll(), (self.folder / "orthanc.log").read_text())
        try:
            return self.ask("system")
        except OSError:
            return None

    def ask(self, path, data=None):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/{path}", data) as answer:
            return json.load(answer)

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

    def test_studies_are_fetched_from_the_archive(self):
        studies = [word for study in self.studies() for word in ("--study", study)]
        peer = f"ORTHANC@127.0.0.1:{self.dicom_port}"
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


if __name__ == "__main__":
    unittest.main()

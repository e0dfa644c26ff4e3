#!/usr/bin/python3
"""DICOM folders through the real gvsl-ingest and a real server: what arrives, what is kept back, what a fault
loses (nothing)."""
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
import unittest

from service import BIN, DATA, Service

# What an image is made of: the one part of a header that is read for more than telling things apart.
IMAGE_TAGS = {"0008,0008", "0008,0016", "0018,0050", "0018,0088", "0020,0032", "0020,0037"}
TEXT_MARKER = "GVSLPHI"
MARKERS = {"AE": TEXT_MARKER, "CS": TEXT_MARKER, "LO": TEXT_MARKER, "LT": TEXT_MARKER, "PN": TEXT_MARKER,
           "SH": TEXT_MARKER, "ST": TEXT_MARKER, "UC": TEXT_MARKER, "UR": TEXT_MARKER, "UT": TEXT_MARKER,
           "DA": "19310313", "DT": "19310313131313.131313", "TM": "131313.131313", "AS": "093Y",
           "IS": "31313131", "DS": "31313131.5", "UI": "1.2.826.31313131"}
SEARCHED = [TEXT_MARKER, "19310313", "131313.13", "31313131"]


def dictionary():
    """(tag, VR) of every standard attribute, as DCMTK's dictionary has them."""
    for folder in sorted(pathlib.Path("/usr/share").glob("libdcmtk*")):
        for line in (folder / "dicom.dic").read_text().splitlines():
            match = re.match(r"^\(([0-9a-f]{4}),([0-9a-f]{4})\)\t([A-Z]{2})\t", line)
            if match:
                yield f"{match[1]},{match[2]}", match[3]
        return


class Ingest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.key = self.folder / "state" / "pseudonym.key"
        self.service = Service()
        self.addCleanup(self.service.close)

    def ingest(self, *arguments, **environment):
        server = {"GVSL_SERVER": self.service.address} if self.service.address else {}
        return subprocess.run([BIN / "gvsl-ingest", *map(str, arguments)], capture_output=True, text=True, timeout=300,
                              env={**os.environ, **server, **environment})

    def run_import(self, *arguments):
        return self.ingest("import", "--key_file", self.key, *arguments)

    def phantoms(self, count=2, slices=12):
        studies = self.folder / "studies"
        done = self.ingest("phantom", "--count", count, "--size", f"32,28,{slices}", "--spacing", "10,10,20",
                           "-o", studies)
        self.assertEqual(done.returncode, 0, done.stderr)
        return studies

    def listed(self):
        return self.service.must("--json", "volumes", "list").json().get("volumes", [])

    def test_a_dry_run_needs_no_server_and_sends_nothing(self):
        studies = self.phantoms()
        (studies / "notes.txt").write_text("not DICOM")
        done = self.run_import("--dry_run", studies)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("12 USED", done.stdout)
        self.assertIn("32x28x12, 10x10x20 mm", done.stdout)
        self.assertIn("NOT_DICOM: " + str(studies / "notes.txt"), done.stdout)

    def test_series_become_volumes_that_features_can_be_extracted_from(self):
        self.service.start()
        studies = self.phantoms()
        done = self.run_import("--json", "--tag", "trial-7", studies)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual(len(report["series"]), 2)
        volumes = {volume["name"]: volume for volume in self.listed()}
        self.assertEqual(len(volumes), 2)
        patients = set()
        for series in report["series"]:
            made = series["volumes"][0]
            self.assertEqual(len(made["slices"]), 12)
            self.assertEqual([entry["verdict"] for entry in series["instances"]], ["USED"] * 12)
            stored = volumes[made["name"]]
            self.assertEqual(stored["modality"], "CT")
            self.assertEqual(stored["displayName"], made["displayName"])
            self.assertEqual(stored["grid"]["originMm"], made["originMm"])
            self.assertIn("trial-7", stored["tags"])
            patients.add(next(tag for tag in stored["tags"] if tag.startswith("patient-")))
        self.assertEqual(len(patients), 2)
        self.service.must("models", "create", "--size", "tiny", "--seed", "5")
        self.service.must("features", "global", *volumes, "-o", self.folder / "features.npy")

    def test_importing_again_makes_nothing_twice(self):
        self.service.start()
        studies = self.phantoms()
        for _ in range(2):
            self.assertEqual(self.run_import(studies).returncode, 0)
        self.assertEqual(len(self.listed()), 2)
        # Another key: other pseudonyms, so other volumes.
        self.key = self.folder / "other.key"
        self.assertEqual(self.run_import(studies).returncode, 0)
        self.assertEqual(len(self.listed()), 4)

    def test_a_server_that_is_not_there_is_told_before_anything_is_read(self):
        done = self.ingest("import", "--key_file", self.key, "--server", "127.0.0.1:1", self.phantoms())
        self.assertEqual(done.returncode, 1)
        self.assertIn("127.0.0.1:1", done.stderr)

    def test_what_a_killed_import_left_is_made_by_the_next(self):
        self.service.start()
        studies = self.phantoms(count=6)
        process = subprocess.Popen([BIN / "gvsl-ingest", "import", "--key_file", self.key, studies],
                                   env=self.service.environment(), stdout=subprocess.DEVNULL)
        while not self.listed() and process.poll() is None:
            pass
        process.kill()
        process.wait()
        self.service.restart()
        done = self.run_import(studies)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.listed()), 6)

    def test_a_path_that_is_not_there_costs_only_itself(self):
        self.service.start()
        done = self.run_import(self.folder / "absent", self.phantoms())
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(self.folder / "absent"), done.stderr)
        self.assertEqual(len(self.listed()), 2)

    def test_folders_without_files_are_an_error(self):
        (self.folder / "empty").mkdir()
        done = self.run_import("--dry_run", self.folder / "empty")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no files", done.stderr)

    def test_the_key_is_secret_and_a_bad_one_is_refused(self):
        studies = self.phantoms(count=1)
        self.assertEqual(self.run_import("--dry_run", studies).returncode, 0)
        self.assertEqual(stat.S_IMODE(self.key.stat().st_mode), 0o600)
        self.key.chmod(0o644)
        done = self.run_import("--dry_run", studies)
        self.assertEqual(done.returncode, 1)
        self.assertIn("chmod 600", done.stderr)
        self.key.chmod(0o600)
        self.key.write_text("no key")
        done = self.run_import("--dry_run", studies)
        self.assertEqual(done.returncode, 1)
        self.assertIn("64 hexadecimal digits", done.stderr)

    @unittest.skipUnless(shutil.which("dcmodify"), "dcmtk's dcmodify is not there")
    def test_nothing_that_identifies_a_patient_reaches_the_server(self):
        self.service.start()
        studies = self.phantoms(count=1, slices=4)
        files = sorted(studies.rglob("*.dcm"))
        edits = []
        for tag, vr in dictionary():
            if vr in MARKERS and tag not in IMAGE_TAGS and tag[:4] not in ("0000", "0002", "0028", "7fe0", "fffe"):
                edits += ["-i", f"({tag})={MARKERS[vr]}"]
        edits += ["-i", f"(0040,0275)[0].(0010,0010)={TEXT_MARKER}", "-i", f"(0008,1140)[0].(0010,0020)={TEXT_MARKER}"]
        self.assertGreater(len(edits), 2000)
        for number, file in enumerate(files):
            subprocess.run(["dcmodify", "-nb", *edits, "-m", f"(0008,0018)=1.2.826.31313131.{number}", file], check=True,
                           capture_output=True)
        dump = subprocess.run(["dcmdump", files[0]], capture_output=True, text=True, check=True).stdout
        self.assertGreater(dump.count(TEXT_MARKER), 1000)
        done = self.run_import(studies)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.listed()), 1)
        self.service.stop()
        searched = 0
        for path in self.service.folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                searched += len(content)
                for marker in SEARCHED:
                    self.assertNotIn(marker.encode(), content, path)
        self.assertGreater(searched, 32 * 28 * 4 * 2)

    @unittest.skipUnless((DATA / "dicom").is_dir(), "no public series (set GVSL_TEST_DATA)")
    def test_a_folder_of_everything_is_told_file_by_file(self):
        self.service.start()
        done = self.run_import("--json", DATA / "dicom")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        files = [path for path in (DATA / "dicom").rglob("*") if path.is_file()]
        entries = [entry for series in report["series"] for entry in series["instances"]]
        self.assertEqual(sorted(entry["path"] for entry in entries), sorted(map(str, files)))
        made = [volume for series in report["series"] for volume in series["volumes"]]
        self.assertGreater(len(made), 15)
        self.assertEqual({volume["name"] for volume in self.listed()}, {volume["name"] for volume in made})


if __name__ == "__main__":
    unittest.main()

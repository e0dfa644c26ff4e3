#!/usr/bin/python3
"""DICOM folders through the real gvsl-ingest and a real server: what arrives, what is kept back, what a fault
loses (nothing)."""
import json
import os
import pathlib
import re
import shutil
import stat
import struct
import subprocess
import tempfile
import unittest

from service import BIN, DATA, Service

# What an image is made of: the one part of a header that is read for more than telling things apart. None of it is in
# the table of attributes of PS3.15 annex E.
IMAGE_TAGS = {"0008,0008", "0008,0016", "0018,0050", "0018,0088", "0020,0032", "0020,0037"}
IMAGE_GROUPS = {"0028", "7fe0"}
NO_DATASET_GROUPS = {"0000", "0002", "0004", "fffa", "fffc", "fffe"}
# Of the table, and in a group of the image, or of groups that repeat, or private.
MORE_TAGS = {"0028,1199": "UI", "0028,1214": "UI", "0028,4000": "LT", "6000,3000": "OW", "6000,4000": "LT",
             "5000,3000": "OW", "0009,0010": "LO"}

# Binary values have the marker's bytes, so that it is found in whatever is stored as it came.
MARKER = "GVSLPHI"
BYTES = b"GVSLPHI!"


def numbers(kind):
    """The bytes as numbers of a kind of the struct module, as dcmodify takes them."""
    size = struct.calcsize(kind)
    return "\\".join(repr(number) for number in struct.unpack(f"<{len(BYTES) // size}{kind}", BYTES))


def words(size):
    """The bytes as hexadecimal words."""
    return "\\".join(BYTES[at:at + size][::-1].hex() for at in range(0, len(BYTES), size))


MARKERS = {**dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), MARKER),
           **dict.fromkeys(("US", "SS", "xs"), numbers("h")), **dict.fromkeys(("UL", "SL", "OL"), numbers("i")),
           **dict.fromkeys(("SV", "UV", "OV"), numbers("q")), **dict.fromkeys(("FL", "OF"), numbers("f")),
           **dict.fromkeys(("FD", "OD"), numbers("d")), **dict.fromkeys(("OB", "UN", "ox"), words(1)), "OW": words(2),
           "AT": "(5647,4c53)\\(4850,2149)", "DA": "19310313", "DT": "19310313131313.131313", "TM": "131313.131313",
           "AS": "093Y", "IS": "31313131", "DS": "31313131.5", "UI": "1.2.826.31313131"}
# The numbers also as they would be stored once they were read.
SEARCHED = [MARKER.encode(), b"19310313", b"131313.13", b"31313131", struct.pack("<i", 31313131),
            struct.pack("<f", 31313131), struct.pack("<d", 31313131), struct.pack("<d", 31313131.5),
            *(number.encode() for kind in "iqfd" for number in numbers(kind).split("\\"))]


def dictionary():
    """(tag, VR) of every standard attribute, as DCMTK's dictionary has them."""
    for folder in sorted(pathlib.Path("/usr/share").glob("libdcmtk*")):
        for line in (folder / "dicom.dic").read_text().splitlines():
            match = re.match(r"^\(([0-9a-fA-F]{4}),([0-9a-fA-F]{4})\)\t([A-Za-z]{2})\t", line)
            if match:
                yield f"{match[1]},{match[2]}".lower(), match[3]
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

    def test_folders_without_a_dicom_file_are_an_error(self):
        (self.folder / "notes").mkdir()
        for name in ("a.txt", "b.txt"):
            (self.folder / "notes" / name).write_text("not DICOM")
        done = self.run_import("--dry_run", self.folder / "notes")
        self.assertEqual(done.returncode, 1)
        self.assertIn("none of the 2 files", done.stderr)
        self.assertIn("NOT_DICOM", done.stdout)

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
        tags = {tag: vr for tag, vr in dictionary()
                if tag not in IMAGE_TAGS and tag[:4] not in IMAGE_GROUPS | NO_DATASET_GROUPS} | MORE_TAGS
        # Each attribute, and each sequence with an item that holds some.
        edits = [f"({tag})={MARKERS[vr]}" for tag, vr in tags.items() if vr != "SQ"]
        edits += [f"({tag})[0].({inner})={value}" for tag, vr in tags.items() if vr == "SQ"
                  for inner, value in (("0008,0104", MARKER), ("0010,0030", "19310313"), ("0008,1155", MARKERS["UI"]))]
        self.assertEqual(set(tags.values()) - {"SQ"}, set(MARKERS))
        for number, file in enumerate(files):
            subprocess.run(["dcmodify", "-nb", *(word for edit in edits for word in ("-i", edit)), "-m",
                            f"(0008,0018)=1.2.826.31313131.{number}", file], check=True, capture_output=True)
        self.assertGreater(files[0].read_bytes().count(MARKER.encode()), 2500)
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
                    self.assertNotIn(marker, content, path)
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

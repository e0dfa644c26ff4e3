#!/usr/bin/python3
"""register, match, transfer and registrations of the command line, against a real server: a volume that the
scanner saw elsewhere is brought back, and the files say so to others."""
import base64
import io
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import nibabel
import numpy
from PIL import Image

from service import BIN, Service

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHIFT_MM = numpy.array([6.0, -4.0, 5.0])  # RAS, as nibabel has it
TOLERANCE_MM = 1.0  # a quarter of a voxel


def picture(data):
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float)


class Registration(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name)
        cls.service = Service().start()
        cls.addClassCleanup(cls.service.close)
        cls.service.must("models", "create", "--size", "tiny", "--seed", 1, "--spacing", "4,4,4")
        cls.service.must("phantoms", "make", "--count", 1, "--size", "40,40,36", "--spacing", "4,4,5", "-o", cls.folder)
        cls.fixed, = cls.folder.glob("*image.nii.gz")
        labels, = cls.folder.glob("*labels.nii.gz")
        cls.moving, cls.moving_labels = cls.folder / "moving.nii.gz", cls.folder / "moving_labels.nii.gz"
        cls.labels = labels
        for source, target in ((cls.fixed, cls.moving), (labels, cls.moving_labels)):
            image = nibabel.load(source)
            affine = image.affine.copy()
            affine[:3, 3] += SHIFT_MM
            nibabel.save(nibabel.Nifti1Image(numpy.asarray(image.dataobj), affine), target)

    def rigid(self, *arguments):
        return self.service.must(*arguments, "--modality", "CT", "--no-network", "--linear", "rigid",
                                 "--no-deformation")

    def test_register_writes_files_of_the_known_shift(self):
        warped, affine, field = (self.folder / name for name in ("warped.nii.gz", "map.tfm", "field.nii.gz"))
        made = self.service.must("--json", "register", self.fixed, self.moving, "--modality", "CT", "--no-network",
                                 "--linear", "rigid", "--no-deformation", "-o", warped, "--affine", affine,
                                 "--composed-field", field).json()
        self.assertEqual(made["verdict"]["quality"], "GOOD", made["verdict"]["reason"])
        displacement = numpy.asarray(nibabel.load(field).dataobj)[..., 0, :]
        centre = displacement[20, 20, 18] * [-1, -1, 1]  # LPS, as ITK reads it, to RAS
        numpy.testing.assert_allclose(centre, SHIFT_MM, atol=TOLERANCE_MM)
        self.assertTrue(affine.read_text().startswith("#Insight Transform File V1.0"))
        inside = (slice(4, -4),) * 3
        before, after = (numpy.asarray(nibabel.load(path).dataobj, float)[inside].ravel()
                         for path in (self.fixed, warped))
        self.assertGreater(numpy.corrcoef(before, after)[0, 1], 0.95)

        name = made["name"]
        self.assertIn(name, self.service.must("registrations", "list").out)
        self.assertIn("GOOD", self.service.must("registrations", "show", name).out)
        again = self.folder / "again.nii.gz"
        self.service.must("registrations", "download", name, "-o", again)
        numpy.testing.assert_array_equal(nibabel.load(again).dataobj, nibabel.load(warped).dataobj)
        self.service.must("registrations", "delete", name)
        gone = self.service.gvsl("registrations", "show", name)
        self.assertEqual(gone.code, 1)
        self.assertIn(f"there is no {name}", gone.error)

    def test_match_tells_where_points_lie(self):
        points = self.folder / "points.csv"
        points.write_text("x,y,z\n0,0,0\n10,-5,8\n")
        out = self.rigid("match", self.fixed, self.moving, "--points", points).out.splitlines()
        self.assertEqual(out[0], "x_mm,y_mm,z_mm,out_of_view,cycle_distance_mm,score")
        for line, point in zip(out[1:], ([0, 0, 0], [10, -5, 8])):
            found = numpy.array([float(value) for value in line.split(",")[:3]])
            numpy.testing.assert_allclose(found, point + SHIFT_MM * [-1, -1, 1], atol=TOLERANCE_MM)
            self.assertGreater(float(line.split(",")[5]), 0.9)

    def test_match_by_features_needs_no_registration(self):
        points, out = self.folder / "heart.csv", self.folder / "matches.csv"
        points.write_text("0,0,0\n10,-5,8\n900,0,0\n")
        before = self.service.must("registrations", "list").out
        self.service.must("match", self.fixed, self.moving, "--modality", "CT", "--points", points, "--by", "features",
                          "-o", out)
        self.assertEqual(self.service.must("registrations", "list").out, before)
        lines = [line.split(",") for line in out.read_text().splitlines()[1:]]
        for line, point in zip(lines, ([0, 0, 0], [10, -5, 8])):
            # The same voxels, elsewhere in space: to half a voxel along each axis.
            numpy.testing.assert_allclose([float(value) for value in line[:3]], point + SHIFT_MM * [-1, -1, 1],
                                          atol=2.5)
            self.assertLess(float(line[4]), 5)
        self.assertEqual(lines[2], ["", "", "", "1", "", ""])  # outside its own volume

    def test_more_points_than_a_message_holds_are_matched_in_parts(self):
        points = self.folder / "many.csv"
        points.write_text("".join(f"{i % 40},{i % 37},{i % 31}\n" for i in range(20000)))
        name = self.rigid("--json", "register", self.fixed, self.moving, "--inverse").json()["name"]
        out = self.service.must("registrations", "match", name, "--points", points).out.splitlines()
        self.assertEqual(len(out), 20001)
        self.assertLess(float(out[20000].split(",")[4]), 0.1)  # the inverse's own residual

    def test_transfer_carries_labels_over(self):
        carried = self.folder / "carried.nii.gz"
        before = len(self.service.must("--json", "volumes", "list").json()["volumes"])
        self.rigid("transfer", self.fixed, self.moving, "--labels", self.moving_labels, "-o", carried)
        truth, found = (numpy.asarray(nibabel.load(path).dataobj) for path in (self.labels, carried))
        self.assertEqual(truth.shape, found.shape)
        for label in (3, 8):  # left ventricle, lung
            both = numpy.logical_and(truth == label, found == label).sum()
            self.assertGreater(2 * both / ((truth == label).sum() + (found == label).sum()), 0.9)
        # The files that were uploaded stay; what was carried is on this side alone.
        after = self.service.must("--json", "volumes", "list").json()["volumes"]
        self.assertLessEqual(len(after), before + 3)

    def test_labels_of_another_grid_are_refused(self):
        labels = nibabel.load(self.moving_labels)
        other = self.folder / "half_labels.nii.gz"
        nibabel.save(labels.slicer[::2, ::2, ::2], other)
        result = self.service.gvsl("transfer", self.fixed, self.moving, "--modality", "CT", "--no-network", "--linear",
                                   "rigid", "--no-deformation", "--labels", other, "-o", self.folder / "none.nii.gz")
        self.assertEqual(result.code, 1)
        self.assertIn("labels: it does not lie on the grid of volumes/", result.error)

    def test_a_page_shows_before_and_after_and_needs_nothing_else(self):
        page = self.folder / "report.html"
        self.service.must("register", self.fixed, self.moving, "--modality", "CT", "--no-network", "--refine", 10,
                          "--name", "a <pair> & more", "--report", page)
        text = page.read_text()
        self.assertIn("<h1>a &lt;pair&gt; &amp; more</h1>", text)
        for words in ("GOOD", "local correlation", "Checkerboard", "Overlay", "warped grid", "Jacobian determinant"):
            self.assertIn(words, text)
        self.assertNotRegex(text, r"(src|href)=\"(?!data:)")
        pictures = [picture(data) for data in re.findall(r"data:image/png;base64,([^\"]*)", text)]
        self.assertEqual(len(pictures), 9)
        before, after = pictures[0], pictures[1]  # checkerboards
        fixed = pictures[4]
        self.assertEqual(before.shape, fixed.shape)
        # What the squares of the moving volume show is nearer to the fixed one after.
        self.assertLess(numpy.abs(after - fixed).mean(), 0.6 * numpy.abs(before - fixed).mean())

    def test_the_files_of_the_other_direction_undo_the_first(self):
        there, back = self.folder / "there.nii.gz", self.folder / "back.nii.gz"
        # The files of the other direction need its map, which is then made without being asked for.
        name = self.rigid("--json", "register", self.fixed, self.moving, "--moving-to-fixed", "--composed-field",
                          back).json()["name"]
        self.service.must("registrations", "download", name, "--composed-field", there)
        middle = (20, 20, 18, 0)
        sum_mm = sum(numpy.asarray(nibabel.load(path).dataobj)[middle] for path in (there, back))
        numpy.testing.assert_allclose(sum_mm, 0, atol=0.5)  # the same index is not quite the same place

    def test_a_search_has_a_page_too(self):
        page = self.folder / "search.html"
        self.service.must("volumes", "import", self.moving, "--modality", "CT", "--name", "the other")
        self.service.must("embeddings", "backfill")
        self.service.must("search", self.fixed, "--modality", "CT", "--rerank", 1, "--regions", 3, "--filter",
                          'display_name = "the other"', "--report", page)
        text = page.read_text()
        self.assertIn("the other", text)
        self.assertEqual(text.count("central planes of volumes/"), 2)  # the query's and the hit's
        self.assertEqual(text.count("correlation in each region"), 1)
        self.assertNotRegex(text, r"(src|href)=\"(?!data:)")

    def test_the_commands_of_the_document_work(self):
        text = (ROOT / "docs/registration.md").read_text()
        commands = [line[2:] for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)
                    for line in block.splitlines() if line.startswith("$ ")]
        self.assertGreater(len(commands), 5)
        folder = self.folder / "document"
        folder.mkdir()
        for source, name in ((self.fixed, "fixed.nii.gz"), (self.moving, "moving.nii.gz"),
                             (self.moving_labels, "moving_labels.nii.gz")):
            (folder / name).symlink_to(source)
        (folder / "points.csv").write_text("0,0,0\n")
        environment = dict(self.service.environment(), PATH=f"{BIN}:{os.environ['PATH']}")
        result = subprocess.run(["bash", "-euo", "pipefail", "-c", "\n".join(commands)], cwd=folder, env=environment,
                                capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        made = {path.name for path in folder.iterdir()}
        for name in re.findall(r"\S+\.(?:nii\.gz|tfm|html)", "\n".join(commands)):
            self.assertIn(name, made)

    def test_a_hopeless_pair_is_no_success(self):
        noise = self.folder / "noise.nii.gz"
        image = nibabel.load(self.fixed)
        voxels = numpy.random.default_rng(1).integers(-1000, 1000, image.shape).astype(numpy.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), noise)
        result = self.service.gvsl("register", self.fixed, noise, "--modality", "CT", "--no-network", "--refine", 10)
        self.assertEqual(result.code, 1)
        self.assertIn("FAILED", result.error)

    def test_bad_usage_is_told(self):
        self.assertEqual(self.service.gvsl("register", self.fixed, self.moving, "--refine", 5000).code, 2)
        self.assertEqual(self.service.gvsl("register", self.fixed, self.moving, "--affine", "map.txt").code, 2)


if __name__ == "__main__":
    unittest.main()

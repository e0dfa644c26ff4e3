#!/usr/bin/python3
"""register, match, transfer and registrations of the command line, against a real server: a volume that the
scanner saw elsewhere is brought back, and the files say so to others."""
import pathlib
import tempfile
import unittest

import nibabel
import numpy

from service import Service

SHIFT_MM = numpy.array([6.0, -4.0, 5.0])  # RAS, as nibabel has it
TOLERANCE_MM = 1.0  # a quarter of a voxel


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
        self.assertEqual(out[0], "x_mm,y_mm,z_mm,out_of_view,cycle_distance_mm")
        for line, point in zip(out[1:], ([0, 0, 0], [10, -5, 8])):
            found = numpy.array([float(value) for value in line.split(",")[:3]])
            numpy.testing.assert_allclose(found, point + SHIFT_MM * [-1, -1, 1], atol=TOLERANCE_MM)

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

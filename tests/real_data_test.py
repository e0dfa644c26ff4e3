#!/usr/bin/python3
"""Every real volume through the real client and server, judged against nibabel's reading of the same file."""
import pathlib
import tempfile
import unittest

import nibabel
import numpy

from service import Service, require_data

VOLUMES = require_data()
RAS_FROM_LPS = numpy.diag([-1.0, -1.0, 1.0, 1.0])


def is_labels(path):
    return any(word in path.name for word in ("labels", "parcellation", "mask", "lmks")) or path.parent.name == "labels"


def all_files():
    return sorted(path for path in VOLUMES.rglob("*")
                  if path.name.endswith((".nii", ".nii.gz", ".mha", ".mhd")))


def matrix_of(grid):
    """Index to LPS in mm as a 4x4 matrix, from a Grid message's JSON."""
    matrix = numpy.eye(4)
    direction = numpy.array(grid["direction"], float).reshape(3, 3)
    matrix[:3, :3] = direction * numpy.array(grid["spacingMm"], float)
    matrix[:3, 3] = grid["originMm"]
    return matrix


class RealData(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = Service().start()
        cls.addClassCleanup(cls.service.close)
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name)
        cls.stored = {}
        files = all_files()
        for kind, modality, paths in (
                ("labels", "", [path for path in files if is_labels(path)]),
                ("image", "CT", [path for path in files if not is_labels(path) and "ct" in path.name.lower()]),
                ("image", "MR", [path for path in files if not is_labels(path) and "ct" not in path.name.lower()])):
            arguments = ["--kind", kind] + (["--modality", modality] if modality else [])
            answer = cls.service.must("--json", "volumes", "import", *arguments, *paths, timeout=600)
            volumes = answer.json()["volumes"]
            assert len(volumes) == len(paths), (len(volumes), len(paths))
            cls.stored.update(zip(paths, volumes))
        cls.service.must("models", "create", "--size", "tiny", "--seed", "5")

    def test_every_volume_is_listed(self):
        listed = self.service.must("--json", "volumes", "list", "--limit", "1000").json()["volumes"]
        self.assertEqual({volume["name"] for volume in listed},
                         {volume["name"] for volume in self.stored.values()})
        self.assertGreater(len(listed), 300)

    def test_every_volume_comes_back_bit_identical_and_where_nibabel_sees_it(self):
        out = self.folder / "back.nii"
        for path, volume in self.stored.items():
            if not path.name.endswith((".nii", ".nii.gz")):
                continue
            with self.subTest(path=str(path.relative_to(VOLUMES))):
                self.service.must("volumes", "download", volume["name"], "-o", out)
                back, reference = nibabel.load(out), nibabel.load(path)
                # Stored values; where the file scales them, nibabel's float64 result rounds to our float32.
                scaled = reference.header.get_slope_inter() not in ((None, None), (1.0, 0.0))
                expected = (reference.get_fdata().astype(numpy.float32) if scaled
                            else numpy.asanyarray(reference.dataobj))
                actual = numpy.asanyarray(back.dataobj)
                numpy.testing.assert_array_equal(actual, expected)
                # Affines are float32 in a NIfTI header; origins reach hundreds of mm.
                numpy.testing.assert_allclose(back.affine, reference.affine, atol=1e-4)
                numpy.testing.assert_allclose(RAS_FROM_LPS @ matrix_of(volume["grid"]), reference.affine, atol=1e-4)

    def test_metaimages_come_back_with_their_voxels(self):
        files = [path for path in self.stored if path.suffix == ".mha"]
        self.assertTrue(files)
        for path in files:
            out = self.folder / "back.mha"
            self.service.must("volumes", "download", self.stored[path]["name"], "-o", out)
            # Read both again by our own reader, and compare the digests of content that the server gives.
            again = self.service.must("--json", "volumes", "import", "--kind",
                                      "labels" if is_labels(path) else "image", out).json()["volumes"][0]
            self.assertEqual(again["contentSha256"], self.stored[path]["contentSha256"])

    def features(self, path, modality):
        """Global vector and dense features [C, D, H, W] of a file, by the command line."""
        stem = self.folder / path.name.split(".")[0]
        self.service.must("features", "global", path, "--modality", modality, "-o", f"{stem}.global.npy", timeout=600)
        self.service.must("features", "dense", path, "--modality", modality, "-o", f"{stem}.dense.npy", timeout=600)
        return numpy.load(f"{stem}.global.npy").ravel(), numpy.load(f"{stem}.dense.npy")

    def test_features_of_real_anatomy_do_not_depend_on_how_the_file_stores_it(self):
        for name, modality in (("totalsegmentator_abdomen/ct_crop30.nii.gz", "CT"),
                               ("fetal_brain_t2_cc0/fetal_SB_atlas_GA26_operated/srr.nii.gz", "MR"),
                               ("hippocampus_mr/images/" + sorted(
                                   (VOLUMES / "hippocampus_mr/images").iterdir())[0].name, "MR")):
            with self.subTest(name=name):
                original = VOLUMES / name
                one_global, one_dense = self.features(original, modality)
                self.assertEqual(one_global.shape, (128,))
                self.assertEqual(one_dense.shape[0], 8)
                self.assertTrue(numpy.isfinite(one_dense).all())
                self.assertGreater(one_dense.std(), 0)
                # With the level before it behind the last one.
                levels = self.folder / "levels.npy"
                self.service.must("features", "dense", original, "--modality", modality, "--levels", "2", "-o", levels,
                                  timeout=600)
                two_levels = numpy.load(levels)
                self.assertEqual(two_levels.shape, (8 + 16, *one_dense.shape[1:]))
                numpy.testing.assert_array_equal(two_levels[:8], one_dense)
                self.assertTrue(numpy.isfinite(two_levels).all())
                # The same voxels stored as another program would: axes permuted, two of them reversed.
                image = nibabel.load(original)
                turned = image.as_reoriented(numpy.array([[2, 1], [0, -1], [1, -1]]))
                path = self.folder / ("turned_" + original.name)
                nibabel.save(turned, path)
                other_global, other_dense = self.features(path, modality)
                # Same grid, same samples: only the order of summation in resampling could differ.
                numpy.testing.assert_allclose(other_global, one_global, atol=1e-5)
                numpy.testing.assert_allclose(other_dense, one_dense, atol=1e-4)

    def test_points_of_several_calls_come_back_in_their_order(self):
        volume = VOLUMES / "fetal_brain_t2_cc0/fetal_SB_atlas_GA26_operated/srr.nii.gz"
        image = nibabel.load(volume)
        voxels = numpy.random.default_rng(1).uniform(0, numpy.array(image.shape) - 1, (5000, 3))
        points = nibabel.affines.apply_affine(image.affine, voxels) * (-1, -1, 1)  # RAS to LPS

        def sampled(places):
            numpy.savetxt(self.folder / "points.csv", places, delimiter=",")
            self.service.must("features", "sample", volume, "--modality", "MR", "--points", self.folder / "points.csv",
                              "-o", self.folder / "at_points.csv", timeout=600)
            return numpy.loadtxt(self.folder / "at_points.csv", delimiter=",", skiprows=1)

        forward, backward = sampled(points), sampled(points[::-1])
        self.assertEqual(forward.shape, (5000, 4 + 8))  # more than one call takes
        numpy.testing.assert_allclose(forward[:, :3], points, rtol=1e-4, atol=1e-3)
        self.assertTrue((forward[:, 3] == 0).all())
        numpy.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
        # One of them alone.
        numpy.testing.assert_allclose(sampled(points[1234:1235]).ravel(), forward[1234], atol=1e-5)

    def test_the_whole_totalsegmentator_ct_gives_features(self):
        ct = VOLUMES / "totalsegmentator_abdomen/ct.nii.gz"
        pooled = self.service.must("--json", "features", "pool", self.stored[ct]["name"], "--labels",
                                   VOLUMES / "totalsegmentator_abdomen/ct_labels_auto.nii.gz", timeout=900).json()
        labels = numpy.asanyarray(nibabel.load(VOLUMES / "totalsegmentator_abdomen/ct_labels_auto.nii.gz").dataobj)
        self.assertEqual([entry["label"] for entry in pooled["labels"]],
                         [int(value) for value in numpy.unique(labels) if value != 0])
        for entry in pooled["labels"]:
            self.assertTrue(numpy.isfinite(entry["mean"]).all())


if __name__ == "__main__":
    unittest.main(verbosity=2)

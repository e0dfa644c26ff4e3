#!/usr/bin/python3
"""Search through the real client and server: distorted copies find their source, and what was embedded
survives a kill, a lost and a damaged index."""
import pathlib
import tempfile
import unittest

import nibabel
import numpy
from scipy import ndimage
from scipy.spatial.transform import Rotation

from service import DATA, Service, until

KINDS = ("rotated", "deformed", "noised", "resampled")


def distorted(image, kind, seed):
    """A copy of a NIfTI image that shows the same anatomy otherwise."""
    random = numpy.random.default_rng(seed)
    voxels = numpy.asarray(image.dataobj, dtype=float)
    low, high = numpy.percentile(voxels, (0.5, 99.5))
    indices = numpy.indices(voxels.shape).astype(float)
    affine = image.affine
    if kind == "rotated":  # by 10 degrees about an oblique axis through the centre
        turn = Rotation.from_rotvec(numpy.radians(10) * numpy.array([1, 2, 3]) / numpy.sqrt(14)).as_matrix()
        centre = (numpy.array(voxels.shape) - 1)[:, None] / 2
        indices = (turn @ (indices.reshape(3, -1) - centre) + centre).reshape(indices.shape)
    elif kind == "deformed":  # smoothly, by up to two voxels
        for axis in range(3):
            field = ndimage.gaussian_filter(random.standard_normal(voxels.shape), 6)
            indices[axis] += 2 * field / numpy.abs(field).max()
    elif kind == "noised":  # 2 % of the range of intensities
        voxels = voxels + random.normal(0, 0.02 * (high - low), voxels.shape)
    elif kind == "resampled":  # to voxels 1.25 times as large
        shape = tuple(int((side - 1) / 1.25) + 1 for side in voxels.shape)
        indices = numpy.indices(shape) * 1.25
        affine = affine @ numpy.diag([1.25, 1.25, 1.25, 1])
    if kind != "noised":
        voxels = ndimage.map_coordinates(voxels, indices, order=1, mode="nearest")
    return nibabel.Nifti1Image(voxels.astype(numpy.float32), affine)


class Search(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name)

    def setUp(self):
        self.service = Service("--auto_embed")
        self.addCleanup(self.service.close)
        self.service.start()

    def add(self, paths, modality, *more):
        answer = self.service.must("--json", "volumes", "import", "--modality", modality, *more, *paths)
        return [volume["name"] for volume in answer.json()["volumes"]]

    def search(self, volume, *more):
        return self.service.must("--json", "search", volume, *more).json()

    def wait_until_embedded(self, volume, others):
        def embedded():
            result = self.service.gvsl("--json", "search", volume, "--top_k", 1)
            return result.code == 0 and int(result.json()["candidateCount"]) == others
        until(embedded, 240)

    def expect_sources_first(self, sources, modality, spacing_mm):
        """By an untrained network: every copy has its source among the three nearest, and first once the three
        are aligned with it."""
        self.service.must("models", "create", "--size", "tiny", "--seed", 1, "--spacing", spacing_mm)
        names = self.add(sources, modality, "--tag", "source")
        self.service.must("embeddings", "backfill")
        wrong = []
        for kind in KINDS:
            for seed, (path, name) in enumerate(zip(sources, names)):
                copy = self.folder / f"{kind}.nii.gz"
                nibabel.save(distorted(nibabel.load(path), kind, seed), copy)
                copy_name = self.add([copy], modality, "--name", f"{kind} {seed}")[0]
                of_sources = ("--top_k", 3, "--filter", 'tags:"source"')
                answer = self.search(copy_name, *of_sources)
                self.assertEqual(int(answer["candidateCount"]), len(sources))
                found = [hit["volume"] for hit in answer["hits"]]
                self.assertIn(name, found, f"{kind} copy of {path.name}")
                if found[0] != name:
                    print(f"aligning decides: {kind} copy of {path.name}")
                if found[0] != name or seed == 0:
                    best = self.search(copy_name, *of_sources, "--rerank", 3)["hits"][0]
                    if best["volume"] != name:
                        wrong.append(f"{kind} copy of {path.name}")
                    self.assertEqual(best["aligned"]["verdict"]["quality"], "GOOD")
        self.assertEqual(wrong, [])

    def test_distorted_phantoms_find_their_source(self):
        self.service.must("phantoms", "make", "--count", 6, "--size", "64,64,48", "--spacing", "4,4,5", "-o",
                          self.folder / "phantoms")
        self.expect_sources_first(sorted((self.folder / "phantoms").glob("*image.nii.gz")), "CT", "4,4,4")

    @unittest.skipUnless((DATA / "volumes").is_dir(), f"no real images at {DATA}")
    def test_distorted_real_volumes_find_their_source(self):
        self.expect_sources_first(sorted((DATA / "volumes/hippocampus_mr/images").glob("*.nii.gz"))[:8], "MR",
                                  "1,1,1")

    def test_what_was_embedded_survives_a_kill_and_a_lost_or_damaged_index(self):
        self.service.must("models", "create", "--size", "tiny", "--seed", 1)
        self.service.must("phantoms", "make", "--count", 6, "--size", "32,32,32", "--spacing", "4,4,5", "-o",
                          self.folder / "small")
        names = self.add(sorted((self.folder / "small").glob("*image.nii.gz")), "CT")
        self.wait_until_embedded(names[0], 5)
        before = self.search(names[0])["hits"]
        self.assertEqual(len(before), 5)

        self.service.restart()  # killed: the index was not written
        self.assertEqual(self.search(names[0])["hits"], before)

        self.assertEqual(self.service.stop(), 0)
        index, = (self.service.folder / "data/search").glob("*.index")  # written at the end
        index.write_bytes(index.read_bytes()[:-100])
        self.service.start()
        self.assertEqual(self.search(names[0])["hits"], before)

        self.service.stop()
        index.unlink()
        self.service.start()
        self.service.must("volumes", "delete", before[0]["volume"])
        self.assertEqual(self.search(names[0])["hits"], before[1:])

    def test_the_command_line_tells_hits_and_mistakes(self):
        self.assertEqual(self.service.gvsl("search", "volumes/x", "--top_k", 0).code, 2)
        self.service.must("models", "create", "--size", "tiny", "--seed", 1)
        missing = self.service.gvsl("search", "volumes/x")
        self.assertEqual(missing.code, 1)
        self.assertIn("there is no volumes/x", missing.error)
        self.service.must("phantoms", "make", "--count", 2, "--size", "32,32,32", "--spacing", "4,4,5", "-o",
                          self.folder / "two")
        first, second = sorted((self.folder / "two").glob("*image.nii.gz"))
        name, = self.add([first], "CT", "--name", "the first")
        self.assertIn("embedded", self.service.must("embeddings", "backfill").out)
        shown = self.service.must("search", second, "--modality", "CT").out.splitlines()  # a file works alike
        self.assertRegex(shown[1], rf"^1 +0\.\d+ +- +- +{name} +the first +CT$")
        self.assertRegex(shown[2], r"^each of 1 volumes, by models/")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/python3
"""Bad input through the real client and server: each gives exit status 1 and a message that says what is
wrong, and leaves the server as it was."""
import collections
import gzip
import os
import pathlib
import signal
import struct
import subprocess
import tempfile
import unittest

import nibabel
import numpy
import torch

from service import BIN, Service, until

AFFINE = numpy.diag([1.0, 1.0, 1.0, 1.0])


class Foreign:
    """What an attacker would put into a pickle: unpickling it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = Service("--memory_limit_mib", "2048").start()
        cls.addClassCleanup(cls.service.close)
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name)
        rng = numpy.random.default_rng(7)
        cls.voxels = rng.integers(-1000, 2000, (40, 36, 24), dtype=numpy.int16)
        cls.good = cls.folder / "good.nii.gz"
        nibabel.save(nibabel.Nifti1Image(cls.voxels, AFFINE), cls.good)
        cls.service.must("models", "create", "--size", "tiny", "--seed", "1")
        cls.name = cls.service.must("--json", "volumes", "import", "--modality", "CT",
                                    cls.good).json()["volumes"][0]["name"]

    def tearDown(self):
        """The server lives, and holds what it held before."""
        self.service.must("health")
        listed = self.service.must("--json", "volumes", "list").json()["volumes"]
        self.assertEqual([volume["name"] for volume in listed], [self.name])

    def refused(self, *arguments, saying):
        """Exit status 1, every word of `saying` in the message, and no torrent of text."""
        result = self.service.gvsl(*arguments)
        self.assertEqual(result.code, 1, result.out + result.error)
        for words in [saying] if isinstance(saying, str) else saying:
            self.assertIn(words.lower(), result.error.lower())
        self.assertLess(len(result.error), 2000)

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def nifti(self, name, voxels=None, affine=AFFINE, edit=None, kind=nibabel.Nifti1Image):
        """A NIfTI file; `edit(bytearray)` changes its 348-byte header as stored."""
        path = self.folder / name
        image = kind(self.voxels if voxels is None else voxels, affine)
        image.set_sform(affine, 1)
        image.set_qform(None, 0)
        nibabel.save(image, path)
        if edit:
            content = bytearray(path.read_bytes())
            edit(content)
            path.write_bytes(content)
        return path

    def test_a_truncated_file_is_refused(self):
        whole = self.nifti("whole.nii").read_bytes()
        self.refused("volumes", "import", self.file("cut.nii", whole[:-1000]), saying="cut.nii")
        packed = self.good.read_bytes()
        self.refused("volumes", "import", self.file("cut.nii.gz", packed[:len(packed) // 2]),
                     saying="cut.nii.gz")

    def test_a_corrupt_gzip_stream_is_refused(self):
        packed = bytearray(self.good.read_bytes())
        for i in range(len(packed) // 2, len(packed) // 2 + 64):
            packed[i] ^= 0x5A
        self.refused("volumes", "import", self.file("corrupt.nii.gz", bytes(packed)), saying="corrupt.nii.gz")

    def test_a_gzip_bomb_is_refused_without_inflating_it(self):
        header = bytearray(self.nifti("small.nii").read_bytes()[:352])
        path = self.folder / "bomb.nii.gz"
        # 2 GiB of zeros behind a header that promises 40 x 36 x 24 voxels.
        with gzip.open(path, "wb", compresslevel=1) as bomb:
            bomb.write(bytes(header))
            for _ in range(256):
                bomb.write(bytes(8 << 20))
        self.refused("volumes", "import", path, saying="bomb.nii.gz")

    def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_memory_is_taken(self):
        def promise(content):
            struct.pack_into("<8h", content, 40, 3, 30000, 30000, 4, 1, 1, 1, 1)
        self.refused("volumes", "import", self.nifti("promise.nii", edit=promise), saying="promise.nii")

    def test_zero_sized_and_flat_and_4d_volumes_are_refused_with_the_reason(self):
        def empty(content):
            struct.pack_into("<8h", content, 40, 3, 40, 0, 24, 1, 1, 1, 1)
        self.refused("volumes", "import", self.nifti("empty.nii", edit=empty), saying="empty.nii")
        self.refused("volumes", "import",
                     self.nifti("flat.nii", voxels=numpy.zeros((40, 36), numpy.int16)), saying="flat.nii")
        self.refused("volumes", "import",
                     self.nifti("four.nii", voxels=numpy.zeros((8, 8, 8, 5), numpy.int16)),
                     saying=["four.nii", "4D"])

    def test_nan_and_infinite_voxels_are_refused_with_their_place(self):
        for bad in (numpy.nan, numpy.inf):
            voxels = self.voxels.astype(numpy.float32)
            voxels[3, 2, 1] = bad
            self.refused("volumes", "import", self.nifti("nan.nii", voxels=voxels),
                         saying=["nan.nii", "3, 2, 1"])

    def test_absurd_spacing_and_singular_direction_are_refused(self):
        self.refused("volumes", "import", self.nifti("far.nii", affine=numpy.diag([1e9, 1, 1, 1])),
                     saying="spacing")
        singular = numpy.eye(4)
        singular[:3, 2] = singular[:3, 1]
        self.refused("volumes", "import", self.nifti("singular.nii", affine=singular), saying="singular.nii")

    def test_a_file_that_is_no_image_is_refused(self):
        self.refused("volumes", "import", self.file("noise.nii", os.urandom(5000)), saying="noise.nii")
        self.refused("volumes", "import", self.folder / "absent.nii", saying="absent.nii")
        self.refused("volumes", "import", self.file("image.jpg", b"\xff\xd8"), saying="image.jpg")

    def test_unknown_names_are_not_found(self):
        for arguments in (["volumes", "show", "volumes/unknown"], ["models", "show", "models/unknown"],
                          ["volumes", "delete", "volumes/unknown"],
                          ["features", "global", "volumes/unknown", "-o", self.folder / "x.npy"],
                          ["features", "global", self.name, "--model", "models/unknown", "-o",
                           self.folder / "x.npy"]):
            self.refused(*arguments, saying="unknown")
        self.assertFalse((self.folder / "x.npy").exists())

    def test_names_of_ten_thousand_characters_are_refused_in_a_short_message(self):
        long_name = "volumes/" + "n" * 10000
        self.refused("volumes", "show", long_name, saying="name")
        self.refused("volumes", "import", "--name", "n" * 10000, self.good, saying="display_name")

    def test_a_pth_with_a_foreign_class_is_refused_and_not_run(self):
        for new_format in (True, False):
            trace = self.folder / "executed"
            path = self.folder / "foreign.pth"
            torch.save(collections.OrderedDict([("unet.inc.double_conv.0.weight", Foreign(trace))]), path,
                       _use_new_zipfile_serialization=new_format)
            self.refused("models", "import", path, saying="system")
            self.assertFalse(trace.exists())

    def test_tensors_that_do_not_fit_are_named(self):
        path = self.folder / "misfit.pth"
        torch.save(collections.OrderedDict([("unet.inc.double_conv.0.weight", torch.zeros(32, 1, 3, 3, 3)),
                                            ("classifier.weight", torch.zeros(2, 2))]), path)
        self.refused("models", "import", path, saying=["classifier.weight", "down1"])

    def test_a_window_larger_than_memory_is_refused_with_the_largest_that_fits(self):
        base = self.service.must("--json", "models", "create", "--size", "base", "--seed", "1").json()["name"]
        self.refused("features", "global", self.name, "--model", base, "--window", "512",
                     "-o", self.folder / "x.npy", saying="window")
        self.service.must("models", "delete", base)
        self.refused("features", "global", self.name, "--window", "100", "-o", self.folder / "x.npy",
                     saying=["window", "16"])

    def test_a_deadline_of_a_millisecond_stops_the_work(self):
        self.refused("--timeout", "0.001", "features", "dense", self.name, "-o", self.folder / "x.npy",
                     saying="deadline")
        self.assertFalse((self.folder / "x.npy").exists())

    def test_an_interrupted_dense_stream_leaves_no_file_and_an_idle_server(self):
        # 256^3 at 1 mm in windows of 64 every 16 voxels: minutes of work.
        big = self.nifti("big.nii", voxels=numpy.zeros((64, 64, 64), numpy.int16),
                         affine=numpy.diag([4.0, 4.0, 4.0, 1.0]))
        stored = self.service.must("--json", "volumes", "import", big).json()["volumes"][0]["name"]
        process = subprocess.Popen([BIN / "gvsl", "features", "dense", stored, "--window", "64", "--overlap", "0.75",
                                    "-o", self.folder / "big.npy"], env=self.service.environment(),
                                   stderr=subprocess.PIPE, text=True)
        until(lambda: any(part.stat().st_size > 0 for part in self.folder.glob("big.npy.part-*")))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, error)
        self.assertFalse((self.folder / "big.npy").exists())
        # Served at once: the cancelled work does not hold the device.
        self.service.must("features", "global", self.name, "-o", self.folder / "after.npy", timeout=60)
        self.service.must("volumes", "delete", stored)

    def test_wrong_usage_exits_with_2(self):
        for arguments in ([], ["volumes"], ["volumes", "fly"], ["features", "dense", self.name],
                          ["--timeout", "soon", "status"]):
            self.assertEqual(self.service.gvsl(*arguments).code, 2, arguments)


if __name__ == "__main__":
    unittest.main(verbosity=2)

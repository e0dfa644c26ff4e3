#!/usr/bin/python3
"""Registrations as DICOM objects, read by pydicom and applied as the standard says, checked by dciodvfy, and stored in
a real archive."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy
import pydicom
from pydicom.uid import generate_uid

from ingest_service import ORTHANC, Archive, free_port, require_programs
from service import BIN, SKIPPED, Service

require_programs("dciodvfy")
if not ORTHANC:
    print("skipped: needs Debian's orthanc")
    sys.exit(SKIPPED)

SPATIAL, DEFORMABLE = "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.66.3"
SHIFT_MM = numpy.array([6.0, -4.0, 5.0])
# Vectors are float32, and the command line prints points to 1e-4 mm.
TOLERANCE_MM = 1e-3


def copied(folder, to, shift_mm, patient=None):
    """A series as another study of the patient has it: elsewhere, under UIDs of its own."""
    to.mkdir()
    for path in sorted(folder.glob("*.dcm")):
        image = pydicom.dcmread(path)
        image.ImagePositionPatient = list(numpy.array(image.ImagePositionPatient, float) + shift_mm)
        for word in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(image, word, generate_uid(entropy_srcs=[to.name, getattr(image, word)]))
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        if patient:
            image.PatientID = patient
        image.save_as(to / path.name)
    return to


def read(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]


def matrix_of(item):
    return numpy.array(item.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)


def through(matrix, points):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def deformed(item, points):
    """Points of the Registered RCS in the Source RCS, as PS3.3 C.20.3.1.1 says, with linear interpolation."""
    if "PreDeformationMatrixRegistrationSequence" in item:
        points = through(matrix_of(item.PreDeformationMatrixRegistrationSequence[0]), points)
    grid = item.DeformableRegistrationGridSequence[0]
    size, spacing = numpy.array(grid.GridDimensions), numpy.array(grid.GridResolution)
    row, column = numpy.array(grid.ImageOrientationPatient, float).reshape(2, 3)
    axes = numpy.stack([row, column, numpy.cross(row, column)])
    vectors = numpy.frombuffer(grid.VectorGridData, "<f4").reshape(*size[::-1], 3).astype(float)
    index = (points - numpy.array(grid.ImagePositionPatient, float)) @ axes.T / spacing
    assert (index >= 0).all() and (index <= size - 1).all(), "the grid does not cover the images"
    low = numpy.minimum(index.astype(int), size - 2)
    part = index - low
    moved = points.copy()
    for corner in numpy.ndindex(2, 2, 2):
        weight = numpy.where(corner, part, 1 - part).prod(axis=1, keepdims=True)
        x, y, z = (low + corner).T
        moved += weight * vectors[z, y, x]
    return through(matrix_of(item.PostDeformationMatrixRegistrationSequence[0]), moved)


class Results(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name)
        cls.service = Service().start()
        cls.addClassCleanup(cls.service.close)
        cls.key = cls.folder / "key"
        cls.ingest("phantom", "--count", 1, "--size", "40,40,36", "--spacing", "4,4,5", "-o", cls.folder / "made")
        first = next((cls.folder / "made").rglob("*.dcm")).parent
        cls.fixed = copied(first, cls.folder / "fixed", 0)
        cls.moving = copied(first, cls.folder / "moving", SHIFT_MM)
        cls.other = copied(first, cls.folder / "other", SHIFT_MM, patient="another")
        cls.far = copied(first, cls.folder / "far", [0, 0, 165])  # both see 15 of 180 mm
        volumes = [cls.imported(folder) for folder in (cls.fixed, cls.moving, cls.other, cls.far)]
        cls.fixed_name, cls.moving_name, cls.other_name, cls.far_name = volumes
        cls.service.must("models", "create", "--size", "tiny", "--seed", 1, "--spacing", "4,4,4")
        # The field does all of the work in the first, the matrix in the second.
        cls.bent = cls.register(cls.moving_name, "--linear", "affine", "--init", "none", "--refine", 15)
        cls.affine = cls.register(cls.moving_name, "--linear", "affine", "--no-deformation", "--inverse")

    @classmethod
    def ingest(cls, *arguments):
        return subprocess.run([BIN / "gvsl-ingest", *map(str, arguments)], env=cls.service.environment(),
                              capture_output=True, text=True, check=True)

    @classmethod
    def imported(cls, folder):
        report = json.loads(cls.ingest("import", "--json", "--key_file", cls.key, folder).stdout)
        return report["series"][0]["volumes"][0]["name"]

    @classmethod
    def register(cls, moving, *arguments):
        made = cls.service.gvsl("--json", "register", cls.fixed_name, moving, "--no-network", *arguments)
        # One that FAILED is told as an error behind it.
        return json.JSONDecoder().raw_decode(made.out)[0]["name"]

    def results(self, registration, *arguments, key=None):
        return subprocess.run([BIN / "gvsl-ingest", "results", registration, "--key_file", str(key or self.key),
                               *map(str, arguments)], env=self.service.environment(), capture_output=True, text=True)

    def written(self, registration, moving=None):
        """The object's file, of a registration of `fixed` and `moving`."""
        path = self.folder / "object.dcm"
        done = self.results(registration, "--dicom", self.fixed, "--dicom", moving or self.moving, "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path

    def refused(self, words, *arguments, **options):
        path = self.folder / "none.dcm"
        done = self.results(*arguments, "-o", path, **options)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(words, done.stderr)
        self.assertFalse(path.exists())

    def points(self):
        """Of the fixed volume: its corners, and others."""
        images = read(self.fixed)
        corners = [numpy.array(image.ImagePositionPatient, float) for image in (images[0], images[-1])]
        corners += [corner + [4 * 39, 4 * 39, 0] for corner in corners]
        low, high = numpy.min(corners, axis=0), numpy.max(corners, axis=0)
        others = numpy.random.default_rng(7).uniform(low, high, (500, 3))
        return numpy.concatenate([corners, others])

    def matched(self, registration, points, *arguments):
        csv = self.folder / "points.csv"
        numpy.savetxt(csv, points, delimiter=",", header="x,y,z", comments="", fmt="%.17g")
        out = self.service.must("registrations", "match", registration, "--points", csv, *arguments).out
        return numpy.array([line.split(",")[:3] for line in out.splitlines()[1:]], float)

    def assert_near(self, a, b):
        numpy.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE_MM)

    def assert_refers(self, item, folder):
        self.assertEqual([(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID)
                          for one in item.ReferencedImageSequence],
                         [(image.SOPClassUID, image.SOPInstanceUID)
                          for image in sorted(read(folder), key=lambda image: image.ImagePositionPatient[2])])

    def test_compressed_copies_are_the_same_images(self):
        compressed = self.folder / "compressed"
        compressed.mkdir()
        for path in self.moving.glob("*.dcm"):
            subprocess.run(["dcmcjpls", path, compressed / path.name], check=True)  # lossless: the same instances
        objects = [pydicom.dcmread(self.written(self.bent, moving)) for moving in (self.moving, compressed)]
        # Which is a hash of all that the object says.
        self.assertEqual(objects[0].SOPInstanceUID, objects[1].SOPInstanceUID)

    def test_a_deformable_registration_takes_points_of_the_fixed_images_to_the_moving_ones(self):
        made = pydicom.dcmread(self.written(self.bent))
        self.assertEqual(made.SOPClassUID, DEFORMABLE)
        fixed_item, moving_item = made.DeformableRegistrationSequence
        points = self.points()
        expected = self.matched(self.bent, points)
        vectors = numpy.frombuffer(moving_item.DeformableRegistrationGridSequence[0].VectorGridData, "<f4")
        self.assertGreater(numpy.abs(vectors).max(), 0.1)  # it is one that bends
        self.assertGreater(numpy.abs(expected - points).max(), 1)
        self.assert_near(deformed(moving_item, points), expected)
        # The fixed images lie in the registered frame of reference as they are.
        self.assertNotIn("DeformableRegistrationGridSequence", fixed_item)
        self.assertNotIn("PostDeformationMatrixRegistrationSequence", fixed_item)
        for item, folder in ((fixed_item, self.fixed), (moving_item, self.moving)):
            self.assert_refers(item, folder)
            self.assertEqual(item.SourceFrameOfReferenceUID, read(folder)[0].FrameOfReferenceUID)

    def test_an_affine_registration_takes_points_of_the_moving_images_to_the_fixed_ones(self):
        made = pydicom.dcmread(self.written(self.affine))
        self.assertEqual(made.SOPClassUID, SPATIAL)
        fixed_item, moving_item = made.RegistrationSequence
        matrix = matrix_of(moving_item.MatrixRegistrationSequence[0].MatrixSequence[0])
        points = self.points()
        in_moving = self.matched(self.affine, points)
        self.assertGreater(numpy.abs(in_moving - points).max(), 3)
        self.assert_near(through(matrix, in_moving), points)
        # The server's own inverse has its matrix and a field, which is zero for an affine map.
        self.assert_near(through(matrix, in_moving), self.matched(self.affine, in_moving, "--moving-to-fixed"))
        # The file for ITK is a pull-back: it goes the other way.
        tfm = self.folder / "map.tfm"
        self.service.must("registrations", "download", self.affine, "--affine", tfm)
        numbers = re.search(r"^Parameters: (.*)$", tfm.read_text(), re.M)[1].split()
        pull = numpy.eye(4)
        pull[:3, :3] = numpy.reshape(numbers[:9], (3, 3)).astype(float)
        pull[:3, 3] = numpy.array(numbers[9:], float)
        numpy.testing.assert_allclose(matrix @ pull, numpy.eye(4), atol=1e-9)
        identity = fixed_item.MatrixRegistrationSequence[0].MatrixSequence[0]
        numpy.testing.assert_array_equal(matrix_of(identity), numpy.eye(4))
        self.assertEqual(identity.FrameOfReferenceTransformationMatrixType, "RIGID")
        for item, folder in ((fixed_item, self.fixed), (moving_item, self.moving)):
            self.assert_refers(item, folder)
            self.assertEqual(item.FrameOfReferenceUID, read(folder)[0].FrameOfReferenceUID)

    def test_the_object_belongs_to_the_fixed_images_study(self):
        made, image = pydicom.dcmread(self.written(self.affine)), read(self.fixed)[0]
        for word in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
                     "AccessionNumber", "FrameOfReferenceUID", "SpecificCharacterSet"):
            self.assertEqual(made[word].value, image[word].value, word)
        self.assertNotEqual(made.SeriesInstanceUID, image.SeriesInstanceUID)
        self.assertEqual(made.Modality, "REG")
        self.assertEqual(made.ReferencedSeriesSequence[0].SeriesInstanceUID, image.SeriesInstanceUID)
        other, = made.StudiesContainingOtherReferencedInstancesSequence
        self.assertEqual(other.StudyInstanceUID, read(self.moving)[0].StudyInstanceUID)
        self.assertEqual(len(other.ReferencedSeriesSequence[0].ReferencedInstanceSequence), 36)
        comment = made.RegistrationSequence[1].MatrixRegistrationSequence[0].FrameOfReferenceTransformationComment
        self.assertIn(self.affine, comment)

    def test_the_objects_have_what_the_standard_asks_for(self):
        for registration in (self.bent, self.affine):
            told = subprocess.run(["dciodvfy", self.written(registration)], capture_output=True, text=True).stderr
            self.assertRegex(told, "(?m)^(Deformable)?SpatialRegistration$")
            self.assertNotRegex(told, "(?m)^Error")

    def test_an_archive_has_it_as_it_was_written_however_often_it_is_sent(self):
        folder = self.folder / "orthanc"
        folder.mkdir()
        archive = Archive(folder)
        self.addCleanup(archive.close)
        for path in (*self.fixed.glob("*"), *self.moving.glob("*")):
            archive.ask("instances", path.read_bytes())
        for objects, (registration, kind) in enumerate(((self.bent, DEFORMABLE), (self.affine, SPATIAL)), 1):
            path = self.written(registration)
            # From files, and from the archive's own images.
            studies = [word for part in (self.fixed, self.moving)
                       for word in ("--study", read(part)[0].StudyInstanceUID)]
            for source in (["--dicom", self.fixed, "--dicom", self.moving], studies):
                done = self.results(registration, "--peer", archive.peer, "--json", *source)
                self.assertEqual(done.returncode, 0, done.stderr)
                told = json.loads(done.stdout)
                self.assertEqual(told["storedAt"], archive.peer)
                found = archive.ask("tools/lookup", told["sopInstanceUid"].encode())
                stored, = (archive.get(one["Path"].lstrip("/") + "/file") for one in found if one["Type"] == "Instance")
                self.assertEqual(self.dataset_of(stored), self.dataset_of(path.read_bytes()))
            self.assertEqual(pydicom.dcmread(path).SOPClassUID, kind)
            study, = archive.ask("tools/lookup", read(self.fixed)[0].StudyInstanceUID.encode())
            self.assertEqual(len(archive.ask(study["Path"].lstrip("/") + "/instances")), 36 + objects)

    @staticmethod
    def dataset_of(file):
        """The bytes behind the meta header, whose length it has."""
        return file[144 + int.from_bytes(file[140:144], "little"):]

    def test_an_archive_that_is_not_there_gets_nothing(self):
        done = self.results(self.affine, "--dicom", self.fixed, "--dicom", self.moving, "--peer",
                            f"PACS@127.0.0.1:{free_port()}")
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot open an association with PACS@127.0.0.1", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_another_study_is_never_taken_for_the_one_that_was_registered(self):
        self.refused("the moving volume: none of the 2 series", self.affine, "--dicom", self.fixed, "--dicom", self.far)
        self.refused("the fixed volume: none of the 1 series", self.affine, "--dicom", self.moving)
        self.refused("the fixed volume: none of the 2 series", self.affine, "--dicom", self.fixed, "--dicom",
                     self.moving, key=self.folder / "another.key")
        # The same UIDs, and one other pixel.
        changed = self.folder / "changed"
        shutil.copytree(self.moving, changed)
        path = changed / "IM00007.dcm"
        image = pydicom.dcmread(path)
        image.PixelData = b"\1\0" + image.PixelData[2:]
        image.save_as(path)
        self.refused("but gives other voxels", self.affine, "--dicom", self.fixed, "--dicom", changed)

    def test_two_patients_are_in_one_object_only_when_that_is_said(self):
        made = self.register(self.other_name, "--linear", "rigid", "--no-deformation")
        sources = ["--dicom", self.fixed, "--dicom", self.other]
        self.refused("different patients", made, *sources)
        path = self.folder / "across.dcm"
        done = self.results(made, *sources, "--across_patients", "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(pydicom.dcmread(path).PatientID, read(self.fixed)[0].PatientID)

    def test_a_registration_that_failed_goes_into_no_record(self):
        made = self.register(self.far_name, "--init", "none", "--linear", "none", "--no-deformation")
        self.refused("goes into no patient's record", made, "--dicom", self.fixed, "--dicom", self.far)


if __name__ == "__main__":
    unittest.main()

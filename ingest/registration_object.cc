#include "ingest/registration_object.h"

#include <dcmtk/dcmdata/dcistrmf.h>
#include <dcmtk/dcmdata/dcostrmb.h>

#include <cmath>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "imaging/output_file.h"
#include "imaging/parallel.h"
#include "imaging/sha256.h"
#include "ingest/dataset_builder.h"
#include "ingest/dicom_series_writer.h"
#include "ingest/vec3.h"

namespace gvsl {
namespace {

// How far a matrix that is called RIGID may be from orthonormal (PS3.3 C.20.2.1.2).
constexpr double kRigidTolerance = 1e-6;

struct Code {
  const char* value;
  const char* meaning;
};
// PS3.16 CID 7100.
constexpr Code kFrameOfReferenceIdentity = {"125021", "Frame of Reference Identity"};
constexpr Code kContentBasedAlignment = {"125024", "Image Content-based Alignment"};

bool IsRigid(const Mat3& matrix) {
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      double product = 0;
      for (size_t k = 0; k < 3; ++k) product += matrix[k][i] * matrix[k][j];
      if (std::abs(product - (i == j)) > kRigidTolerance) return false;
    }
  }
  return Determinant(matrix) > 0;
}

// Patient, General Study and Frame of Reference modules, the character set that they are in, and of
// which side of the body the images are.
absl::Status DescribeStudy(const std::string& fixed_file, DatasetBuilder& out) {
  DcmFileFormat file;
  const OFCondition loaded = file.loadFile(OFFilename(fixed_file.c_str()));
  if (loaded.bad()) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot read ", ShownPath(fixed_file), ": ", loaded.text()));
  }
  DcmDataset& from = *file.getDataset();
  // Type 1 or 2 in these modules: there, if empty.
  const std::pair<DcmTagKey, DcmEVR> needed[] = {{DCM_PatientName, EVR_PN},
                                                 {DCM_PatientID, EVR_LO},
                                                 {DCM_PatientBirthDate, EVR_DA},
                                                 {DCM_PatientSex, EVR_CS},
                                                 {DCM_StudyInstanceUID, EVR_UI},
                                                 {DCM_StudyDate, EVR_DA},
                                                 {DCM_StudyTime, EVR_TM},
                                                 {DCM_ReferringPhysicianName, EVR_PN},
                                                 {DCM_StudyID, EVR_SH},
                                                 {DCM_AccessionNumber, EVR_SH},
                                                 {DCM_FrameOfReferenceUID, EVR_UI},
                                                 {DCM_PositionReferenceIndicator, EVR_LO},
                                                 {DCM_Laterality, EVR_CS}};
  for (const auto& [key, vr] : needed) out.Copy(key, vr, from);
  const std::pair<DcmTagKey, DcmEVR> optional[] = {{DCM_SpecificCharacterSet, EVR_CS},
                                                   {DCM_IssuerOfPatientID, EVR_LO},
                                                   {DCM_StudyDescription, EVR_LO}};
  for (const auto& [key, vr] : optional) {
    if (from.tagExistsWithValue(key)) out.Copy(key, vr, from);
  }
  return absl::OkStatus();
}

// General and Spatial Registration Series, General and Enhanced General Equipment, and what both
// registration modules begin with.
void DescribeObject(const RegistrationToWrite& registration, DatasetBuilder& out) {
  out.Text(DCM_Modality, EVR_CS, "REG");
  out.Text(DCM_SeriesNumber, EVR_IS, "");
  out.Text(DCM_SeriesDescription, EVR_LO, "GVSL registration");
  out.Text(DCM_Manufacturer, EVR_LO, "GVSL");
  out.Text(DCM_ManufacturerModelName, EVR_LO, "gvsl-ingest");
  // Software has no serial number, and the attribute must have a value.
  out.Text(DCM_DeviceSerialNumber, EVR_LO, registration.software_version);
  out.Text(DCM_SoftwareVersions, EVR_LO, registration.software_version);
  const std::time_t created = registration.create_time_s;
  std::tm local = {};  // dates and times of an object are local (PS3.3 C.12.1)
  localtime_r(&created, &local);
  char date[9], time[7];
  std::strftime(date, sizeof(date), "%Y%m%d", &local);
  std::strftime(time, sizeof(time), "%H%M%S", &local);
  out.Text(DCM_ContentDate, EVR_DA, date);
  out.Text(DCM_ContentTime, EVR_TM, time);
  out.Text(DCM_InstanceNumber, EVR_IS, "1");
  out.Text(DCM_ContentLabel, EVR_CS, "REGISTRATION");
  out.Text(DCM_ContentDescription, EVR_LO, registration.content_description);
  out.Text(DCM_ContentCreatorName, EVR_PN, "");
}

// Image SOP Instance Reference Macro (PS3.3 10.3), or without frames the SOP Instance Reference
// Macro (10.8).
void ReferTo(const RegisteredImages& series, const DcmTagKey& sequence, bool with_frames,
             DatasetBuilder& out) {
  for (const ReferencedImage& image : series.images) {
    DatasetBuilder item = out.Item(sequence);
    item.Text(DCM_ReferencedSOPClassUID, EVR_UI, image.sop_class_uid);
    item.Text(DCM_ReferencedSOPInstanceUID, EVR_UI, image.sop_instance_uid);
    if (with_frames && !image.frames.empty()) {
      item.Text(DCM_ReferencedFrameNumber, EVR_IS, absl::StrJoin(image.frames, "\\"));
    }
  }
}

// Common Instance Reference module (PS3.3 C.12.2): by study and series.
void ReferToSeries(const RegistrationToWrite& registration, DatasetBuilder& out) {
  const auto refer = [](const std::vector<const RegisteredImages*>& all, DatasetBuilder& into) {
    for (const RegisteredImages* series : all) {
      DatasetBuilder item = into.Item(DCM_ReferencedSeriesSequence);
      item.Text(DCM_SeriesInstanceUID, EVR_UI, series->series_instance_uid);
      ReferTo(*series, DCM_ReferencedInstanceSequence, false, item);
    }
  };
  std::vector<const RegisteredImages*> here = {&registration.fixed};
  const RegisteredImages& moving = registration.moving;
  if (moving.study_instance_uid == registration.fixed.study_instance_uid) {
    here.push_back(&moving);
  } else {
    DatasetBuilder other = out.Item(DCM_StudiesContainingOtherReferencedInstancesSequence);
    other.Text(DCM_StudyInstanceUID, EVR_UI, moving.study_instance_uid);
    refer({&moving}, other);
  }
  refer(here, out);
}

void PutCode(const Code& code, DatasetBuilder& out) {
  DatasetBuilder item = out.Item(DCM_RegistrationTypeCodeSequence);
  item.Text(DCM_CodeValue, EVR_SH, code.value);
  item.Text(DCM_CodingSchemeDesignator, EVR_SH, "DCM");
  item.Text(DCM_CodeMeaning, EVR_LO, code.meaning);
}

// 4 x 4, row by row.
void PutMatrix(const AffineMap& map, DatasetBuilder out) {
  std::vector<double> values;
  for (size_t r = 0; r < 3; ++r) {
    values.insert(values.end(), map.matrix[r].begin(), map.matrix[r].end());
    values.push_back(map.translation_mm[r]);
  }
  values.insert(values.end(), {0, 0, 0, 1});
  out.Decimals(DCM_FrameOfReferenceTransformationMatrix, values);
  out.Text(DCM_FrameOfReferenceTransformationMatrixType, EVR_CS,
           IsRigid(map.matrix) ? "RIGID" : "AFFINE");
}

// An item of the Registration Sequence (PS3.3 C.20.2): how images come into the Registered RCS.
void PutRegistration(const RegisteredImages& images, const AffineMap& to_registered,
                     const Code& method, const std::string& comment, DatasetBuilder& out) {
  DatasetBuilder item = out.Item(DCM_RegistrationSequence);
  item.Text(DCM_FrameOfReferenceUID, EVR_UI, images.frame_of_reference_uid);
  ReferTo(images, DCM_ReferencedImageSequence, true, item);
  DatasetBuilder matrices = item.Item(DCM_MatrixRegistrationSequence);
  matrices.Text(DCM_FrameOfReferenceTransformationComment, EVR_LO, comment);
  PutCode(method, matrices);
  PutMatrix(to_registered, matrices.Item(DCM_MatrixSequence));
}

// An item of the Deformable Registration Sequence (PS3.3 C.20.3), without matrix and grid.
DatasetBuilder PutDeformable(const RegisteredImages& images, const Code& method,
                             const std::string& comment, DatasetBuilder& out) {
  DatasetBuilder item = out.Item(DCM_DeformableRegistrationSequence);
  item.Text(DCM_SourceFrameOfReferenceUID, EVR_UI, images.frame_of_reference_uid);
  ReferTo(images, DCM_ReferencedImageSequence, true, item);
  item.Text(DCM_FrameOfReferenceTransformationComment, EVR_LO, comment);
  PutCode(method, item);
  return item;
}

void PutGrid(const Grid& grid, DatasetBuilder& out) {
  const Mat3& d = grid.direction;
  out.Decimals(DCM_ImagePositionPatient, {grid.origin_mm.begin(), grid.origin_mm.end()});
  out.Decimals(DCM_ImageOrientationPatient, {d[0][0], d[1][0], d[2][0], d[0][1], d[1][1], d[2][1]});
  out.Numbers(DCM_GridDimensions, std::vector<uint32_t>(grid.size.begin(), grid.size.end()));
  out.Numbers(DCM_GridResolution,
              std::vector<double>(grid.spacing_mm.begin(), grid.spacing_mm.end()));
}

// Writes u at the points of the grid: x, y and z together, columns first. Returns a digest of the
// bytes.
absl::StatusOr<std::string> WriteVectors(const SpatialMap& map, const Grid& grid,
                                         const std::string& path) {
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  const PointMapper mapper(map);
  const int64_t columns = grid.size[0], rows = grid.size[1];
  std::vector<float> slice(static_cast<size_t>(3 * columns * rows));
  const size_t slice_bytes = slice.size() * sizeof(float);
  Sha256 digest;
  for (int64_t z = 0; z < grid.size[2]; ++z) {
    ParallelFor(rows, 0, [&](int64_t begin, int64_t end) {
      for (int64_t y = begin; y < end; ++y) {
        for (int64_t x = 0; x < columns; ++x) {
          const Vec3 u = mapper.Displacement(grid.IndexToPhysical(
              {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)}));
          float* vector = &slice[static_cast<size_t>(3 * (y * columns + x))];
          for (size_t i = 0; i < 3; ++i) vector[i] = static_cast<float>(u[i]);
        }
      }
    });
    digest.Update(slice.data(), slice_bytes);
    absl::Status written =
        file.Write(slice.data(), slice_bytes, z * static_cast<int64_t>(slice_bytes));
    if (!written.ok()) return written;
  }
  if (absl::Status status = file.Commit(); !status.ok()) return status;
  return digest.Finish();
}

// The dataset's bytes in Explicit VR Little Endian.
absl::StatusOr<std::string> Encoded(DcmDataset& dataset) {
  constexpr E_TransferSyntax kSyntax = EXS_LittleEndianExplicit;
  std::string bytes(dataset.calcElementLength(kSyntax, EET_ExplicitLength), '\0');
  DcmOutputBufferStream stream(bytes.data(), static_cast<offile_off_t>(bytes.size()));
  dataset.transferInit();
  const OFCondition written = dataset.write(stream, kSyntax, EET_ExplicitLength, nullptr);
  dataset.transferEnd();
  if (written.bad()) {
    return absl::InternalError(absl::StrCat("the object cannot be encoded: ", written.text()));
  }
  return bytes;
}

// The grid's vectors, which stay in their file until they are written or sent.
absl::Status PutVectors(const std::string& path, const Grid& grid, DatasetBuilder& out) {
  const int64_t bytes = 3 * grid.voxel_count() * static_cast<int64_t>(sizeof(float));
  auto* vectors = new DcmOtherFloat(DcmTag(DCM_VectorGridData, EVR_OF));
  const OFCondition made =
      vectors->createValueFromTempFile(new DcmInputFileStreamFactory(OFFilename(path.c_str()), 0),
                                       static_cast<Uint32>(bytes), EBO_LittleEndian);
  out.Insert(vectors);
  return made.good() ? absl::OkStatus() : absl::InternalError(made.text());
}

}  // namespace

Grid RegistrationGrid(const Grid& lattice) {
  const auto axis = [&](size_t i) {
    return Vec3{lattice.direction[0][i], lattice.direction[1][i], lattice.direction[2][i]};
  };
  const Vec3 row = (1 / Length(axis(0))) * axis(0);
  Vec3 column = axis(1) - Dot(axis(1), row) * row;
  column = (1 / Length(column)) * column;
  const Vec3 normal = Cross(row, column);
  Grid grid = lattice;
  for (size_t r = 0; r < 3; ++r) grid.direction[r] = {row[r], column[r], normal[r]};
  if (Dot(axis(2), normal) < 0) {
    grid.origin_mm = lattice.IndexToPhysical({0, 0, static_cast<double>(lattice.size[2] - 1)});
  }
  return grid;
}

absl::Status FillRegistrationObject(const RegistrationToWrite& registration,
                                    const std::string& folder, DcmFileFormat* file) {
  if (absl::Status status = CheckDicomDictionary(); !status.ok()) return status;
  const SpatialMap& map = registration.fixed_to_moving;
  const bool deformable = !map.displacement.empty();
  DcmDataset& dataset = *file->getDataset();
  absl::Status status;
  DatasetBuilder out(&dataset, &status);
  out.Text(DCM_SOPClassUID, EVR_UI,
           deformable ? UID_DeformableSpatialRegistrationStorage : UID_SpatialRegistrationStorage);
  if (absl::Status read = DescribeStudy(registration.fixed_file, out); !read.ok()) return read;
  DescribeObject(registration, out);
  ReferToSeries(registration, out);

  const std::string as_is = "The images of the registered frame of reference, as they are";
  std::string seed;
  if (deformable) {
    const Grid grid = RegistrationGrid(map.displacement.grid);
    constexpr int64_t kMostVectors = std::numeric_limits<uint32_t>::max() / (3 * sizeof(float));
    if (grid.voxel_count() > kMostVectors) {
      return absl::InvalidArgumentError(absl::StrCat("the field has ", grid.voxel_count(),
                                                     " vectors; a DICOM object holds ",
                                                     kMostVectors, " at most"));
    }
    PutDeformable(registration.fixed, kFrameOfReferenceIdentity, as_is, out);
    DatasetBuilder moving =
        PutDeformable(registration.moving, kContentBasedAlignment, registration.comment, out);
    PutMatrix(map.affine, moving.Item(DCM_PostDeformationMatrixRegistrationSequence));
    DatasetBuilder into = moving.Item(DCM_DeformableRegistrationGridSequence);
    PutGrid(grid, into);
    const std::string path = folder + "/vectors";
    const absl::StatusOr<std::string> digest = WriteVectors(map, grid, path);
    if (!digest.ok()) return digest.status();
    const absl::StatusOr<std::string> header = Encoded(dataset);
    if (!header.ok()) return header.status();
    seed = absl::StrCat(*header, *digest);
    if (absl::Status put = PutVectors(path, grid, into); !put.ok()) return put;
  } else {
    const absl::StatusOr<AffineMap> moving_to_fixed = map.affine.Inverse();
    if (!moving_to_fixed.ok()) return moving_to_fixed.status();
    PutRegistration(registration.fixed, AffineMap(), kFrameOfReferenceIdentity, as_is, out);
    PutRegistration(registration.moving, *moving_to_fixed, kContentBasedAlignment,
                    registration.comment, out);
    const absl::StatusOr<std::string> encoded = Encoded(dataset);
    if (!encoded.ok()) return encoded.status();
    seed = *encoded;
  }
  out.Text(DCM_SOPInstanceUID, EVR_UI, DerivedUid(seed, "registration object"));
  out.Text(DCM_SeriesInstanceUID, EVR_UI, DerivedUid(seed, "registration series"));
  return status;
}

}  // namespace gvsl

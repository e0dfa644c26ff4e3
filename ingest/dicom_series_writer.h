// Volumes as DICOM: one CT Image Storage instance a slice (PS3.3, A.3).
#ifndef GVSL_INGEST_DICOM_SERIES_WRITER_H_
#define GVSL_INGEST_DICOM_SERIES_WRITER_H_

#include <cstdint>
#include <string>

#include "imaging/volume.h"

namespace gvsl {

struct DicomSeriesOptions {
  // All UIDs are derived from it (2.25.<UUID as a number>, PS3.5 B.2): the same seed names the same
  // study, series and instances, on every machine. Must not be empty.
  std::string uid_seed;
  std::string patient_id;
  std::string patient_name;  // FAMILY^GIVEN, UTF-8
  std::string study_description;
  std::string series_description;
  int series_number = 1;
};

// Writes `volume` into `directory` (made if absent) as IM00001.dcm, IM00002.dcm, ... in Explicit VR
// Little Endian, slices numbered along the normal of the image plane. Orientation, positions and
// spacing are the grid's, in decimal strings of at most 16 characters (an error below 1e-9 mm
// within a metre). Pixels are unsigned with a rescale intercept of -1024 where the values allow it
// (12 bits stored up to 3071 HU, else 16), and signed 16-bit otherwise; the rescaled values are the
// volume's exactly. Each file is written aside, synced and renamed; existing files of the same
// name are replaced.
//
// INVALID_ARGUMENT: label or float32 volume, values beyond 16 bits, a text that its attribute
// cannot hold. UNAVAILABLE: the folder could not be made. A file that could not be written: as
// OutputFile, with its name.
absl::Status WriteDicomSeries(const Volume& volume, const DicomSeriesOptions& options,
                              const std::string& directory);

// The UID of `purpose` under `seed`: "2.25." and 128 bits of SHA-256 as a decimal number, at most
// 44 characters.
std::string DerivedUid(const std::string& seed, const std::string& purpose);

// A number as a DICOM decimal string (VR DS): the closest one that 16 characters can hold.
std::string DecimalString(double value);

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_SERIES_WRITER_H_

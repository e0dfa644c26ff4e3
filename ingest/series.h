// DICOM series to volumes: instances in, volumes with their place in the patient and a ledger of
// every instance out. Knows neither network nor server.
//
//   std::vector<DicomInstance> instances = ...;            // ReadDicomInstance, in parallel
//   for (Series& series : GroupBySeries(std::move(instances))) {
//     auto ledger = ConvertSeries(series, {}, [](SeriesVolume volume) { ... });
//   }
#ifndef GVSL_INGEST_SERIES_H_
#define GVSL_INGEST_SERIES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "imaging/volume.h"
#include "ingest/dicom_instance.h"
#include "ingest/ledger.h"
#include "ingest/slice_stack.h"

namespace gvsl {

// All instances of one Series Instance UID of one study. Those that name none (files that are no
// DICOM) are together in one with an empty UID.
struct Series {
  std::string study_instance_uid, series_instance_uid;
  std::vector<DicomInstance> instances;
};

// Ordered by UID, instances by path: the same files give the same volumes in the same order.
std::vector<Series> GroupBySeries(std::vector<DicomInstance> instances);

struct SeriesOptions {
  // Slices missing from a stack: refuse it (kGap), or make a volume of each side.
  bool split_at_gaps = false;
  // A volume beyond this is refused (kTooLarge) before its memory is taken.
  int64_t max_volume_bytes = int64_t{4} << 30;
  std::string decoder_program;  // empty: gvsl-dicom-decoder beside the running program
  int threads = 0;              // as ParallelFor
};

// Where a slice of a volume came from. Frames count from 1, as in DICOM.
struct SliceSource {
  std::string sop_instance_uid;
  int frame = 1;
};

struct SeriesVolume {
  Volume volume;
  std::string label;       // within its series: "echo time 28"; empty for the only one
  StackGeometry geometry;  // tilt, steps, whether it was resampled
  int64_t padding_voxels = 0;
  // In the order of the stack: slice i of the volume unless it was resampled.
  std::vector<SliceSource> slices;
};

// Takes a volume; a status that is not OK ends the conversion.
using VolumeReceiver = std::function<absl::Status(SeriesVolume volume)>;

// Makes the volumes of one series, one after the other: one is in memory at a time. The ledger has
// an entry for each of its instances, in their order. A multi-frame instance is used if a frame of
// it is; the detail says how many are. A slice that cannot be decoded is left out and its stack
// looked at again. Fails only as the receiver does, and with INTERNAL or RESOURCE_EXHAUSTED where
// this machine lacks the decoder or memory.
absl::StatusOr<Ledger> ConvertSeries(const Series& series, const SeriesOptions& options,
                                     const VolumeReceiver& receive);

}  // namespace gvsl

#endif  // GVSL_INGEST_SERIES_H_

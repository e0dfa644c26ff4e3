// Folders of DICOM files onto a server: read, made into volumes, and uploaded under pseudonyms.
#ifndef GVSL_INGEST_IMPORTER_H_
#define GVSL_INGEST_IMPORTER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/client.h"
#include "ingest/dicom_paths.h"
#include "ingest/pseudonym.h"
#include "ingest/series.h"
#include "ingest/tag_rules.h"

namespace gvsl {

struct ImportOptions {
  std::vector<std::string> paths;  // folders, looked through to the bottom, and files
  std::vector<std::string> tags;   // of every volume
  std::vector<TagRule> tag_rules;  // further tags, by what the files say
  SeriesOptions series;
};

struct ImportedVolume {
  std::string label;  // within its series
  Grid grid;
  VoxelType type = VoxelType::kInt16;
  StackGeometry geometry;
  std::vector<SliceSource> slices;
  std::string display_name;  // as the server has it
  std::string name;          // "volumes/..."; empty where it was not uploaded
  absl::Status status;       // of its upload
};

struct ImportedSeries {
  std::string study_instance_uid, series_instance_uid;
  std::string modality, description;  // for the screen; the description is not sent
  std::vector<ImportedVolume> volumes;
  Ledger ledger;        // empty where it was not converted
  absl::Status status;  // why it was not converted to its end
};

struct ImportReport {
  std::vector<ImportedSeries> series;
  std::vector<absl::Status> paths;  // that could not be looked through
};

// Converts one series and uploads its volumes. With `client` null nothing is sent. What the server
// receives of an image is voxels, geometry, modality by its class, and as words: a display name "MR
// 3f2a...", with the number of the volume where its series has several, and the tags patient-,
// study- and series-<pseudonym>, besides options.tags and the words of options.tag_rules. No text
// of the files is among it.
//
// The same files give the same volumes under the same request ids: importing again, after a cut or
// at another time, makes nothing twice.
ImportedSeries ImportSeries(const Series& series, const ImportOptions& options,
                            const Pseudonyms& pseudonyms, Client* client);

// The tag "series-<pseudonym>" that all volumes of a series have.
std::string SeriesTag(const Series& series, const Pseudonyms& pseudonyms);

// The first failure of a series, converted or uploaded; OK if there is none. Refused instances are
// no failure.
absl::Status FailureOf(const ImportedSeries& series);

// True for failures after which no further upload can succeed now: the server is lost, or refuses
// this client.
bool EndsUploads(const absl::Status& status);

// Reads all files below options.paths in parallel and imports series by series. A failure that ends
// uploads is the status of every series behind it.
ImportReport Import(const ImportOptions& options, const Pseudonyms& pseudonyms, Client* client,
                    const StepProgress& progress);

}  // namespace gvsl

#endif  // GVSL_INGEST_IMPORTER_H_

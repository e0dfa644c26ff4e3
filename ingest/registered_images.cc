#include "ingest/registered_images.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "client/wire.h"
#include "imaging/sha256.h"
#include "ingest/importer.h"

namespace gvsl {
namespace {

std::string DigestOf(const Volume& volume) {
  v1::Volume about;
  about.set_voxel_type(ToProto(volume.type()));
  about.set_kind(v1::Volume::IMAGE);
  *about.mutable_grid() = ToProto(volume.grid());
  return ContentDigest(about, Sha256Of(volume.bytes(), volume.byte_count()));
}

// The slices of the series' volume with this content; empty where none has it.
absl::StatusOr<std::vector<SliceSource>> SlicesOf(const std::string& content_sha256,
                                                  const Series& series,
                                                  const SeriesOptions& options) {
  std::vector<SliceSource> slices;
  const absl::StatusOr<Ledger> ledger =
      ConvertSeries(series, options, [&](SeriesVolume made) -> absl::Status {
        if (DigestOf(made.volume) != content_sha256) return absl::OkStatus();
        slices = std::move(made.slices);
        return absl::CancelledError("found");  // the others need not be made
      });
  if (slices.empty() && !ledger.ok()) return ledger.status();
  return slices;
}

// The instances of the slices, in their order, each once.
std::vector<ReferencedImage> ImagesOf(const std::vector<SliceSource>& slices,
                                      const std::map<std::string, const DicomInstance*>& by_uid) {
  std::map<std::string, std::set<int>> frames;
  for (const SliceSource& slice : slices) frames[slice.sop_instance_uid].insert(slice.frame);
  std::vector<ReferencedImage> images;
  for (const SliceSource& slice : slices) {
    const auto used = frames.find(slice.sop_instance_uid);
    if (used == frames.end()) continue;  // it is there already
    const DicomInstance& instance = *by_uid.at(slice.sop_instance_uid);
    std::set<int> all;
    for (const DicomFrame& frame : instance.frames) all.insert(frame.frame + 1);
    ReferencedImage image{instance.sop_class_uid, slice.sop_instance_uid, {}};
    if (used->second != all) image.frames.assign(used->second.begin(), used->second.end());
    images.push_back(std::move(image));
    frames.erase(used);
  }
  return images;
}

}  // namespace

absl::StatusOr<FoundImages> FindImages(const v1::Volume& volume, const std::vector<Series>& all,
                                       const SeriesOptions& options, const Pseudonyms& pseudonyms) {
  const auto series = std::find_if(all.begin(), all.end(), [&](const Series& one) {
    const std::string tag = SeriesTag(one, pseudonyms);
    return std::find(volume.tags().begin(), volume.tags().end(), tag) != volume.tags().end();
  });
  if (series == all.end()) {
    return absl::NotFoundError(absl::StrCat(
        "none of the ", all.size(), " series that were given is the one that ", volume.name(),
        " was made of; give its study, and the --key_file that it was imported with"));
  }
  const auto slices = SlicesOf(volume.content_sha256(), *series, options);
  if (!slices.ok()) return slices.status();
  if (slices->empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the series ", series->series_instance_uid, " has the pseudonym of ", volume.name(),
        ", but gives other voxels: give all of its files, as they were imported, and "
        "--split_at_gaps if it was used then"));
  }
  std::map<std::string, const DicomInstance*> by_uid;
  for (const DicomInstance& instance : series->instances) {
    if (instance.verdict == Verdict::kUsed) by_uid.emplace(instance.sop_instance_uid, &instance);
  }
  const DicomInstance& first = *by_uid.at(slices->front().sop_instance_uid);
  for (const SliceSource& slice : *slices) {
    const std::string& frame_of_reference =
        by_uid.at(slice.sop_instance_uid)->frame_of_reference_uid;
    if (frame_of_reference.empty() || frame_of_reference != first.frame_of_reference_uid) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the series ", series->series_instance_uid, " of ", volume.name(),
          " names no one Frame of Reference UID (0020,0052); nothing can be registered to it"));
    }
  }
  FoundImages found;
  found.images = {series->study_instance_uid, series->series_instance_uid,
                  first.frame_of_reference_uid, ImagesOf(*slices, by_uid)};
  found.file = first.path;
  if (!first.patient_id.empty()) {
    found.patient_id = absl::StrCat(first.patient_id_issuer, "\\", first.patient_id);
  }
  return found;
}

}  // namespace gvsl

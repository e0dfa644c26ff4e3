#include "ingest/importer.h"

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

// Uploads the volume and adds it to the series' result.
void Take(const Series& series, SeriesVolume made, const ImportOptions& options,
          const Pseudonyms& pseudonyms, Client* client, ImportedSeries& result) {
  ImportedVolume volume;
  volume.label = made.label;
  volume.grid = made.volume.grid();
  volume.type = made.volume.type();
  volume.geometry = std::move(made.geometry);
  volume.slices = std::move(made.slices);
  const std::string series_pseudonym = pseudonyms.Of("series", series.series_instance_uid);
  // The label is made of the files' words: a number stands for it.
  volume.display_name = absl::StrCat(made.volume.modality(), " ", series_pseudonym);
  if (!made.label.empty()) {
    absl::StrAppend(&volume.display_name, " #", result.volumes.size() + 1);
  }
  v1::Volume about;
  about.set_display_name(volume.display_name);
  about.set_modality(made.volume.modality());
  const DicomInstance& instance = series.instances.front();
  // Patient IDs are unique within their issuer alone. Without one nothing says who it is.
  if (!instance.patient_id.empty()) {
    about.add_tags(absl::StrCat(
        "patient-", pseudonyms.Of("patient", absl::StrCat(instance.patient_id_issuer, "\\",
                                                          instance.patient_id))));
  }
  about.add_tags(absl::StrCat("study-", pseudonyms.Of("study", series.study_instance_uid)));
  about.add_tags(SeriesTag(series, pseudonyms));
  std::vector<std::string> tags = options.tags;
  for (std::string& tag : TagsByRules(options.tag_rules, instance)) tags.push_back(std::move(tag));
  for (const std::string& tag : tags) about.add_tags(tag);
  if (client != nullptr) {
    volume.status = FailureOf(result);
    if (!EndsUploads(volume.status)) {
      absl::StatusOr<v1::Volume> stored = client->Upload(made.volume, about, nullptr);
      volume.status = stored.status();
      if (stored.ok()) volume.name = stored->name();
    }
  }
  result.volumes.push_back(std::move(volume));
}

// What is known of a series without converting it.
ImportedSeries AboutSeries(const Series& series) {
  ImportedSeries result;
  result.study_instance_uid = series.study_instance_uid;
  result.series_instance_uid = series.series_instance_uid;
  for (const DicomInstance& instance : series.instances) {
    if (result.modality.empty()) result.modality = instance.modality;
    if (result.description.empty()) result.description = instance.series_description;
  }
  return result;
}

}  // namespace

bool EndsUploads(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status) ||
         absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) ||
         absl::IsDeadlineExceeded(status);
}

std::string SeriesTag(const Series& series, const Pseudonyms& pseudonyms) {
  return absl::StrCat("series-", pseudonyms.Of("series", series.series_instance_uid));
}

absl::Status FailureOf(const ImportedSeries& series) {
  if (!series.status.ok()) return series.status;
  for (const ImportedVolume& volume : series.volumes) {
    if (!volume.status.ok()) return volume.status;
  }
  return absl::OkStatus();
}

ImportedSeries ImportSeries(const Series& series, const ImportOptions& options,
                            const Pseudonyms& pseudonyms, Client* client) {
  ImportedSeries result = AboutSeries(series);
  absl::StatusOr<Ledger> ledger = ConvertSeries(series, options.series, [&](SeriesVolume volume) {
    Take(series, std::move(volume), options, pseudonyms, client, result);
    return absl::OkStatus();
  });
  result.status = ledger.status();
  if (ledger.ok()) result.ledger = *std::move(ledger);
  return result;
}

ImportReport Import(const ImportOptions& options, const Pseudonyms& pseudonyms, Client* client,
                    const StepProgress& progress) {
  ImportReport report;
  const std::vector<Series> all =
      ReadDicomPaths(options.paths, options.series.threads, progress, &report.paths);
  absl::Status lost;
  for (const Series& series : all) {
    if (lost.ok()) {
      report.series.push_back(ImportSeries(series, options, pseudonyms, client));
      const absl::Status failure = FailureOf(report.series.back());
      if (EndsUploads(failure)) lost = failure;
    } else {
      report.series.push_back(AboutSeries(series));
      report.series.back().status = lost;
    }
    if (progress) {
      progress("importing", "series", static_cast<int64_t>(report.series.size()),
               static_cast<int64_t>(all.size()));
    }
  }
  return report;
}

}  // namespace gvsl

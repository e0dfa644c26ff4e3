#include "ingest/importer.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"
#include "imaging/parallel.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

// Regular files below a path, each once; links to folders are not followed.
void AddFiles(const std::string& path, std::set<std::string>& files, ImportReport& report) {
  std::error_code error;
  const auto failed = [&](const fs::path& where) {
    report.paths.push_back(absl::NotFoundError(
        absl::StrCat("cannot read ", ShownPath(where.string()), ": ", error.message())));
  };
  const fs::file_status status = fs::status(path, error);
  if (fs::is_regular_file(status)) {
    files.insert(path);
    return;
  }
  // Folder by folder: one that cannot be read costs only itself.
  std::vector<fs::path> folders = {path};
  while (!folders.empty()) {
    const fs::path folder = std::move(folders.back());
    folders.pop_back();
    fs::directory_iterator entry(folder, error);
    if (error) {
      failed(folder);
      continue;
    }
    while (entry != fs::directory_iterator()) {
      std::error_code ignored;
      if (entry->is_directory(ignored) && !entry->is_symlink(ignored)) {
        folders.push_back(entry->path());
      } else if (entry->is_regular_file(ignored)) {
        files.insert(entry->path().string());
      }
      entry.increment(error);
      if (error) {
        failed(folder);
        break;
      }
    }
  }
}

std::vector<DicomInstance> ReadAll(const std::vector<std::string>& files, int threads,
                                   const ImportProgress& progress) {
  std::vector<DicomInstance> instances(files.size());
  std::mutex mutex;
  int64_t done = 0;
  std::atomic<size_t> next{0};
  const int64_t total = static_cast<int64_t>(files.size());
  // Files differ in size by thousands: each thread takes the next one when it is free.
  ParallelFor(total, threads, [&](int64_t, int64_t) {
    for (size_t i = next++; i < files.size(); i = next++) {
      instances[i] = ReadDicomInstance(files[i]);
      const std::lock_guard<std::mutex> lock(mutex);
      if (progress) progress("reading", "files", ++done, total);
    }
  });
  return instances;
}

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
  about.add_tags(absl::StrCat("series-", series_pseudonym));
  for (const std::string& tag : options.tags) about.add_tags(tag);
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
                    const ImportProgress& progress) {
  ImportReport report;
  std::set<std::string> files;
  for (const std::string& path : options.paths) AddFiles(path, files, report);
  const std::vector<Series> all =
      GroupBySeries(ReadAll({files.begin(), files.end()}, options.series.threads, progress));
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

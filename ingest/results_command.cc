#include "ingest/results_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "client/client.h"
#include "client/progress.h"
#include "client/wire.h"
#include "imaging/transform_file.h"
#include "ingest/dataset_builder.h"
#include "ingest/dicom_fetch.h"
#include "ingest/dicom_logging.h"
#include "ingest/dicom_paths.h"
#include "ingest/dicom_store.h"
#include "ingest/private_folder.h"
#include "ingest/registered_images.h"
#include "ingest/registration_object.h"
#include "ingest/upload_options.h"

namespace gvsl {
namespace {

using nlohmann::json;

constexpr size_t kMostLongStringBytes = 64;  // of VR LO (PS3.5 table 6.2-1)

struct ResultsArguments {
  UploadArguments source;  // import.paths: where the DICOM files are
  ScuOptions scu;
  std::string registration, peer, output;
  std::vector<std::string> studies;
  bool across_patients = false, json = false;
};

// The headers of all series that were named, those of the archive after fetching them to `folder`.
absl::StatusOr<std::vector<Series>> ReadSources(const ResultsArguments& arguments,
                                                const std::string& folder) {
  std::vector<std::string> paths = arguments.source.import.paths;
  for (size_t i = 0; i < arguments.studies.size(); ++i) {
    paths.push_back(absl::StrCat(folder, "/study", i));
    std::error_code error;
    std::filesystem::create_directory(paths.back(), error);
    ProgressBar bar("fetching", "instances");
    const FetchedStudy came = FetchStudy(arguments.scu, arguments.studies[i], paths.back(), "",
                                         [&](int64_t count) { bar.Update(count, count); });
    if (!came.status.ok()) return came.status;
  }
  std::vector<absl::Status> unreadable;
  std::optional<ProgressBar> bar;
  std::vector<Series> all = ReadDicomPaths(
      paths, arguments.source.import.series.threads,
      [&](const char* step, const char* unit, int64_t done, int64_t total) {
        if (!bar) bar.emplace(step, unit);
        bar->Update(done, total);
      },
      &unreadable);
  if (!unreadable.empty()) return unreadable.front();
  return all;
}

absl::StatusOr<FoundImages> FindImagesOf(Client& client, const std::string& volume,
                                         const char* role, const std::vector<Series>& all,
                                         const ResultsArguments& arguments,
                                         const Pseudonyms& pseudonyms) {
  absl::StatusOr<v1::Volume> stored = client.GetVolume(volume);
  absl::StatusOr<FoundImages> found =
      stored.ok() ? FindImages(*stored, all, arguments.source.import.series, pseudonyms)
                  : stored.status();
  if (found.ok()) return found;
  return absl::Status(
      found.status().code(),
      absl::StrCat("the ", role, " volume: ", std::string(found.status().message())));
}

// An object in one patient's record must not speak of another without a word.
absl::Status CheckPatients(const FoundImages& fixed, const FoundImages& moving) {
  const bool same = fixed.images.study_instance_uid == moving.images.study_instance_uid ||
                    (!fixed.patient_id.empty() && fixed.patient_id == moving.patient_id);
  if (same) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the fixed and the moving images are of different patients, or do not say whose they are; "
      "the object would name the moving images in the fixed images' record: say --across_patients "
      "if that is meant");
}

absl::StatusOr<SpatialMap> FixedToMoving(Client& client, const v1::Registration& registration,
                                         const std::string& folder) {
  SpatialMap map;
  const v1::AffineMap& affine = registration.fixed_to_moving_affine();
  if (affine.matrix_size() != 9 || affine.translation_mm_size() != 3) {
    return absl::DataLossError(absl::StrCat(registration.name(), " has no affine map"));
  }
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) map.affine.matrix[r][c] = affine.matrix(3 * r + c);
    map.affine.translation_mm[r] = affine.translation_mm(r);
  }
  if (!registration.has_fixed_to_moving_lattice()) return map;
  // Its numbers are double; those of a NIfTI file's lattice are float.
  const absl::StatusOr<Grid> lattice = FromProto(registration.fixed_to_moving_lattice());
  if (!lattice.ok()) return lattice.status();
  v1::DownloadRegistrationFileRequest request;
  request.set_name(registration.name());
  request.set_file(v1::DownloadRegistrationFileRequest::FIELD);
  const std::string path = folder + "/field.nii.gz";
  ProgressBar bar("downloading");
  absl::Status status = client.DownloadRegistrationFile(
      request, path, [&](int64_t done, int64_t total) { bar.Update(done, total); });
  if (!status.ok()) return status;
  absl::StatusOr<DisplacementField> field = ReadDisplacementField(path);
  if (!field.ok()) return field.status();
  if (field->grid.size != lattice->size) {
    return absl::DataLossError(
        absl::StrCat(registration.name(), ": its field does not have the size of its lattice"));
  }
  map.displacement = *std::move(field);
  map.displacement.grid = *lattice;
  return map;
}

void Report(const ResultsArguments& arguments, DcmFileFormat& file) {
  DcmDataset& dataset = *file.getDataset();
  const auto text = [&](const DcmTagKey& key) {
    OFString value;
    dataset.findAndGetOFString(key, value);
    return std::string(value.c_str());
  };
  if (arguments.json) {
    std::puts(json{{"registration", arguments.registration},
                   {"sopClassUid", text(DCM_SOPClassUID)},
                   {"sopInstanceUid", text(DCM_SOPInstanceUID)},
                   {"seriesInstanceUid", text(DCM_SeriesInstanceUID)},
                   {"studyInstanceUid", text(DCM_StudyInstanceUID)},
                   {"file", arguments.output},
                   {"storedAt", arguments.peer}}
                  .dump(2, ' ', false, json::error_handler_t::replace)
                  .c_str());
    return;
  }
  std::printf("%s: %s %s\n", arguments.registration.c_str(),
              dcmFindNameOfUID(text(DCM_SOPClassUID).c_str()), text(DCM_SOPInstanceUID).c_str());
  if (!arguments.output.empty()) std::printf("wrote %s\n", arguments.output.c_str());
  if (!arguments.peer.empty()) std::printf("stored at %s\n", arguments.peer.c_str());
}

absl::Status SendResults(ResultsArguments arguments) {
  SilenceDicomLog();
  if (!arguments.peer.empty()) {
    const absl::StatusOr<DicomPeer> peer = ParseDicomPeer(arguments.peer);
    if (!peer.ok()) return peer.status();
    arguments.scu.peer = *peer;
  }
  const absl::StatusOr<Pseudonyms> pseudonyms = ReadUploadFiles(arguments.source);
  if (!pseudonyms.ok()) return pseudonyms.status();
  Client client(arguments.source.client);
  const auto registration = client.GetRegistration(arguments.registration);
  if (!registration.ok()) return registration.status();
  const v1::RegistrationVerdict& verdict = registration->verdict();
  if (verdict.quality() == v1::RegistrationVerdict::FAILED) {
    return absl::FailedPreconditionError(absl::StrCat(
        registration->name(), " FAILED and goes into no patient's record: ", verdict.reason()));
  }
  const PrivateFolder folder;  // what is fetched names patients
  if (!folder.status().ok()) return folder.status();
  const auto all = ReadSources(arguments, folder.path());
  if (!all.ok()) return all.status();
  const auto fixed =
      FindImagesOf(client, registration->fixed(), "fixed", *all, arguments, *pseudonyms);
  if (!fixed.ok()) return fixed.status();
  const auto moving =
      FindImagesOf(client, registration->moving(), "moving", *all, arguments, *pseudonyms);
  if (!moving.ok()) return moving.status();
  if (!arguments.across_patients) {
    if (absl::Status status = CheckPatients(*fixed, *moving); !status.ok()) return status;
  }
  absl::StatusOr<SpatialMap> map = FixedToMoving(client, *registration, folder.path());
  if (!map.ok()) return map.status();

  RegistrationToWrite object;
  object.fixed = fixed->images;
  object.moving = moving->images;
  object.fixed_file = fixed->file;
  object.fixed_to_moving = *std::move(map);
  object.content_description = absl::StrCat(
      "Verdict ", v1::RegistrationVerdict::Quality_Name(verdict.quality()), "; for research");
  object.comment = registration->name().substr(0, kMostLongStringBytes);
  object.software_version = GVSL_VERSION;
  object.create_time_s = registration->create_time().seconds();
  DcmFileFormat file;
  absl::Status status = FillRegistrationObject(object, folder.path(), &file);
  if (status.ok() && !arguments.output.empty()) status = SaveDicomFile(&file, arguments.output);
  if (status.ok() && !arguments.peer.empty()) {
    status = StoreDataset(arguments.scu, file.getDataset());
  }
  if (status.ok()) Report(arguments, file);
  return status;
}

}  // namespace

void AddResultsCommand(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<ResultsArguments>();
  CLI::App* verb = app->add_subcommand(
      "results", "Make a DICOM object of a registration, and store it in an archive");
  verb->add_option("REGISTRATION", arguments->registration, "registrations/{id}")->required();
  CLI::Option* dicom =
      verb->add_option("--dicom", arguments->source.import.paths,
                       "folder or file with the images that were registered, as a study's folder "
                       "or a spool; may be given several times")
          ->take_all()
          ->allow_extra_args(false);
  CLI::Option* peer = verb->add_option("--peer", arguments->peer,
                                       "the archive to store the object in, as AET@HOST:PORT");
  CLI::Option* study =
      verb->add_option("--study", arguments->studies,
                       "Study Instance UID, to get the images from the archive by C-GET; may be "
                       "given several times")
          ->take_all()
          ->allow_extra_args(false)
          ->needs(peer);
  verb->add_option("-o,--output", arguments->output, "file to write the object to");
  verb->add_flag("--across_patients", arguments->across_patients,
                 "also where the images are of two patients: the object belongs to the fixed one's "
                 "and names the moving one's images");
  verb->add_option("--ae_title", arguments->scu.ae_title, "ours, as the archive knows it")
      ->capture_default_str();
  AddTlsOptions(verb, &arguments->scu.tls);
  AddSeriesOptions(verb, &arguments->source);
  verb->add_flag("--json", arguments->json, "print one JSON document");
  verb->footer(
      "What is fetched lies in a private folder in $TMPDIR until the object is made.\n\n"
      "Examples:\n"
      "  gvsl-ingest results registrations/3f2a --dicom /data/studies/17 -o registration.dcm\n"
      "  gvsl-ingest results registrations/3f2a --dicom /var/spool/gvsl --peer PACS@10.0.0.7:104\n"
      "  gvsl-ingest results registrations/3f2a --peer PACS@10.0.0.7:104 --study "
      "1.2.840.113619.2.55.3");
  verb->callback([arguments, action, dicom, peer, study] {
    if (dicom->count() + study->count() == 0) throw CLI::RequiredError("--dicom or --study");
    if (peer->count() == 0 && arguments->output.empty()) {
      throw CLI::RequiredError("--output or --peer");
    }
    *action = [arguments] { return SendResults(*arguments); };
  });
}

}  // namespace gvsl

#include "ingest/phantom_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/image_file.h"
#include "imaging/phantom.h"
#include "ingest/dicom_series_writer.h"

namespace gvsl {
namespace {

struct PhantomArguments {
  uint64_t patient = 1;
  int count = 1;
  std::string output;
  std::vector<int64_t> size = {128, 128, 96};
  std::vector<double> spacing_mm = {2.0, 2.0, 2.5};
  double noise_hu = 15;
  std::string format = "dicom";
  bool labels = false;
};

std::string PatientName(uint64_t patient) {
  char name[40];
  std::snprintf(name, sizeof(name), "patient-%04llu", static_cast<unsigned long long>(patient));
  return name;
}

absl::Status WriteOne(const PhantomArguments& arguments, uint64_t patient) {
  PhantomOptions options;
  options.patient = patient;
  for (int axis = 0; axis < 3; ++axis) {
    options.size[axis] = arguments.size[axis];
    options.spacing_mm[axis] = arguments.spacing_mm[axis];
  }
  options.noise_hu = arguments.noise_hu;
  absl::StatusOr<Phantom> phantom = MakePhantom(options);
  if (!phantom.ok()) return phantom.status();

  const std::string name = PatientName(patient);
  const std::string base = (std::filesystem::path(arguments.output) / name).string();
  std::string written;
  if (arguments.format == "dicom") {
    DicomSeriesOptions series;
    // Grid and noise are part of the seed: another sampling of a patient is another series.
    series.uid_seed = absl::StrCat("phantom ", patient, " noise ", arguments.noise_hu);
    for (int axis = 0; axis < 3; ++axis) {
      absl::StrAppend(&series.uid_seed, " ", options.size[axis], "x",
                      DecimalString(options.spacing_mm[axis]));
    }
    series.patient_id = absl::StrCat("PHANTOM", patient);
    series.patient_name = absl::StrCat("PHANTOM^", patient);
    series.study_description = "GVSL phantom, cardiac CT";
    series.series_description = "Synthetic CT, not of a person";
    written = base;
    if (absl::Status status = WriteDicomSeries(phantom->image, series, base); !status.ok()) {
      return status;
    }
  } else {
    written = base + ".nii.gz";
    if (absl::Status status = WriteVolume(phantom->image, written); !status.ok()) return status;
  }
  std::printf("%s\n", written.c_str());
  if (!arguments.labels) return absl::OkStatus();
  const std::string labels = base + "-labels.nii.gz";
  if (absl::Status status = WriteVolume(phantom->labels, labels); !status.ok()) return status;
  std::printf("%s\n", labels.c_str());
  return absl::OkStatus();
}

absl::Status Run(const PhantomArguments& arguments) {
  std::error_code error;
  std::filesystem::create_directories(arguments.output, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot make the folder ", arguments.output, ": ", error.message()));
  }
  for (int i = 0; i < arguments.count; ++i) {
    if (absl::Status status = WriteOne(arguments, arguments.patient + i); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

}  // namespace

void AddPhantomCommand(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<PhantomArguments>();
  CLI::App* verb = app->add_subcommand(
      "phantom",
      "Make synthetic cardiac CTs, as DICOM series or NIfTI files; prints what it wrote");
  verb->add_option("--patient", arguments->patient, "Number of the first patient")
      ->capture_default_str();
  verb->add_option("--count", arguments->count, "How many patients, numbered on from the first")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  verb->add_option("-o,--output", arguments->output, "Folder to write into, made if absent")
      ->required();
  verb->add_option("--size", arguments->size, "Columns, rows and slices")
      ->expected(3)
      ->check(CLI::Range(2, 65535))
      ->capture_default_str();
  verb->add_option("--spacing", arguments->spacing_mm, "Their spacing in mm")
      ->expected(3)
      ->check(CLI::Range(0.001, 1000.0))
      ->capture_default_str();
  verb->add_option("--noise", arguments->noise_hu, "Standard deviation of the noise in HU")
      ->check(CLI::Range(0.0, 500.0))
      ->capture_default_str();
  verb->add_option("--format", arguments->format,
                   "dicom: a folder of CT images a patient; nifti: a .nii.gz file a patient")
      ->check(CLI::IsMember({"dicom", "nifti"}))
      ->capture_default_str();
  verb->add_flag("--labels", arguments->labels,
                 "Also write the exact labels, as patient-NNNN-labels.nii.gz");
  verb->footer(
      "Examples:\n"
      "  gvsl-ingest phantom --patient 1 --count 3 -o phantoms\n"
      "      three DICOM series: phantoms/patient-0001/IM00001.dcm ...\n"
      "  gvsl-ingest phantom --patient 7 --size 256 256 192 --spacing 1 1 1.25 --labels \\\n"
      "      --format nifti -o phantoms\n"
      "      phantoms/patient-0007.nii.gz and phantoms/patient-0007-labels.nii.gz");
  verb->callback([arguments, action] { *action = [arguments] { return Run(*arguments); }; });
}

}  // namespace gvsl

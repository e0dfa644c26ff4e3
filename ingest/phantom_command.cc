#include "ingest/phantom_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "imaging/phantom.h"
#include "ingest/dicom_series_writer.h"

namespace gvsl {
namespace {

struct PhantomArguments {
  uint64_t patient = 0;
  int count = 1;
  std::string output;
  std::vector<int64_t> size = {128, 128, 96};
  std::vector<double> spacing_mm = {2.0, 2.0, 2.5};
  double noise_hu = 15;
};

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
  const std::string folder =
      (std::filesystem::path(arguments.output) / absl::StrCat("patient", patient)).string();
  absl::Status status = WriteDicomSeries(phantom->image, series, folder);
  if (status.ok()) std::printf("wrote %s\n", folder.c_str());
  return status;
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
      "phantom", "Write phantom patients as DICOM CT series, as a scanner would send them");
  verb->add_option("--patient", arguments->patient,
                   "number of the first patient; the same anatomy as gvsl phantoms make's")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 53))
      ->capture_default_str();
  verb->add_option("--count", arguments->count, "how many patients, numbered on from the first")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  verb->add_option("-o,--output", arguments->output, "folder to write into, made if absent")
      ->required();
  verb->add_option("--size", arguments->size, "voxels: columns,rows,slices (default 128,128,96)")
      ->delimiter(',')
      ->expected(3)
      ->check(CLI::Range(2, 65535));
  verb->add_option("--spacing", arguments->spacing_mm, "voxel size in mm (default 2,2,2.5)")
      ->delimiter(',')
      ->expected(3)
      ->check(CLI::Range(0.001, 1000.0));
  verb->add_option("--noise", arguments->noise_hu, "standard deviation of the noise in HU")
      ->check(CLI::Range(0.0, 500.0))
      ->capture_default_str();
  verb->footer(
      "Example:\n"
      "  gvsl-ingest phantom --count 3 --size 256,256,192 --spacing 1,1,1.25 -o phantoms\n"
      "      three series: phantoms/patient0/IM00001.dcm ...");
  verb->callback([arguments, action] { *action = [arguments] { return Run(*arguments); }; });
}

}  // namespace gvsl

#include "ingest/received_instance.h"

#include "ingest/dicom_attributes.h"
// The network comes after DCMTK's configuration, which dicom_attributes.h includes.
#include <dcmtk/dcmnet/dimse.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "imaging/output_file.h"

namespace gvsl {
namespace {

constexpr Uint32 kHeaderValueBytes = 1024;
// Preamble, prefix, and the group length element that comes first (PS3.10 section 7.1).
constexpr int64_t kPreambleBytes = 128;
constexpr char kFirst[] = {'D', 'I', 'C', 'M', 2, 0, 0, 0, 'U', 'L', 4, 0};

// Where the dataset begins in a file, in bytes; 0 where it has no meta header.
int64_t DatasetOffset(const std::string& path) {
  unsigned char bytes[sizeof(kFirst) + 4] = {};
  std::ifstream file(path, std::ios::binary);
  file.seekg(kPreambleBytes);
  if (!file.read(reinterpret_cast<char*>(bytes), sizeof(bytes)) ||
      std::memcmp(bytes, kFirst, sizeof(kFirst)) != 0) {
    return 0;
  }
  int64_t length = 0;
  for (size_t i = sizeof(bytes); i > sizeof(kFirst); --i) length = length << 8 | bytes[i - 1];
  return kPreambleBytes + static_cast<int64_t>(sizeof(bytes)) + length;
}

struct InstanceUids {
  std::string study, series, sop_class, sop_instance;
  bool complete() const {
    return !study.empty() && !series.empty() && !sop_class.empty() && !sop_instance.empty();
  }
};

// Nothing where the file cannot be parsed to its end.
std::optional<InstanceUids> ReadUids(const std::string& path) {
  try {
    DcmFileFormat file;
    if (file.loadFile(path.c_str(), EXS_Unknown, EGL_noChange, kHeaderValueBytes).bad()) {
      return std::nullopt;
    }
    DcmDataset& dataset = *file.getDataset();
    return InstanceUids{TextOf(dataset, DCM_StudyInstanceUID),
                        TextOf(dataset, DCM_SeriesInstanceUID), TextOf(dataset, DCM_SOPClassUID),
                        TextOf(dataset, DCM_SOPInstanceUID)};
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace

uint16_t KeepReceived(Spool& spool, const std::string& path, const StoreRequest& request) {
  const auto refuse = [&](uint16_t status) {
    unlink(path.c_str());
    return status;
  };
  // The end of a file that no longer fitted on the disk is lost without a word when DCMTK closes
  // it.
  std::error_code error;
  const int64_t offset = DatasetOffset(path);
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path, error));
  if (error || size != offset + request.dataset_bytes) {
    return refuse(STATUS_STORE_Refused_OutOfResources);
  }
  const std::optional<InstanceUids> uids = ReadUids(path);
  if (!uids) return refuse(STATUS_STORE_Error_CannotUnderstand);
  if (uids->sop_class != request.sop_class_uid || uids->sop_instance != request.sop_instance_uid) {
    return refuse(STATUS_STORE_Error_DataSetDoesNotMatchSOPClass);
  }
  if (!uids->complete()) return refuse(STATUS_STORE_Error_CannotUnderstand);
  return spool.Keep(path, offset, uids->study, uids->series, uids->sop_instance).ok()
             ? STATUS_Success
             : STATUS_STORE_Refused_OutOfResources;
}

absl::Status KeepCopy(Spool& spool, const std::string& path, int64_t max_bytes) {
  std::error_code error;
  if (const auto size = std::filesystem::file_size(path, error);
      !error && static_cast<int64_t>(size) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("it has ", size, " bytes; --max_object_bytes is ", max_bytes));
  }
  const std::string copy = spool.IncomingPath();
  const auto failed = [&](absl::Status status) {
    unlink(copy.c_str());
    return status;
  };
  if (!std::filesystem::copy_file(path, copy, error)) {
    const std::string text =
        absl::StrCat("a file cannot be copied into the spool: ", error.message());
    return failed(IsDiskFull(error.value()) ? absl::ResourceExhaustedError(text)
                                            : absl::UnavailableError(text));
  }
  const std::optional<InstanceUids> uids = ReadUids(copy);
  if (!uids || !uids->complete()) {
    return failed(absl::InvalidArgumentError(
        uids ? "it names no SOP class, instance, study or series" : "it is no whole DICOM file"));
  }
  return spool.Keep(copy, DatasetOffset(copy), uids->study, uids->series, uids->sop_instance);
}

}  // namespace gvsl

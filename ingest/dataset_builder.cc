#include "ingest/dataset_builder.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "imaging/output_file.h"
#include "ingest/dicom_series_writer.h"

namespace gvsl {

void DatasetBuilder::Keep(const DcmTagKey& key, const OFCondition& condition) {
  if (condition.good() || !status_->ok()) return;
  *status_ = absl::InternalError(absl::StrCat("DICOM attribute ", key.toString().c_str(),
                                              " could not be set: ", condition.text()));
}

void DatasetBuilder::Text(const DcmTagKey& key, DcmEVR vr, const std::string& value) {
  if (item_ == nullptr) return;
  Keep(key, item_->putAndInsertOFStringArray(DcmTag(key, vr), value.c_str()));
}

void DatasetBuilder::Number(const DcmTagKey& key, int value) {
  if (item_ == nullptr) return;
  Keep(key, item_->putAndInsertUint16(DcmTag(key, EVR_US), static_cast<Uint16>(value)));
}

void DatasetBuilder::Numbers(const DcmTagKey& key, const std::vector<uint32_t>& values) {
  auto* element = new DcmUnsignedLong(DcmTag(key, EVR_UL));
  Keep(key, element->putUint32Array(values.data(), static_cast<unsigned long>(values.size())));
  Insert(element);
}

void DatasetBuilder::Numbers(const DcmTagKey& key, const std::vector<double>& values) {
  auto* element = new DcmFloatingPointDouble(DcmTag(key, EVR_FD));
  Keep(key, element->putFloat64Array(values.data(), static_cast<unsigned long>(values.size())));
  Insert(element);
}

void DatasetBuilder::Decimals(const DcmTagKey& key, const std::vector<double>& values) {
  Text(key, EVR_DS, absl::StrJoin(values, "\\", [](std::string* out, double value) {
         out->append(DecimalString(value));
       }));
}

void DatasetBuilder::Pixels(const std::vector<uint16_t>& pixels) {
  if (item_ == nullptr) return;
  Keep(DCM_PixelData, item_->putAndInsertUint16Array(DcmTag(DCM_PixelData, EVR_OW), pixels.data(),
                                                     static_cast<unsigned long>(pixels.size())));
}

void DatasetBuilder::Insert(DcmElement* element) {
  const DcmTag tag = element->getTag();
  const OFCondition inserted = item_ != nullptr ? item_->insert(element) : EC_IllegalCall;
  if (inserted.bad()) delete element;
  Keep(tag, inserted);
}

void DatasetBuilder::Copy(const DcmTagKey& key, DcmEVR vr, DcmItem& from) {
  DcmElement* element = nullptr;
  if (from.findAndGetElement(key, element, OFFalse, /*createCopy=*/OFTrue).good()) {
    Insert(element);
  } else {
    Text(key, vr, "");
  }
}

DatasetBuilder DatasetBuilder::Item(const DcmTagKey& key) {
  constexpr signed long kNewLastItem = -2;
  DcmItem* item = nullptr;
  if (item_ != nullptr) {
    Keep(key, item_->findOrCreateSequenceItem(DcmTag(key, EVR_SQ), item, kNewLastItem));
  }
  return {item, status_};
}

void DatasetBuilder::EmptySequence(const DcmTagKey& key) {
  Insert(new DcmSequenceOfItems(DcmTag(key, EVR_SQ)));
}

absl::Status CheckDicomDictionary() {
  if (dcmDataDict.isDictionaryLoaded()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "DCMTK's data dictionary is not loaded; install dicom.dic (Debian: libdcmtk17) or correct "
      "the environment variable DCMDICTPATH");
}

absl::Status SaveDicomFile(DcmFileFormat* file, const std::string& path) {
  OutputFile output(path);
  if (!output.status().ok()) return output.status();
  errno = 0;
  // Sequences with their lengths, as DCMTK sends them.
  const OFCondition saved = file->saveFile(OFFilename(output.aside().c_str()),
                                           EXS_LittleEndianExplicit, EET_ExplicitLength);
  return saved.good() ? output.Commit() : output.Failed(errno);
}

}  // namespace gvsl

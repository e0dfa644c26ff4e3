// DICOM datasets being filled, and files of them. For .cc files: includes DCMTK.
#ifndef GVSL_INGEST_DATASET_BUILDER_H_
#define GVSL_INGEST_DATASET_BUILDER_H_

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/dcmdata/dctk.h>

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace gvsl {

// Fills a dataset, or an item of one; keeps the first failure in `*status`, which all builders of
// one dataset share. VRs are given, not looked up: what is written does not depend on which
// dictionary is installed.
class DatasetBuilder {
 public:
  // Neither is owned; both must outlive the builder.
  DatasetBuilder(DcmItem* item, absl::Status* status) : item_(item), status_(status) {}

  void Text(const DcmTagKey& key, DcmEVR vr, const std::string& value);
  void Number(const DcmTagKey& key, int value);                             // US
  void Numbers(const DcmTagKey& key, const std::vector<uint32_t>& values);  // UL
  void Numbers(const DcmTagKey& key, const std::vector<double>& values);    // FD
  void Decimals(const DcmTagKey& key, const std::vector<double>& values);   // DS
  void Pixels(const std::vector<uint16_t>& pixels);
  void Insert(DcmElement* element);  // takes it
  // An attribute as another dataset has it; empty, with this VR, where that has none.
  void Copy(const DcmTagKey& key, DcmEVR vr, DcmItem& from);
  // A new last item of a sequence, which is made with its first.
  DatasetBuilder Item(const DcmTagKey& key);
  // A sequence without items.
  void EmptySequence(const DcmTagKey& key);

 private:
  void Keep(const DcmTagKey& key, const OFCondition& condition);

  DcmItem* item_;  // null after a failure to make it
  absl::Status* status_;
};

// FAILED_PRECONDITION where DCMTK's data dictionary is not there: it would still write files, but
// with a meta header that no reader accepts.
absl::Status CheckDicomDictionary();

// Writes a file in Explicit VR Little Endian, aside, synced and renamed. Statuses as OutputFile's.
absl::Status SaveDicomFile(DcmFileFormat* file, const std::string& path);

}  // namespace gvsl

#endif  // GVSL_INGEST_DATASET_BUILDER_H_

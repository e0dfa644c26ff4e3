// Datasets that follow a DIMSE command, into files. For .cc files: includes DCMTK.
#ifndef GVSL_INGEST_DATASET_RECEIVER_H_
#define GVSL_INGEST_DATASET_RECEIVER_H_

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/dcmnet/dimse.h>

#include <cstdint>
#include <string>

namespace gvsl {

struct ReceivedDataset {
  OFCondition condition;  // bad: the association is broken
  bool is_whole = false;  // false: it is too large or its disk is full, and its file is gone
  int64_t bytes = 0;      // of the dataset that came, kept or not
};

// Reads the dataset that follows on the presentation context `context` to its end, whatever it
// costs, so that the association can go on; waits `timeout_s` for each part. The file `path` gets
// it bit by bit as it comes, behind a Part 10 meta header where `store` is given. With an empty
// path it is read and dropped.
ReceivedDataset ReceiveDataset(T_ASC_Association* association, T_ASC_PresentationContextID context,
                               int timeout_s, const std::string& path, int64_t max_bytes,
                               T_DIMSE_C_StoreRQ* store);

}  // namespace gvsl

#endif  // GVSL_INGEST_DATASET_RECEIVER_H_

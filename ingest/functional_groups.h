// The frames of an enhanced multi-frame image (PS3.3 C.7.6.16): each with the macros of its own
// item, or else of the shared one.
#ifndef GVSL_INGEST_FUNCTIONAL_GROUPS_H_
#define GVSL_INGEST_FUNCTIONAL_GROUPS_H_

#include "absl/status/status.h"
#include "ingest/dicom_instance.h"

class DcmItem;

namespace gvsl {

// Fills instance.frames, `frame_count` of them. FAILED_PRECONDITION names the macro that is missing
// and the frame.
absl::Status ReadFunctionalGroups(DcmItem& dataset, int frame_count, DicomInstance& instance);

// Checks the orientation's cosines (unit, at right angles within 1e-3) and puts them into `frame`,
// exactly orthonormal. False if they are no orientation.
bool SetOrientation(const Vec3& row, const Vec3& column, DicomFrame& frame);

}  // namespace gvsl

#endif  // GVSL_INGEST_FUNCTIONAL_GROUPS_H_

// DCMTK's own log.
#ifndef GVSL_INGEST_DICOM_LOGGING_H_
#define GVSL_INGEST_DICOM_LOGGING_H_

namespace gvsl {

// DCMTK writes what it finds odd, attribute values of patients among it, to standard error. Off:
// what matters comes as a verdict. Call once, before other threads are made.
void SilenceDicomLog();

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_LOGGING_H_

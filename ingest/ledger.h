// What became of every instance that was given: nothing is dropped without a word.
#ifndef GVSL_INGEST_LEDGER_H_
#define GVSL_INGEST_LEDGER_H_

#include <string>
#include <vector>

namespace gvsl {

// A code is stable: people and programs filter by its name.
enum class Verdict {
  kUsed,               // its pixels are in a volume
  kDuplicate,          // same SOP Instance UID, or same place and same pixels, as one that was used
  kConflict,           // same SOP Instance UID as another file, but other content
  kUnreadable,         // the file could not be opened or read
  kNotDicom,           // no DICOM file, or damaged beyond recognition
  kNotAnImage,         // reports, RT objects, documents, DICOMDIR, segmentations: no image slices
  kUnsupportedClass,   // an image, but of no class that forms a volume (secondary capture, X-ray)
  kColour,             // RGB, YBR or palette pixels
  kLocalizer,          // a scout
  kUnsupportedPixels,  // a pixel format or a modality LUT that is not supported
  kUnsupportedSyntax,  // a transfer syntax that cannot be decoded
  kTruncated,          // fewer bytes than its header promises
  kNoPosition,         // no position, orientation or pixel spacing: its place is unknown
  kWrongSize,          // rows and columns differ from the rest of its stack
  kWrongSpacing,       // pixel spacing differs from the rest of its stack
  kSingleSlice,        // a slice alone is no volume
  kGap,                // slices are missing from its stack
  kAmbiguousPosition,  // several slices at one place, and nothing tells them apart
  kBadGeometry,        // the stack's lattice is none that a volume can have
  kTooLarge,           // its volume would need more memory than is allowed
  kUndecodable,        // its compressed pixels are damaged
};

// UPPER_SNAKE, as in "NO_POSITION".
const char* VerdictName(Verdict verdict);

struct LedgerEntry {
  std::string path;
  std::string sop_instance_uid;  // empty where the file has none
  Verdict verdict = Verdict::kUsed;
  std::string detail;  // for people; empty when used without more to say
  std::string sop_class_uid;

  // All of its slices are in volumes, not some.
  bool is_wholly_used() const { return verdict == Verdict::kUsed && detail.empty(); }
};

using Ledger = std::vector<LedgerEntry>;

// "30 USED, 1 WRONG_SIZE"
std::string VerdictCounts(const Ledger& ledger);

}  // namespace gvsl

#endif  // GVSL_INGEST_LEDGER_H_

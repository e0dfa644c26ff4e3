#include "ingest/ledger.h"

#include <map>

#include "absl/strings/str_cat.h"

namespace gvsl {

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kUsed:
      return "USED";
    case Verdict::kDuplicate:
      return "DUPLICATE";
    case Verdict::kConflict:
      return "CONFLICT";
    case Verdict::kUnreadable:
      return "UNREADABLE";
    case Verdict::kNotDicom:
      return "NOT_DICOM";
    case Verdict::kNotAnImage:
      return "NOT_AN_IMAGE";
    case Verdict::kUnsupportedClass:
      return "UNSUPPORTED_CLASS";
    case Verdict::kColour:
      return "COLOUR";
    case Verdict::kLocalizer:
      return "LOCALIZER";
    case Verdict::kUnsupportedPixels:
      return "UNSUPPORTED_PIXELS";
    case Verdict::kUnsupportedSyntax:
      return "UNSUPPORTED_SYNTAX";
    case Verdict::kTruncated:
      return "TRUNCATED";
    case Verdict::kNoPosition:
      return "NO_POSITION";
    case Verdict::kWrongSize:
      return "WRONG_SIZE";
    case Verdict::kWrongSpacing:
      return "WRONG_SPACING";
    case Verdict::kSingleSlice:
      return "SINGLE_SLICE";
    case Verdict::kGap:
      return "GAP";
    case Verdict::kAmbiguousPosition:
      return "AMBIGUOUS_POSITION";
    case Verdict::kBadGeometry:
      return "BAD_GEOMETRY";
    case Verdict::kTooLarge:
      return "TOO_LARGE";
    case Verdict::kUndecodable:
      break;
  }
  return "UNDECODABLE";
}

std::string VerdictCounts(const Ledger& ledger) {
  std::map<Verdict, int> counts;
  for (const LedgerEntry& entry : ledger) ++counts[entry.verdict];
  std::string text;
  for (const auto& [verdict, count] : counts) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", count, " ", VerdictName(verdict));
  }
  return text;
}

}  // namespace gvsl

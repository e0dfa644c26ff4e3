// Values of DICOM attributes, as the readers of this room need them. For .cc files: includes DCMTK.
#ifndef GVSL_INGEST_DICOM_ATTRIBUTES_H_
#define GVSL_INGEST_DICOM_ATTRIBUTES_H_

#include <dcmtk/config/osconfig.h>
// DCMTK wants its configuration first.
#include <dcmtk/dcmdata/dctk.h>

#include <cmath>
#include <optional>
#include <string>

#include "imaging/volume.h"

namespace gvsl {

// An attribute that is there, and of a length that can be meant, or null. Values stay in the file
// until they are asked for; a damaged length may promise 4 GiB, and DCMTK would make room for it.
inline DcmElement* Find(DcmItem& item, const DcmTagKey& key, Uint32 max_bytes = 1 << 16) {
  DcmElement* element = nullptr;
  return item.findAndGetElement(key, element).good() && element->getLengthField() <= max_bytes
             ? element
             : nullptr;
}

// All values, joined by backslashes; empty without the attribute.
inline std::string TextOf(DcmItem& item, const DcmTagKey& key) {
  DcmElement* const element = Find(item, key);
  OFString value;
  if (element == nullptr || element->getOFStringArray(value).bad()) return "";
  return std::string(value.c_str(), value.size());
}

// One value of a numeric attribute (DS, FD, FL); nothing if absent, unreadable or not finite.
inline std::optional<double> NumberOf(DcmItem& item, const DcmTagKey& key, unsigned long at = 0) {
  DcmElement* const element = Find(item, key);
  if (element == nullptr) return std::nullopt;
  Float64 wide = 0;
  if (element->getFloat64(wide, at).good()) {
    if (!std::isfinite(wide)) return std::nullopt;
    return wide;
  }
  Float32 narrow = 0;
  if (element->getFloat32(narrow, at).good() && std::isfinite(narrow)) return narrow;
  return std::nullopt;
}

// An integer of any VR (IS, US, SS, UL).
inline std::optional<int32_t> IntegerOf(DcmItem& item, const DcmTagKey& key) {
  DcmElement* const element = Find(item, key);
  if (element == nullptr) return std::nullopt;
  Uint16 unsigned_short = 0;
  Sint16 signed_short = 0;
  Sint32 number = 0;
  Uint32 unsigned_number = 0;
  if (element->getUint16(unsigned_short).good()) return unsigned_short;
  if (element->getSint16(signed_short).good()) return signed_short;
  if (element->getSint32(number).good()) return number;
  if (element->getUint32(unsigned_number).good() && unsigned_number <= 0x7FFFFFFF) {
    return static_cast<int32_t>(unsigned_number);
  }
  return std::nullopt;
}

// Three values from `first` on.
inline std::optional<Vec3> VectorOf(DcmItem& item, const DcmTagKey& key, unsigned long first = 0) {
  Vec3 vector;
  for (int i = 0; i < 3; ++i) {
    const std::optional<double> value = NumberOf(item, key, first + i);
    if (!value) return std::nullopt;
    vector[i] = *value;
  }
  return vector;
}

}  // namespace gvsl

#endif  // GVSL_INGEST_DICOM_ATTRIBUTES_H_

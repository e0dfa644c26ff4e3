#include "ingest/siemens_mosaic.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "ingest/dicom_attributes.h"
#include "ingest/vec3.h"

namespace gvsl {
namespace {

// Reads little-endian numbers and text, and never beyond the end.
class CsaReader {
 public:
  CsaReader(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool Skip(size_t count) {
    if (count > size_ - at_) return false;
    at_ += count;
    return true;
  }
  bool Number(uint32_t* value) {
    if (size_ - at_ < 4) return false;
    *value = data_[at_] | data_[at_ + 1] << 8 | data_[at_ + 2] << 16 |
             static_cast<uint32_t>(data_[at_ + 3]) << 24;
    at_ += 4;
    return true;
  }
  // A text in `count` bytes, which ends at its first zero.
  bool Text(size_t count, std::string* text) {
    if (count > size_ - at_) return false;
    const char* begin = reinterpret_cast<const char*>(data_) + at_;
    text->assign(begin, strnlen(begin, count));
    at_ += count;
    return true;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

const DcmTagKey kCsaCreator(0x0029, 0x0010), kCsaImageHeader(0x0029, 0x1010);
const DcmTagKey kImagesInMosaic(0x0019, 0x100A);
constexpr Uint32 kMaxCsaBytes = 16 << 20;

}  // namespace

std::vector<std::string> CsaValues(const uint8_t* header, size_t size, const std::string& field) {
  CsaReader reader(header, size);
  const bool second_version = size >= 4 && std::memcmp(header, "SV10", 4) == 0;
  uint32_t tags = 0, unused = 0;
  if (second_version && !reader.Skip(8)) return {};
  if (!reader.Number(&tags) || !reader.Number(&unused)) return {};
  for (uint32_t tag = 0; tag < tags; ++tag) {
    std::string name;
    uint32_t items = 0;
    // name, VM, VR, SyngoDT, number of items, 77 or 205
    if (!reader.Text(64, &name) || !reader.Skip(12) || !reader.Number(&items) || !reader.Skip(4)) {
      return {};
    }
    std::vector<std::string> values;
    for (uint32_t item = 0; item < items; ++item) {
      uint32_t length = 0, other = 0;
      std::string value;
      if (!reader.Number(&length) || !reader.Number(&other) || !reader.Skip(8)) return {};
      // The first version tells lengths relative to the first tag's; only the second is in use.
      if (!second_version) length = other;
      if (!reader.Text(length, &value)) return {};
      if (!reader.Skip((4 - length % 4) % 4)) return {};
      if (!value.empty()) values.push_back(value);
    }
    if (name == field) return values;
  }
  return {};
}

absl::Status SplitMosaic(DcmItem& dataset, DicomInstance& instance) {
  const Uint8* csa = nullptr;
  unsigned long csa_size = 0;
  if (TextOf(dataset, kCsaCreator).rfind("SIEMENS CSA HEADER", 0) == 0 &&
      Find(dataset, kCsaImageHeader, kMaxCsaBytes) != nullptr) {
    dataset.findAndGetUint8Array(kCsaImageHeader, csa, &csa_size);
  }
  int count = IntegerOf(dataset, kImagesInMosaic).value_or(0);
  Vec3 normal = {0, 0, 0};
  if (csa != nullptr) {
    const std::vector<std::string> images = CsaValues(csa, csa_size, "NumberOfImagesInMosaic");
    if (!images.empty()) count = std::atoi(images[0].c_str());
    const std::vector<std::string> components = CsaValues(csa, csa_size, "SliceNormalVector");
    for (size_t i = 0; i < 3 && components.size() >= 3; ++i) {
      normal[i] = std::atof(components[i].c_str());
    }
  }
  const std::optional<double> spacing_mm = NumberOf(dataset, DCM_SpacingBetweenSlices);
  const DicomFrame whole = instance.frames.at(0);
  const Vec3 plane_normal = Cross(whole.row_direction, whole.column_direction);
  const double along = Dot(normal, plane_normal);
  if (count < 1 || !spacing_mm || !(*spacing_mm > 0) || std::abs(std::abs(along) - 1) > 1e-2) {
    return absl::FailedPreconditionError(
        "a mosaic whose CSA header does not tell the number of its slices, their normal and "
        "spacing");
  }
  const int side = static_cast<int>(std::ceil(std::sqrt(static_cast<double>(count))));
  PixelFormat& pixels = instance.pixels;
  if (side > pixels.columns || pixels.columns % side != 0 || pixels.rows % side != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "a mosaic of ", count, " tiles does not divide ", pixels.columns, " x ", pixels.rows));
  }
  pixels.slice_columns = pixels.columns / side;
  pixels.slice_rows = pixels.rows / side;
  const Vec3 corner =
      whole.position_mm +
      0.5 * (pixels.columns - pixels.slice_columns) * whole.column_spacing_mm *
          whole.row_direction +
      0.5 * (pixels.rows - pixels.slice_rows) * whole.row_spacing_mm * whole.column_direction;
  instance.frames.clear();
  for (int tile = 0; tile < count; ++tile) {
    DicomFrame frame = whole;
    frame.tile_column = tile % side * pixels.slice_columns;
    frame.tile_row = tile / side * pixels.slice_rows;
    frame.position_mm = corner + (along > 0 ? tile : -tile) * *spacing_mm * plane_normal;
    instance.frames.push_back(std::move(frame));
  }
  return absl::OkStatus();
}

}  // namespace gvsl

#include "imaging/png.h"

#include <png.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace gvsl {

absl::StatusOr<std::string> EncodePngRgb(int width, int height, const std::vector<uint8_t>& rgb) {
  constexpr int kMaxSide = 16384;
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide ||
      rgb.size() != size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a picture of ", width, " x ", height, " pixels needs 3 bytes a pixel and sides of 1 to ",
        kMaxSide, "; it has ", rgb.size(), " bytes"));
  }
  // libpng's simplified interface: no setjmp, no state to free.
  png_image image;
  std::memset(&image, 0, sizeof(image));
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width);
  image.height = static_cast<png_uint_32>(height);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string png(size, '\0');
  if (!png_image_write_to_memory(&image, png.data(), &size, 0, rgb.data(), 0, nullptr)) {
    return absl::InternalError(absl::StrCat("libpng: ", image.message));
  }
  png.resize(size);
  return png;
}

}  // namespace gvsl

// Pictures for tests.
#ifndef GVSL_IMAGING_TESTING_PNG_H_
#define GVSL_IMAGING_TESTING_PNG_H_

#include <gtest/gtest.h>
#include <png.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace gvsl {

// What a PNG file shows.
struct DecodedPng {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;

  std::array<int, 3> Pixel(int x, int y) const {
    const uint8_t* pixel = &rgb[3 * static_cast<size_t>(y * width + x)];
    return {pixel[0], pixel[1], pixel[2]};
  }
  int Grey(int x, int y) const { return Pixel(x, y)[0]; }
};

// As libpng reads it.
inline DecodedPng Decoded(const std::string& png) {
  png_image image;
  std::memset(&image, 0, sizeof(image));
  image.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(png_image_begin_read_from_memory(&image, png.data(), png.size())) << image.message;
  image.format = PNG_FORMAT_RGB;
  DecodedPng picture;
  picture.width = static_cast<int>(image.width);
  picture.height = static_cast<int>(image.height);
  picture.rgb.resize(PNG_IMAGE_SIZE(image));
  EXPECT_TRUE(png_image_finish_read(&image, nullptr, picture.rgb.data(), 0, nullptr))
      << image.message;
  return picture;
}

}  // namespace gvsl

#endif  // GVSL_IMAGING_TESTING_PNG_H_

#include "trainer/picture.h"

#include <algorithm>
#include <vector>

#include "imaging/png.h"

namespace gvsl {

absl::StatusOr<RenderedPicture> Render(const PictureReport& report) {
  constexpr float kWhiteMm = 10;
  struct Tile {
    const std::vector<float>* values;
    float white;
  };
  std::vector<Tile> tiles;
  for (const auto* values :
       {&report.a, &report.distorted, &report.b, &report.warped, &report.restored}) {
    if (!values->empty()) tiles.push_back({values, 1});
  }
  if (!report.displacement.empty()) tiles.push_back({&report.displacement, kWhiteMm});
  RenderedPicture picture;
  picture.height = static_cast<int>(report.rows);
  picture.width = static_cast<int>(report.columns * static_cast<int64_t>(tiles.size()));
  std::vector<uint8_t> rgb(static_cast<size_t>(picture.width * picture.height * 3));
  for (size_t t = 0; t < tiles.size(); ++t) {
    for (int64_t row = 0; row < report.rows; ++row) {
      for (int64_t column = 0; column < report.columns; ++column) {
        const float value =
            (*tiles[t].values)[static_cast<size_t>(row * report.columns + column)] / tiles[t].white;
        const auto grey = static_cast<uint8_t>(std::clamp(value, 0.0f, 1.0f) * 255 + 0.5f);
        const int64_t x = static_cast<int64_t>(t) * report.columns + column;
        std::fill_n(rgb.begin() + (row * picture.width + x) * 3, 3, grey);
      }
    }
  }
  auto png = EncodePngRgb(picture.width, picture.height, rgb);
  if (!png.ok()) return png.status();
  picture.png = *std::move(png);
  return picture;
}

}  // namespace gvsl

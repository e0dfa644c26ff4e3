#include "client/loss_plot.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <set>

namespace gvsl {
namespace {

struct Picture {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;

  // The columns, or the rows, in which this colour stands, within the axes: below the legend.
  std::set<int> Places(const std::array<uint8_t, 3>& colour, bool columns) const {
    std::set<int> places;
    for (int y = 80; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const uint8_t* pixel = &rgb[3 * static_cast<size_t>(y * width + x)];
        if (std::memcmp(pixel, colour.data(), 3) == 0) places.insert(columns ? x : y);
      }
    }
    return places;
  }
  size_t Pixels(const LossCurve& curve) const {
    size_t count = 0;
    for (size_t i = size_t{3} * 80 * static_cast<size_t>(width); i < rgb.size(); i += 3)
      count += std::memcmp(&rgb[i], curve.rgb.data(), 3) == 0 ? 1 : 0;
    return count;
  }
  size_t Columns(const LossCurve& curve) const { return Places(curve.rgb, true).size(); }
};

Picture Drawn(const std::vector<v1::JobEvent>& events, const LossPlotOptions& options = {}) {
  const auto png = LossPlotPng(events, options);
  EXPECT_TRUE(png.ok()) << png.status();
  png_image image;
  std::memset(&image, 0, sizeof(image));
  image.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(png_image_begin_read_from_memory(&image, png->data(), png->size())) << image.message;
  image.format = PNG_FORMAT_RGB;
  Picture picture{static_cast<int>(image.width), static_cast<int>(image.height), {}};
  picture.rgb.resize(PNG_IMAGE_SIZE(image));
  EXPECT_TRUE(png_image_finish_read(&image, nullptr, picture.rgb.data(), 0, nullptr));
  return picture;
}

v1::JobLosses Losses(double total, double similarity, double smoothness, double restoration) {
  v1::JobLosses losses;
  losses.set_total(total);
  losses.set_similarity(similarity);
  losses.set_smoothness(smoothness);
  losses.set_restoration(restoration);
  return losses;
}

v1::JobEvent Step(int64_t step, const v1::JobLosses& losses) {
  v1::JobEvent event;
  event.mutable_step()->set_step(step);
  *event.mutable_step()->mutable_losses() = losses;
  return event;
}

v1::JobEvent Validation(int64_t step, const v1::JobLosses& losses, bool best) {
  v1::JobEvent event;
  event.mutable_validation()->set_step(step);
  *event.mutable_validation()->mutable_losses() = losses;
  event.mutable_validation()->set_best(best);
  return event;
}

v1::JobEvent Started(int64_t step) {
  v1::JobEvent event;
  event.mutable_started()->set_step(step);
  return event;
}

TEST(LossPlot, DrawsEachCurveInItsColourOverAllSteps) {
  std::vector<v1::JobEvent> events;
  for (int step = 0; step <= 200; step += 10)
    events.push_back(Step(step, Losses(1, 0.7, 0.2, 0.4)));
  for (const bool log_scale : {false, true}) {
    LossPlotOptions options;
    options.title = "a job";
    options.log_scale = log_scale;
    const Picture picture = Drawn(events, options);
    EXPECT_EQ(picture.width, 1200);
    EXPECT_EQ(picture.height, 720);
    for (const LossCurve& curve : kLossCurves)
      EXPECT_GT(picture.Columns(curve), 1000u) << curve.name;
  }
}

TEST(LossPlot, AHigherLossStandsHigher) {
  const Picture picture =
      Drawn({Step(0, Losses(1, 0.7, 0.2, 0.4)), Step(9, Losses(1, 0.7, 0.2, 0.4))});
  std::vector<int> rows;
  for (const LossCurve& curve : kLossCurves)
    rows.push_back(*picture.Places(curve.rgb, false).begin());
  EXPECT_LT(rows[0], rows[1]);  // rows count from the top
  EXPECT_LT(rows[1], rows[3]);
  EXPECT_LT(rows[3], rows[2]);
}

TEST(LossPlot, DrawsARingForEachValidationAndADiskForTheBest) {
  const auto v = Losses(1, 0.7, 0.2, 0.4);
  const LossCurve& total = kLossCurves[0];
  const size_t one = Drawn({Validation(10, v, false)}).Pixels(total);
  EXPECT_GT(one, 3u);
  EXPECT_GT(Drawn({Validation(5, v, false), Validation(10, v, false)}).Pixels(total), one);
  EXPECT_GT(Drawn({Validation(10, v, true)}).Pixels(total), one);  // filled
}

TEST(LossPlot, StepsToldAgainAfterACrashAreDrawnOnce) {
  const auto low = Losses(0.1, 0.1, 0.1, 0.1), high = Losses(9, 0.1, 0.1, 0.1);
  const auto events = std::vector<v1::JobEvent>{Started(0),  Step(10, low), Step(20, high),
                                                Started(10), Step(20, low), Step(30, low)};
  const auto without = std::vector<v1::JobEvent>{Step(10, low), Step(20, low), Step(30, low)};
  EXPECT_EQ(Drawn(events).rgb, Drawn(without).rgb);
}

TEST(LossPlot, LeavesOutWhatIsNoNumberAndDrawsTheRest) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const Picture picture =
      Drawn({Step(0, Losses(nan, 0.7, 0, 0.4)), Step(5, Losses(inf, 0.6, 0, 0.4)),
             Step(10, Losses(nan, 0.6, 0, 0.4))});
  EXPECT_EQ(picture.Columns(kLossCurves[0]), 0u);
  EXPECT_GT(picture.Columns(kLossCurves[1]), 100u);
}

TEST(LossPlot, ASingleStepIsADot) {
  EXPECT_GE(Drawn({Step(10, Losses(1, 0.7, 0.2, 0.4))}).Columns(kLossCurves[0]), 1u);
}

TEST(LossPlot, ExtremeNumbersStayAPicture) {
  Drawn({Step(0, Losses(1e300, -1e90, 1e-90, 0)), Step(int64_t{1} << 60, Losses(0, 0, 0, 0))});
  LossPlotOptions options;
  options.log_scale = true;
  Drawn({Step(0, Losses(1e300, -1e90, 1e-90, 0)), Step(1, Losses(1e-300, 0, 0, 0))}, options);
  Drawn({Step(0, Losses(0, 0, 0, 0)), Step(1, Losses(0, 0, 0, 0))});
}

TEST(LossPlot, AJobThatHasToldNothingIsRefusedInWords) {
  for (const auto& events : {std::vector<v1::JobEvent>{}, std::vector<v1::JobEvent>{Started(0)}}) {
    const auto png = LossPlotPng(events, {});
    EXPECT_EQ(png.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(std::string(png.status().message()).find("no losses yet"), std::string::npos);
  }
}

}  // namespace
}  // namespace gvsl

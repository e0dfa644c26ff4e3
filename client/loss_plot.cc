#include "client/loss_plot.h"

#include <cairo.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "imaging/png.h"

namespace gvsl {
namespace {

struct Point {
  int64_t step;
  v1::JobLosses losses;
  bool best = false;
};

struct Series {
  std::vector<Point> steps, validations;
};

void DropAbove(int64_t step, std::vector<Point>* points) {
  points->erase(std::remove_if(points->begin(), points->end(),
                               [step](const Point& point) { return point.step > step; }),
                points->end());
}

Series SeriesOf(const std::vector<v1::JobEvent>& events) {
  Series series;
  for (const v1::JobEvent& event : events) {
    if (event.has_started()) {  // what lies above is told again
      DropAbove(event.started().step(), &series.steps);
      DropAbove(event.started().step(), &series.validations);
    } else if (event.has_step()) {
      series.steps.push_back({event.step().step(), event.step().losses()});
    } else if (event.has_validation()) {
      const auto& validation = event.validation();
      if (validation.best()) {
        for (Point& point : series.validations) point.best = false;
      }
      series.validations.push_back({validation.step(), validation.losses(), validation.best()});
    }
  }
  return series;
}

constexpr std::array<uint8_t, 3> kPaper = {255, 255, 255}, kInk = {51, 51, 51},
                                 kGrid = {226, 226, 226};
constexpr size_t kDense = 1000;  // steps from which on curves are thin, as they overlap
constexpr double kMost = 1e100;  // a loss above is no number for a picture

// From `low` to `high` of an axis, linear or in decades, onto pixels.
struct Axis {
  double low = 0, high = 1;
  bool log = false;
  double first_pixel = 0, last_pixel = 1;

  bool Has(double value) const { return std::abs(value) <= kMost && (!log || value >= 1 / kMost); }
  double Pixel(double value) const {
    const double share =
        log ? std::log10(value / low) / std::log10(high / low) : (value - low) / (high - low);
    return first_pixel + share * (last_pixel - first_pixel);
  }
  // Round numbers within the axis.
  std::vector<double> Ticks(int about) const {
    std::vector<double> ticks;
    if (log) {
      const double first = std::floor(std::log10(low)), last = std::log10(high);
      const double stride = std::max(1.0, std::ceil((last - first) / (2 * about)));
      for (double decade = first; decade <= last; decade += stride) {
        for (double digit : {1.0, 2.0, 5.0}) {
          const double tick = std::pow(10, decade) * digit;
          if ((digit == 1 || last - first < 4) && tick >= low && tick <= high)
            ticks.push_back(tick);
        }
      }
      return ticks;
    }
    const double rough = (high - low) / about;
    const double decade = std::pow(10, std::floor(std::log10(rough)));
    double step = decade * 10;
    for (double digit : {5.0, 2.0, 1.0}) {
      if (decade * digit >= rough * 0.8) step = decade * digit;
    }
    for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i)
      ticks.push_back(i * step + 0.0);  // no zero below zero
    return ticks;
  }
};

std::string StepLabel(double step) {
  return step == std::floor(step) ? absl::StrFormat("%.0f", step) : "";
}

std::string LossLabel(double loss) {
  return absl::StrFormat("%g", std::abs(loss) < 1e-12 ? 0 : loss);
}

class Canvas {
 public:
  Canvas(int width, int height)
      : surface_(cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height),
                 cairo_surface_destroy),
        cairo_(cairo_create(surface_.get()), cairo_destroy) {
    Colour(kPaper);
    cairo_paint(cairo_.get());
    cairo_select_font_face(cairo_.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_line_cap(cairo_.get(), CAIRO_LINE_CAP_ROUND);
    cairo_set_line_join(cairo_.get(), CAIRO_LINE_JOIN_ROUND);
  }

  cairo_t* get() { return cairo_.get(); }
  void Colour(const std::array<uint8_t, 3>& rgb) {
    cairo_set_source_rgb(cairo_.get(), rgb[0] / 255.0, rgb[1] / 255.0, rgb[2] / 255.0);
  }
  void Line(double x0, double y0, double x1, double y1, double width) {
    cairo_set_line_width(cairo_.get(), width);
    cairo_move_to(cairo_.get(), x0, y0);
    cairo_line_to(cairo_.get(), x1, y1);
    cairo_stroke(cairo_.get());
  }
  void Dot(double x, double y) {
    cairo_new_sub_path(cairo_.get());
    cairo_arc(cairo_.get(), x, y, 2, 0, 2 * M_PI);
  }
  void Ring(double x, double y, const std::array<uint8_t, 3>& rgb, bool filled) {
    cairo_new_sub_path(cairo_.get());
    cairo_arc(cairo_.get(), x, y, 4.5, 0, 2 * M_PI);
    Colour(filled ? rgb : kPaper);
    cairo_fill_preserve(cairo_.get());
    Colour(rgb);
    cairo_set_line_width(cairo_.get(), 2);
    cairo_stroke(cairo_.get());
  }
  // `align`: 0 puts the text to the right of x, 0.5 about it, 1 to its left; y is the middle of a
  // line. Returns the text's width.
  double Text(const std::string& text, double x, double y, double align, double size) {
    cairo_text_extents_t extents;
    cairo_set_font_size(cairo_.get(), size);
    cairo_text_extents(cairo_.get(), text.c_str(), &extents);
    cairo_move_to(cairo_.get(), x - align * extents.x_advance, y + size * 0.36);
    cairo_show_text(cairo_.get(), text.c_str());
    return extents.x_advance;
  }

  absl::StatusOr<std::string> Png() {
    cairo_surface_flush(surface_.get());
    const cairo_status_t status = cairo_status(cairo_.get());
    if (status != CAIRO_STATUS_SUCCESS)
      return absl::InternalError(absl::StrCat("cairo: ", cairo_status_to_string(status)));
    const int width = cairo_image_surface_get_width(surface_.get());
    const int height = cairo_image_surface_get_height(surface_.get());
    const int stride = cairo_image_surface_get_stride(surface_.get());
    const unsigned char* rows = cairo_image_surface_get_data(surface_.get());
    std::vector<uint8_t> rgb;
    rgb.reserve(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        uint32_t pixel = 0;  // 0x00RRGGBB in the machine's order
        std::memcpy(&pixel, rows + static_cast<ptrdiff_t>(y) * stride + 4 * x, sizeof(pixel));
        for (int shift : {16, 8, 0}) rgb.push_back(static_cast<uint8_t>(pixel >> shift & 0xFF));
      }
    }
    return EncodePngRgb(width, height, rgb);
  }

 private:
  std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface_;
  std::unique_ptr<cairo_t, decltype(&cairo_destroy)> cairo_;
};

constexpr double kLeft = 90, kRight = 30, kTop = 90, kBottom = 70;  // margins in pixels

// The axis of the losses that holds every value; nothing where there is none.
bool RangeOfLosses(const Series& series, Axis* axis) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const auto* points : {&series.steps, &series.validations}) {
    for (const Point& point : *points) {
      for (const LossCurve& curve : kLossCurves) {
        const double value = (point.losses.*curve.value)();
        if (!axis->Has(value)) continue;
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
  }
  if (low > high) return false;
  if (axis->log) {
    axis->low = low / 1.2;
    axis->high = high * 1.2;
  } else {
    axis->low = std::min(low, 0.0);
    axis->high = high > axis->low ? high : axis->low + 1;
    const double margin = (axis->high - axis->low) * 0.05;
    if (low < 0) axis->low -= margin;
    axis->high += margin;
  }
  return true;
}

void DrawAxes(Canvas& canvas, const Axis& x, const Axis& y) {
  for (double tick : x.Ticks(8)) {
    if (StepLabel(tick).empty()) continue;
    canvas.Colour(kGrid);
    canvas.Line(x.Pixel(tick), y.first_pixel, x.Pixel(tick), y.last_pixel, 1);
    canvas.Colour(kInk);
    canvas.Text(StepLabel(tick), x.Pixel(tick), y.first_pixel + 18, 0.5, 14);
  }
  for (double tick : y.Ticks(7)) {
    canvas.Colour(kGrid);
    canvas.Line(x.first_pixel, y.Pixel(tick), x.last_pixel, y.Pixel(tick), 1);
    canvas.Colour(kInk);
    canvas.Text(LossLabel(tick), x.first_pixel - 10, y.Pixel(tick), 1, 14);
  }
  canvas.Line(x.first_pixel, y.first_pixel, x.last_pixel, y.first_pixel, 1.5);
  canvas.Line(x.first_pixel, y.first_pixel, x.first_pixel, y.last_pixel, 1.5);
  canvas.Text("step", (x.first_pixel + x.last_pixel) / 2, y.first_pixel + 46, 0.5, 16);
  cairo_save(canvas.get());
  cairo_translate(canvas.get(), 24, (y.first_pixel + y.last_pixel) / 2);
  cairo_rotate(canvas.get(), -M_PI / 2);
  canvas.Text(y.log ? "loss (logarithmic)" : "loss", 0, 0, 0.5, 16);
  cairo_restore(canvas.get());
}

void DrawCurve(Canvas& canvas, const Series& series, const LossCurve& curve, const Axis& x,
               const Axis& y) {
  canvas.Colour(curve.rgb);
  int run = 0;  // points since the last gap
  double at_x = 0, at_y = 0;
  const auto end_run = [&] {
    if (run == 1) canvas.Dot(at_x, at_y);  // a line of one point would not be seen
    run = 0;
  };
  for (const Point& point : series.steps) {
    const double value = (point.losses.*curve.value)();
    if (!y.Has(value)) {
      end_run();
      continue;
    }
    at_x = x.Pixel(static_cast<double>(point.step));
    at_y = y.Pixel(value);
    run++ == 0 ? cairo_move_to(canvas.get(), at_x, at_y) : cairo_line_to(canvas.get(), at_x, at_y);
  }
  end_run();
  cairo_set_line_width(canvas.get(), series.steps.size() > kDense ? 1 : 2);
  cairo_stroke(canvas.get());
}

void DrawValidations(Canvas& canvas, const Series& series, const LossCurve& curve, const Axis& x,
                     const Axis& y) {
  for (const Point& point : series.validations) {
    const double value = (point.losses.*curve.value)();
    if (y.Has(value))
      canvas.Ring(x.Pixel(static_cast<double>(point.step)), y.Pixel(value), curve.rgb, point.best);
  }
}

void DrawLegend(Canvas& canvas, bool validations) {
  constexpr double kY = 62, kGap = 28;
  double at = kLeft;
  for (const LossCurve& curve : kLossCurves) {
    canvas.Colour(curve.rgb);
    canvas.Line(at, kY, at + 26, kY, 3);
    canvas.Colour(kInk);
    at += 34 + canvas.Text(curve.name, at + 34, kY, 0, 14) + kGap;
  }
  if (!validations) return;
  for (const bool best : {false, true}) {
    canvas.Ring(at + 6, kY, kInk, best);
    at += 18 + canvas.Text(best ? "best validation" : "validation", at + 18, kY, 0, 14) + kGap;
  }
}

}  // namespace

absl::StatusOr<std::string> LossPlotPng(const std::vector<v1::JobEvent>& events,
                                        const LossPlotOptions& options) {
  const Series series = SeriesOf(events);
  Axis x, y;
  y.log = options.log_scale;
  if (!RangeOfLosses(series, &y)) {
    return absl::FailedPreconditionError(
        "the job has told no losses yet; they come every `upkeep.report_every` steps");
  }
  for (const auto* points : {&series.steps, &series.validations}) {
    for (const Point& point : *points) x.high = std::max(x.high, static_cast<double>(point.step));
  }
  x.first_pixel = kLeft;
  x.last_pixel = options.width - kRight;
  y.first_pixel = options.height - kBottom;
  y.last_pixel = kTop;

  Canvas canvas(options.width, options.height);
  DrawAxes(canvas, x, y);
  for (const LossCurve& curve : kLossCurves) DrawCurve(canvas, series, curve, x, y);
  for (const LossCurve& curve : kLossCurves) DrawValidations(canvas, series, curve, x, y);
  DrawLegend(canvas, !series.validations.empty());
  canvas.Colour(kInk);
  canvas.Text(options.title, kLeft, 28, 0, 20);
  return canvas.Png();
}

}  // namespace gvsl

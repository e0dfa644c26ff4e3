// The picture of a validation pair: A, A distorted, B, B aligned, A restored and the displacement's
// length.
#ifndef GVSL_TRAINER_PICTURE_H_
#define GVSL_TRAINER_PICTURE_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/trainer.h"

namespace gvsl {

struct RenderedPicture {
  int width = 0, height = 0;
  std::string png;
};

// Side by side in the order above, those that the method has; the displacement from black at 0 to
// white at 10 mm.
absl::StatusOr<RenderedPicture> Render(const PictureReport& report);

}  // namespace gvsl

#endif  // GVSL_TRAINER_PICTURE_H_

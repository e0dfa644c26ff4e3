// MIND-SSC: the self-similarity of a neighbourhood (Heinrich et al., MICCAI 2013), which stays much
// the same where contrasts differ. No LibTorch.
#ifndef GVSL_MODEL_MIND_H_
#define GVSL_MODEL_MIND_H_

#include "model/registration_metric.h"

namespace gvsl {

// 12 channels in 0..1: of the pairs of the six neighbours (2 voxels away) that are sqrt(2) times
// that apart, exp(-distance / variance), the distance a mean of squared differences over 3^3
// voxels, and the variance its mean over the pairs, kept within a thousandth and a thousandfold of
// that of the image.
LevelImage MindDescriptors(const LevelImage& image);

}  // namespace gvsl

#endif  // GVSL_MODEL_MIND_H_

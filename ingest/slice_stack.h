// From the slices of a series to stacks: which slices belong together, in which order, and on which
// lattice they lie. Geometry and headers alone; no pixels but to tell copies apart.
#ifndef GVSL_INGEST_SLICE_STACK_H_
#define GVSL_INGEST_SLICE_STACK_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "imaging/volume.h"
#include "ingest/dicom_instance.h"

namespace gvsl {

// A slice of a series: indices into its instances, and into that instance's frames.
struct SliceRef {
  size_t instance = 0, frame = 0;
};

struct SliceStack {
  std::vector<SliceRef> slices;  // ordered along the normal, rows x columns, of the slices
  std::string label;             // what tells it apart within its series, "echo time 28"; or empty
};

// Told of every slice that is left out, and why.
using RefuseFunction =
    std::function<void(const SliceRef& slice, Verdict verdict, const std::string& detail)>;
// A digest of a slice's stored pixels; empty if they cannot be read.
using PixelDigest = std::function<std::string(const SliceRef& slice)>;

// Parts the slices into stacks of one orientation, size and pixel spacing in which no place occurs
// twice. Slices are ordered by their position along the normal, never by name or number. Where a
// place occurs more than once, the first repeat key (RepeatKey's order) that parts the slices into
// whole stacks does so; what no key tells apart is a copy when its pixels are the same
// (kDuplicate), and is else dealt out by instance number when every place occurs equally often
// (kAmbiguousPosition otherwise). A slice whose size or spacing no other has is left out.
std::vector<SliceStack> SplitIntoStacks(const std::vector<DicomInstance>& instances,
                                        const std::vector<SliceRef>& slices,
                                        const PixelDigest& digest, const RefuseFunction& refuse);

// How a stack's slices lie on the volume's grid.
struct StackGeometry {
  Grid grid;
  // False: slice i is the grid's slice i, pixel for pixel. True: the slices are tilted or unevenly
  // spaced and are interpolated onto the grid.
  bool resampled = false;
  double tilt_degrees = 0;  // between the line through the slices' corners and their normal
  double min_step_mm = 0, max_step_mm = 0;  // between neighbours along the normal
  // How far a slice lies from where the grid has it; 0 when resampled.
  double max_displacement_mm = 0;
  // Of each slice: where its first pixel lies on the grid in columns and rows, and how far the
  // slice lies behind the grid's first one.
  struct Placement {
    double column = 0, row = 0, depth_mm = 0;
  };
  std::vector<Placement> placements;
};

// Slices that lie apart by more than 1.5 times the stack's median step and by more than 1.25 times
// their thickness (where that is known) have others missing between them: the index of the slice
// behind each gap.
std::vector<size_t> FindGaps(const std::vector<DicomInstance>& instances, const SliceStack& stack);

// The grid of a stack without gaps. Slices within 1 % of a step (at most 0.05 mm) and 0.05 pixels
// of a lattice whose axes are orthogonal within 0.05 degrees are taken as they are. Others are
// resampled: a tilted stack is sheared into a grid along the normal, enlarged to hold all slices;
// uneven steps become the lower quartile of the steps, so that the finest zone of any size keeps
// its detail. FAILED_PRECONDITION: the grid is none that a volume can have.
absl::StatusOr<StackGeometry> PlanStack(const std::vector<DicomInstance>& instances,
                                        const SliceStack& stack);

}  // namespace gvsl

#endif  // GVSL_INGEST_SLICE_STACK_H_

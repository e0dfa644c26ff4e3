#include "ingest/functional_groups.h"

#include "absl/strings/str_cat.h"
#include "ingest/dicom_attributes.h"
#include "ingest/vec3.h"

namespace gvsl {
namespace {

// One frame's view of its own and the shared macros.
class Macros {
 public:
  Macros(DcmItem* own, DcmItem* shared) : own_(own), shared_(shared) {}

  // The first item of a macro's sequence; null when neither has it.
  DcmItem* Find(const DcmTagKey& sequence) const {
    for (DcmItem* groups : {own_, shared_}) {
      DcmItem* item = nullptr;
      if (groups != nullptr && groups->findAndGetSequenceItem(sequence, item, 0).good()) {
        return item;
      }
    }
    return nullptr;
  }
  std::string Text(const DcmTagKey& sequence, const DcmTagKey& key) const {
    DcmItem* item = Find(sequence);
    return item == nullptr ? "" : TextOf(*item, key);
  }
  // Numbers as text: they are compared, not computed with.
  std::string Number(const DcmTagKey& sequence, const DcmTagKey& key) const {
    DcmItem* item = Find(sequence);
    const std::optional<double> value = item == nullptr ? std::nullopt : NumberOf(*item, key);
    return value ? absl::StrCat(*value) : "";
  }
  std::string Integer(const DcmTagKey& sequence, const DcmTagKey& key) const {
    DcmItem* item = Find(sequence);
    const std::optional<int32_t> value = item == nullptr ? std::nullopt : IntegerOf(*item, key);
    return value ? absl::StrCat(*value) : "";
  }

 private:
  DcmItem* own_;
  DcmItem* shared_;
};

absl::Status ReadGeometry(const Macros& macros, DicomFrame& frame) {
  const auto missing = [&](const char* what) {
    return absl::FailedPreconditionError(absl::StrCat("frame ", frame.frame + 1, " has no ", what));
  };
  DcmItem* position = macros.Find(DCM_PlanePositionSequence);
  const auto at =
      position == nullptr ? std::nullopt : VectorOf(*position, DCM_ImagePositionPatient);
  if (!at) return missing("Image Position (Patient)");
  frame.position_mm = *at;
  DcmItem* orientation = macros.Find(DCM_PlaneOrientationSequence);
  const auto row =
      orientation == nullptr ? std::nullopt : VectorOf(*orientation, DCM_ImageOrientationPatient);
  const auto column = orientation == nullptr
                          ? std::nullopt
                          : VectorOf(*orientation, DCM_ImageOrientationPatient, 3);
  if (!row || !column || !SetOrientation(*row, *column, frame)) {
    return missing("valid Image Orientation (Patient)");
  }
  DcmItem* measures = macros.Find(DCM_PixelMeasuresSequence);
  const auto between_rows =
      measures == nullptr ? std::nullopt : NumberOf(*measures, DCM_PixelSpacing, 0);
  const auto between_columns =
      measures == nullptr ? std::nullopt : NumberOf(*measures, DCM_PixelSpacing, 1);
  if (!between_rows || !between_columns) return missing("Pixel Spacing");
  frame.row_spacing_mm = *between_rows;
  frame.column_spacing_mm = *between_columns;
  frame.slice_thickness_mm = NumberOf(*measures, DCM_SliceThickness).value_or(0);
  return absl::OkStatus();
}

void ReadRepeatKeys(const Macros& macros, DicomFrame& frame) {
  auto& repeat = frame.repeat;
  repeat[kStackId] = macros.Text(DCM_FrameContentSequence, DCM_StackID);
  repeat[kTemporalPosition] = macros.Integer(DCM_FrameContentSequence, DCM_TemporalPositionIndex);
  repeat[kAcquisitionNumber] = macros.Integer(DCM_FrameContentSequence, DCM_FrameAcquisitionNumber);
  repeat[kImageType] =
      absl::StrCat(macros.Text(DCM_MRImageFrameTypeSequence, DCM_FrameType),
                   macros.Text(DCM_MRImageFrameTypeSequence, DCM_ComplexImageComponent),
                   macros.Text(DCM_CTImageFrameTypeSequence, DCM_FrameType));
  repeat[kEchoTime] = macros.Number(DCM_MREchoSequence, DCM_EffectiveEchoTime);
  repeat[kBValue] = macros.Number(DCM_MRDiffusionSequence, DCM_DiffusionBValue);
  if (DcmItem* diffusion = macros.Find(DCM_MRDiffusionSequence)) {
    DcmItem* direction = nullptr;
    if (diffusion->findAndGetSequenceItem(DCM_DiffusionGradientDirectionSequence, direction, 0)
            .good()) {
      if (const auto vector = VectorOf(*direction, DCM_DiffusionGradientOrientation)) {
        repeat[kGradient] = absl::StrCat((*vector)[0], ",", (*vector)[1], ",", (*vector)[2]);
      }
    }
  }
  repeat[kCardiacPhase] =
      macros.Number(DCM_CardiacSynchronizationSequence, DCM_NominalCardiacTriggerDelayTime);
}

}  // namespace

bool SetOrientation(const Vec3& row, const Vec3& column, DicomFrame& frame) {
  constexpr double kTolerance = 1e-3;  // cosines are written with few digits
  if (!(std::abs(Length(row) - 1) < kTolerance && std::abs(Length(column) - 1) < kTolerance &&
        std::abs(Dot(row, column)) < kTolerance)) {
    return false;
  }
  frame.row_direction = (1 / Length(row)) * row;
  const Vec3 upright = column - Dot(column, frame.row_direction) * frame.row_direction;
  frame.column_direction = (1 / Length(upright)) * upright;
  return true;
}

absl::Status ReadFunctionalGroups(DcmItem& dataset, int frame_count, DicomInstance& instance) {
  DcmItem* shared = nullptr;
  dataset.findAndGetSequenceItem(DCM_SharedFunctionalGroupsSequence, shared, 0);
  DcmSequenceOfItems* own = nullptr;
  dataset.findAndGetSequence(DCM_PerFrameFunctionalGroupsSequence, own);
  if (own == nullptr || static_cast<int64_t>(own->card()) < frame_count) {
    return absl::FailedPreconditionError(absl::StrCat("its functional groups tell of ",
                                                      own == nullptr ? 0 : own->card(), " of ",
                                                      frame_count, " frames"));
  }
  instance.frames.reserve(static_cast<size_t>(frame_count));
  // A sequence is a list: walked, not indexed.
  DcmObject* item = nullptr;
  for (int number = 0; number < frame_count; ++number) {
    item = own->nextInContainer(item);
    const Macros macros(static_cast<DcmItem*>(item), shared);
    DicomFrame frame;
    frame.frame = number;
    if (absl::Status status = ReadGeometry(macros, frame); !status.ok()) return status;
    if (DcmItem* values = macros.Find(DCM_PixelValueTransformationSequence)) {
      frame.slope = NumberOf(*values, DCM_RescaleSlope).value_or(1);
      frame.intercept = NumberOf(*values, DCM_RescaleIntercept).value_or(0);
    }
    ReadRepeatKeys(macros, frame);
    instance.frames.push_back(std::move(frame));
  }
  return absl::OkStatus();
}

}  // namespace gvsl

#include "ingest/series.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "imaging/sha256.h"
#include "ingest/frame_reader.h"
#include "ingest/stack_volume.h"

namespace gvsl {
namespace {

class Converter {
 public:
  Converter(const Series& series, const SeriesOptions& options, const VolumeReceiver& receive)
      : instances_(series.instances),
        options_(options),
        receive_(receive),
        reader_(options.decoder_program.empty() ? DefaultDecoderProgram()
                                                : options.decoder_program) {}

  absl::StatusOr<Ledger> Run() {
    notes_.resize(instances_.size());
    std::vector<SliceRef> slices;
    for (size_t i = 0; i < instances_.size(); ++i) {
      if (IsCopy(i)) continue;
      for (size_t frame = 0; frame < instances_[i].frames.size(); ++frame) {
        slices.push_back({i, frame});
      }
    }
    const RefuseFunction refuse = [this](const SliceRef& slice, Verdict verdict,
                                         const std::string& detail) {
      Refuse(slice, verdict, detail);
    };
    for (SliceStack& stack : SplitIntoStacks(
             instances_, slices, [this](const SliceRef& slice) { return Digest(slice); }, refuse)) {
      if (absl::Status status = Convert(std::move(stack)); !status.ok()) return status;
    }
    return MakeLedger();
  }

 private:
  struct Notes {
    int used = 0, refused = 0;
    Verdict verdict = Verdict::kUsed;  // of the first frame that was refused
    std::string detail;
  };

  void Refuse(const SliceRef& slice, Verdict verdict, const std::string& detail) {
    Notes& notes = notes_[slice.instance];
    if (notes.refused++ > 0) return;
    notes.verdict = verdict;
    notes.detail = detail;
  }

  std::string Digest(const SliceRef& slice) {
    const DicomInstance& instance = instances_[slice.instance];
    const auto pixels = reader_.Slice(instance, instance.frames[slice.frame]);
    if (!pixels.ok()) return "";
    return Sha256Of(pixels->data(), pixels->size() * sizeof(uint16_t));
  }

  // What an instance shows, and where: of its frames, in order.
  std::vector<std::pair<std::string, Vec3>> Digests(size_t index) {
    std::vector<std::pair<std::string, Vec3>> digests;
    for (size_t frame = 0; frame < instances_[index].frames.size(); ++frame) {
      std::string digest = Digest({index, frame});
      if (digest.empty()) digest = instances_[index].path;  // unreadable: like no other
      digests.emplace_back(std::move(digest), instances_[index].frames[frame].position_mm);
    }
    return digests;
  }

  // An instance that was there before, by its UID.
  bool IsCopy(size_t index) {
    const DicomInstance& instance = instances_[index];
    if (instance.verdict != Verdict::kUsed) return false;
    const auto [first, is_new] = by_uid_.emplace(instance.sop_instance_uid, index);
    if (is_new) return false;
    const DicomInstance& other = instances_[first->second];
    const bool same = Digests(index) == Digests(first->second);
    Refuse({index, 0}, same ? Verdict::kDuplicate : Verdict::kConflict,
           absl::StrCat(same ? "a copy of " : "the same SOP Instance UID, but other content, as ",
                        other.path));
    return true;
  }

  void RefuseAll(const SliceStack& stack, Verdict verdict, const std::string& detail) {
    for (const SliceRef& slice : stack.slices) Refuse(slice, verdict, detail);
  }

  std::string PlaceText(const SliceRef& slice) const {
    const Vec3& at = instances_[slice.instance].frames[slice.frame].position_mm;
    return absl::StrFormat("(%.2f, %.2f, %.2f)", at[0], at[1], at[2]);
  }

  // The stack, or what its gaps leave of it; empty if they make it unfit.
  std::vector<SliceStack> WithoutGaps(SliceStack stack) {
    std::vector<size_t> ends = FindGaps(instances_, stack);
    if (ends.empty()) return {std::move(stack)};
    if (!options_.split_at_gaps) {
      std::string where;
      for (const size_t end : ends) {
        absl::StrAppend(&where, where.empty() ? "" : "; ", PlaceText(stack.slices[end - 1]),
                        " and ", PlaceText(stack.slices[end]));
      }
      RefuseAll(stack, Verdict::kGap,
                absl::StrCat("slices are missing between the positions ", where,
                             " mm; send them again, or split the series there"));
      return {};
    }
    std::vector<SliceStack> parts;
    ends.push_back(stack.slices.size());
    size_t begin = 0;
    for (const size_t end : ends) {
      SliceStack part;
      part.label =
          absl::StrCat(stack.label, stack.label.empty() ? "" : ", ", "part ", parts.size() + 1);
      part.slices.assign(stack.slices.begin() + static_cast<std::ptrdiff_t>(begin),
                         stack.slices.begin() + static_cast<std::ptrdiff_t>(end));
      parts.push_back(std::move(part));
      begin = end;
    }
    return parts;
  }

  absl::Status Convert(SliceStack stack) {
    for (SliceStack& part : WithoutGaps(std::move(stack))) {
      if (absl::Status status = ConvertWhole(std::move(part)); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status ConvertWhole(SliceStack stack) {
    if (stack.slices.size() < 2) {
      RefuseAll(stack, Verdict::kSingleSlice, "the only slice of its orientation and place");
      return absl::OkStatus();
    }
    absl::StatusOr<StackGeometry> geometry = PlanStack(instances_, stack);
    if (!geometry.ok()) {
      RefuseAll(stack, Verdict::kBadGeometry, std::string(geometry.status().message()));
      return absl::OkStatus();
    }
    // Four bytes a voxel at most.
    if (geometry->grid.voxel_count() > options_.max_volume_bytes / 4) {
      RefuseAll(stack, Verdict::kTooLarge,
                absl::StrCat("a volume of ", geometry->grid.voxel_count(), " voxels; at most ",
                             options_.max_volume_bytes / 4, " are allowed"));
      return absl::OkStatus();
    }
    std::vector<FailedSlice> failed;
    absl::StatusOr<StackVolume> built = BuildStackVolume(
        instances_, stack, *geometry, {options_.decoder_program, options_.threads}, &failed);
    if (!built.ok()) {
      if (built.status().code() == absl::StatusCode::kFailedPrecondition) {
        RefuseAll(stack, Verdict::kUnsupportedPixels, std::string(built.status().message()));
        return absl::OkStatus();
      }
      if (built.status().code() != absl::StatusCode::kDataLoss || failed.empty()) {
        return built.status();
      }
      // Without the damaged slices; what is then missing may be a gap.
      for (auto slice = failed.rbegin(); slice != failed.rend(); ++slice) {
        const auto at = stack.slices.begin() + static_cast<std::ptrdiff_t>(slice->slice);
        Refuse(*at, Verdict::kUndecodable, std::string(slice->status.message()));
        stack.slices.erase(at);
      }
      return stack.slices.empty() ? absl::OkStatus() : Convert(std::move(stack));
    }
    SeriesVolume volume;
    volume.volume = std::move(built->volume);
    volume.label = stack.label;
    volume.geometry = *std::move(geometry);
    volume.padding_voxels = built->padding_voxels;
    for (const SliceRef& slice : stack.slices) {
      const DicomInstance& instance = instances_[slice.instance];
      volume.slices.push_back({instance.sop_instance_uid, instance.frames[slice.frame].frame + 1});
      ++notes_[slice.instance].used;
    }
    return receive_(std::move(volume));
  }

  Ledger MakeLedger() const {
    Ledger ledger;
    for (size_t i = 0; i < instances_.size(); ++i) {
      const DicomInstance& instance = instances_[i];
      const Notes& notes = notes_[i];
      LedgerEntry entry{instance.path, instance.sop_instance_uid, instance.verdict, instance.detail,
                        instance.sop_class_uid};
      if (notes.used > 0 && notes.refused > 0) {
        entry.detail =
            absl::StrCat(notes.used, " of ", instance.frames.size(),
                         " slices used; others: ", VerdictName(notes.verdict), ", ", notes.detail);
      } else if (notes.refused > 0) {
        entry.verdict = notes.verdict;
        entry.detail = notes.detail;
      }
      ledger.push_back(std::move(entry));
    }
    return ledger;
  }

  const std::vector<DicomInstance>& instances_;
  const SeriesOptions& options_;
  const VolumeReceiver& receive_;
  FrameReader reader_;
  std::vector<Notes> notes_;
  std::map<std::string, size_t> by_uid_;
};

}  // namespace

std::vector<Series> GroupBySeries(std::vector<DicomInstance> instances) {
  std::sort(instances.begin(), instances.end(), [](const auto& a, const auto& b) {
    return std::tie(a.study_instance_uid, a.series_instance_uid, a.path) <
           std::tie(b.study_instance_uid, b.series_instance_uid, b.path);
  });
  std::vector<Series> all;
  for (DicomInstance& instance : instances) {
    if (all.empty() || all.back().study_instance_uid != instance.study_instance_uid ||
        all.back().series_instance_uid != instance.series_instance_uid) {
      all.push_back({instance.study_instance_uid, instance.series_instance_uid, {}});
    }
    all.back().instances.push_back(std::move(instance));
  }
  return all;
}

absl::StatusOr<Ledger> ConvertSeries(const Series& series, const SeriesOptions& options,
                                     const VolumeReceiver& receive) {
  return Converter(series, options, receive).Run();
}

}  // namespace gvsl

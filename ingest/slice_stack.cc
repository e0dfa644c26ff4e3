#include "ingest/slice_stack.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ingest/vec3.h"

namespace gvsl {
namespace {

constexpr double kSamePlaceMm = 1e-3;
constexpr double kSameDirection = 1e-3;  // per cosine; they are written with few digits
constexpr double kSameSpacing = 1e-4;    // relative

// Numbers first, by their value; then other words, by their letters.
struct ByValue {
  bool operator()(const std::string& a, const std::string& b) const {
    double x = 0, y = 0;
    const bool a_is_number = absl::SimpleAtod(a, &x) && std::isfinite(x);
    const bool b_is_number = absl::SimpleAtod(b, &y) && std::isfinite(y);
    if (a_is_number != b_is_number) return a_is_number;
    return a_is_number && x != y ? x < y : a < b;
  }
};

class Splitter {
 public:
  Splitter(const std::vector<DicomInstance>& instances, const PixelDigest& digest,
           const RefuseFunction& refuse)
      : instances_(instances), digest_(digest), refuse_(refuse) {}

  std::vector<SliceStack> Split(const std::vector<SliceRef>& slices) {
    for (std::vector<SliceRef>& parallel : ByOrientation(slices)) {
      for (std::vector<SliceRef>& alike : ByLattice(parallel)) SplitRepeats(alike, "", 0);
    }
    return std::move(stacks_);
  }

 private:
  const DicomFrame& Frame(const SliceRef& slice) const {
    return instances_[slice.instance].frames[slice.frame];
  }
  const PixelFormat& Format(const SliceRef& slice) const {
    return instances_[slice.instance].pixels;
  }
  static bool SameDirection(const Vec3& a, const Vec3& b) {
    return std::abs(a[0] - b[0]) < kSameDirection && std::abs(a[1] - b[1]) < kSameDirection &&
           std::abs(a[2] - b[2]) < kSameDirection;
  }
  bool SameLattice(const SliceRef& a, const SliceRef& b) const {
    const auto near = [](double x, double y) { return std::abs(x - y) <= kSameSpacing * x; };
    return Format(a).slice_rows == Format(b).slice_rows &&
           Format(a).slice_columns == Format(b).slice_columns &&
           near(Frame(a).row_spacing_mm, Frame(b).row_spacing_mm) &&
           near(Frame(a).column_spacing_mm, Frame(b).column_spacing_mm);
  }

  // Groups of slices that are alike with the group's first.
  template <typename Alike>
  static std::vector<std::vector<SliceRef>> Group(const std::vector<SliceRef>& slices,
                                                  const Alike& alike) {
    std::vector<std::vector<SliceRef>> groups;
    for (const SliceRef& slice : slices) {
      auto group = std::find_if(groups.begin(), groups.end(),
                                [&](const auto& other) { return alike(other.front(), slice); });
      if (group == groups.end()) {
        groups.push_back({slice});
      } else {
        group->push_back(slice);
      }
    }
    return groups;
  }

  std::vector<std::vector<SliceRef>> ByOrientation(const std::vector<SliceRef>& slices) const {
    return Group(slices, [this](const SliceRef& a, const SliceRef& b) {
      return SameDirection(Frame(a).row_direction, Frame(b).row_direction) &&
             SameDirection(Frame(a).column_direction, Frame(b).column_direction);
    });
  }

  // Groups of one size and spacing; a slice that is alone with its own beside others is refused.
  std::vector<std::vector<SliceRef>> ByLattice(const std::vector<SliceRef>& slices) const {
    auto groups =
        Group(slices, [this](const SliceRef& a, const SliceRef& b) { return SameLattice(a, b); });
    const auto largest =
        std::max_element(groups.begin(), groups.end(),
                         [](const auto& a, const auto& b) { return a.size() < b.size(); });
    if (largest == groups.end()) return groups;
    const SliceRef usual = largest->front();
    std::vector<std::vector<SliceRef>> kept;
    for (auto& group : groups) {
      if (group.size() > 1 || groups.size() == 1 || largest->size() == 1) {
        kept.push_back(group);
        continue;
      }
      const PixelFormat &own = Format(group[0]), &others = Format(usual);
      if (own.slice_rows != others.slice_rows || own.slice_columns != others.slice_columns) {
        refuse_(group[0], Verdict::kWrongSize,
                absl::StrCat(own.slice_columns, " x ", own.slice_rows, " pixels among slices of ",
                             others.slice_columns, " x ", others.slice_rows));
      } else {
        refuse_(group[0], Verdict::kWrongSpacing,
                absl::StrCat("pixel spacing ", Frame(group[0]).column_spacing_mm, " x ",
                             Frame(group[0]).row_spacing_mm, " mm among slices of ",
                             Frame(usual).column_spacing_mm, " x ", Frame(usual).row_spacing_mm,
                             " mm"));
      }
    }
    return kept;
  }

  // The slices by place, ordered along the normal.
  std::vector<std::vector<SliceRef>> ByPlace(std::vector<SliceRef> slices) const {
    const Vec3 normal = Cross(Frame(slices[0]).row_direction, Frame(slices[0]).column_direction);
    const auto depth = [&](const SliceRef& slice) { return Dot(Frame(slice).position_mm, normal); };
    std::stable_sort(slices.begin(), slices.end(),
                     [&](const SliceRef& a, const SliceRef& b) { return depth(a) < depth(b); });
    std::vector<std::vector<SliceRef>> places;
    for (const SliceRef& slice : slices) {
      // The normal alone decides: two slices of one plane cannot both be in a volume.
      if (places.empty() || depth(slice) - depth(places.back()[0]) > kSamePlaceMm) {
        places.emplace_back();
      }
      places.back().push_back(slice);
    }
    return places;
  }

  static size_t MostRepeats(const std::vector<std::vector<SliceRef>>& places) {
    size_t most = 0;
    for (const auto& place : places) most = std::max(most, place.size());
    return most;
  }

  void Keep(const std::vector<std::vector<SliceRef>>& places, size_t repeat, std::string label) {
    SliceStack stack;
    stack.label = std::move(label);
    for (const auto& place : places) stack.slices.push_back(place[repeat]);
    stacks_.push_back(std::move(stack));
  }

  void SplitRepeats(const std::vector<SliceRef>& slices, const std::string& label, int first_key) {
    const auto places = ByPlace(slices);
    const size_t repeats = MostRepeats(places);
    if (repeats == 1) return Keep(places, 0, label);
    for (int key = first_key; key < kRepeatKeyCount; ++key) {
      std::map<std::string, std::vector<SliceRef>, ByValue> parts;
      for (const SliceRef& slice : slices) parts[Frame(slice).repeat[key]].push_back(slice);
      if (parts.size() < 2) continue;
      // A key that differs from slice to slice (a time of acquisition) does not part whole stacks.
      size_t widest = 0, narrowest = places.size(), most = 0;
      for (const auto& [value, part] : parts) {
        const auto part_places = ByPlace(part);
        widest = std::max(widest, part_places.size());
        narrowest = std::min(narrowest, part_places.size());
        most = std::max(most, MostRepeats(part_places));
      }
      if (widest < places.size() || narrowest < 2 || most >= repeats) continue;
      for (const auto& [value, part] : parts) {
        SplitRepeats(part,
                     absl::StrCat(label, label.empty() ? "" : ", ", RepeatKeyName(key), " ",
                                  value.empty() ? "none" : value),
                     key + 1);
      }
      return;
    }
    SplitUnnamed(places, label);
  }

  // What no key tells apart: copies, or repeats in the order of their numbers.
  void SplitUnnamed(std::vector<std::vector<SliceRef>> places, const std::string& label) {
    for (auto& place : places) {
      if (place.size() == 1) continue;
      std::stable_sort(place.begin(), place.end(), [&](const SliceRef& a, const SliceRef& b) {
        const auto number = [&](const SliceRef& slice) {
          return std::pair(instances_[slice.instance].instance_number, slice.frame);
        };
        return number(a) < number(b);
      });
      std::set<std::string> seen;
      std::vector<SliceRef> distinct;
      for (const SliceRef& slice : place) {
        const std::string digest = digest_(slice);
        if (digest.empty() || seen.insert(digest).second) {
          distinct.push_back(slice);
        } else {
          refuse_(slice, Verdict::kDuplicate, "same place and same pixels as another instance");
        }
      }
      place = std::move(distinct);
    }
    const size_t repeats = MostRepeats(places);
    const bool even = std::all_of(places.begin(), places.end(),
                                  [&](const auto& place) { return place.size() == repeats; });
    if (!even) {
      for (const auto& place : places) {
        for (const SliceRef& slice : place) {
          refuse_(slice, Verdict::kAmbiguousPosition,
                  absl::StrCat("some places of its stack have ", repeats,
                               " different slices, others fewer, and no attribute tells them "
                               "apart"));
        }
      }
      return;
    }
    for (size_t repeat = 0; repeat < repeats; ++repeat) {
      Keep(places, repeat,
           repeats == 1 ? label
                        : absl::StrCat(label, label.empty() ? "" : ", ", "repeat ", repeat + 1));
    }
  }

  const std::vector<DicomInstance>& instances_;
  const PixelDigest& digest_;
  const RefuseFunction& refuse_;
  std::vector<SliceStack> stacks_;
};

}  // namespace

std::vector<SliceStack> SplitIntoStacks(const std::vector<DicomInstance>& instances,
                                        const std::vector<SliceRef>& slices,
                                        const PixelDigest& digest, const RefuseFunction& refuse) {
  return Splitter(instances, digest, refuse).Split(slices);
}

}  // namespace gvsl

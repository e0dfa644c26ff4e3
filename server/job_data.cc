#include "server/job_data.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "imaging/sha256.h"
#include "server/names.h"
#include "server/volume_query.h"

namespace gvsl {
namespace {

constexpr int kMostNamed = 10000;  // of one list: an answer that repeats them stays below 1 MiB
// Of one job: each of its ranks maps every volume, and Linux allows a process 65,530 maps
// (vm.max_map_count).
constexpr size_t kMostVolumes = 60000;
constexpr int kMostTold = 5;  // wrong names of one list
constexpr size_t kLeast = 2;  // a pair

using ByName = std::map<std::string, v1::Volume>;

// Looks the names of one list up; what is wrong with them is told for the first few.
absl::StatusOr<ByName> Named(const std::string& field,
                             const google::protobuf::RepeatedPtrField<std::string>& names,
                             MetadataStore& metadata, Violations& violations) {
  ByName volumes;
  if (names.size() > kMostNamed) {
    violations.Add(field, absl::StrCat(names.size(), " names; at most ", kMostNamed,
                                       "; a filter finds any number"));
    return volumes;
  }
  int wrong = 0;
  const auto tell = [&](int i, const std::string& text) {
    if (++wrong <= kMostTold) violations.Add(absl::StrCat(field, "[", i, "]"), text);
  };
  for (int i = 0; i < names.size(); ++i) {
    if (!IdOf("volumes", names[i], "").ok()) {
      tell(i, "no name of a volume; it must be volumes/{id}");
      continue;
    }
    auto stored = metadata.GetVolume(names[i]);
    if (absl::IsNotFound(stored.status())) {
      tell(i, absl::StrCat("there is no ", names[i], "; gvsl volumes list shows what there is"));
    } else if (!stored.ok()) {
      return stored.status();
    } else if (stored->volume.kind() != v1::Volume::IMAGE) {
      tell(i, names[i] + " is a label map; jobs train on images");
    } else {
      volumes[names[i]] = std::move(stored->volume);
    }
  }
  if (wrong > kMostTold) violations.Add(field, absl::StrCat(wrong, " of its names are wrong"));
  return volumes;
}

// All images that match; none without a filter.
absl::StatusOr<ByName> Found(const std::string& field, const std::string& filter,
                             MetadataStore& metadata, Violations& violations) {
  ByName volumes;
  if (filter.empty()) return volumes;
  if (auto parsed = ParseVolumeFilter(filter); !parsed.ok()) {
    const std::string text(parsed.status().message());
    violations.Add(field, text.substr(text.find(": ") + 2));
    return volumes;
  }
  v1::ListVolumesRequest request;
  request.set_filter(filter);
  request.set_page_size(1000);
  do {
    auto page = metadata.ListVolumes(request);
    if (!page.ok()) return page.status();
    for (v1::Volume& volume : page->volumes) {
      if (volume.kind() == v1::Volume::IMAGE) volumes[volume.name()] = std::move(volume);
    }
    if (volumes.size() > kMostVolumes) {
      violations.Add(field, absl::StrCat("finds more than the ", kMostVolumes,
                                         " images that a job may have; narrow it"));
      return volumes;
    }
    request.set_page_token(page->next_page_token);
  } while (!request.page_token().empty());
  return volumes;
}

// One volume of each content: a pair is of two images.
std::vector<v1::Volume> Distinct(const ByName& volumes) {
  std::vector<v1::Volume> list;
  for (const auto& entry : volumes) list.push_back(entry.second);
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return a.content_sha256() < b.content_sha256();
  });
  const auto same = [](const auto& a, const auto& b) {
    return a.content_sha256() == b.content_sha256();
  };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());
  return list;
}

}  // namespace

absl::StatusOr<JobData> ResolveData(const v1::PretrainingSpec::Data& data, MetadataStore& metadata,
                                    Violations& violations) {
  auto named = Named("data.volumes", data.volumes(), metadata, violations);
  if (!named.ok()) return named.status();
  auto found = Found("data.filter", data.filter(), metadata, violations);
  if (!found.ok()) return found.status();
  auto held_out = Named("data.validation_volumes", data.validation_volumes(), metadata, violations);
  if (!held_out.ok()) return held_out.status();
  auto held_out_found =
      Found("data.validation_filter", data.validation_filter(), metadata, violations);
  if (!held_out_found.ok()) return held_out_found.status();
  held_out->merge(*held_out_found);

  std::set<std::string> held_out_contents;
  for (const auto& entry : *held_out) held_out_contents.insert(entry.second.content_sha256());
  int told = 0;
  for (int i = 0; i < data.volumes_size() && told < kMostTold; ++i) {
    const auto volume = named->find(data.volumes(i));
    if (volume == named->end() || held_out_contents.count(volume->second.content_sha256()) == 0)
      continue;
    violations.Add(absl::StrCat("data.volumes[", i, "]"),
                   data.volumes(i) + " is, by name or by content, for validation, too");
    ++told;
  }
  ByName training = *std::move(named);
  for (auto& entry : *found) {
    if (held_out_contents.count(entry.second.content_sha256()) == 0) training.insert(entry);
  }
  JobData result;
  result.training = Distinct(training);
  result.validation = Distinct(*held_out);
  const std::string missing = " different image(s); it needs 2 or more, of which a pair is made";
  const size_t count = result.training.size(), held_out_count = result.validation.size();
  if (count < kLeast)
    violations.Add("data.volumes", absl::StrCat("name and filter give ", count, missing));
  if (held_out_count > 0 && held_out_count < kLeast) {
    violations.Add("data.validation_volumes", absl::StrCat("name and filter give ", held_out_count,
                                                           missing, ", or none for no validation"));
  }
  if (count <= kMostVolumes && held_out_count <= kMostVolumes &&
      count + held_out_count > kMostVolumes) {
    violations.Add("data.filter", absl::StrCat("finds ", count, " images beside ", held_out_count,
                                               " for validation; a job may have ", kMostVolumes));
  }
  if (held_out->empty() && !data.validation_filter().empty())
    violations.Add("data.validation_filter", "finds no image");

  Sha256 digest;
  const auto count_in = [&](const char* role, const std::vector<v1::Volume>& volumes) {
    for (const v1::Volume& volume : volumes) {
      const std::string line = absl::StrCat(role, " ", volume.content_sha256(), "\n");
      digest.Update(line.data(), line.size());
    }
  };
  count_in("training", result.training);
  count_in("validation", result.validation);
  result.sha256 = digest.Finish();
  return result;
}

}  // namespace gvsl

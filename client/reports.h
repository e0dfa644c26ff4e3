// Pages for people about registrations and searches.
#ifndef GVSL_CLIENT_REPORTS_H_
#define GVSL_CLIENT_REPORTS_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gvsl/v1/registrations.pb.h"
#include "gvsl/v1/similarity.pb.h"
#include "imaging/spatial_map.h"
#include "imaging/volume.h"

namespace gvsl {

// What a registration is worth: names of figures and their values, as text.
std::vector<std::vector<std::string>> RegistrationFigures(const v1::Registration& registration);

// A page with the figures and pictures (imaging/map_pictures.h) of a registration of these volumes.
absl::StatusOr<std::string> RegistrationReport(const v1::Registration& registration,
                                               const Volume& fixed, const Volume& moving,
                                               const SpatialMap& fixed_to_moving);

// A page with the hits of a search, their previews (PNG files by volume; the query's, too) and,
// where the answer has them, how well each region fits.
absl::StatusOr<std::string> SearchReport(const std::string& query,
                                         const v1::SearchVolumesResponse& answer,
                                         const std::map<std::string, std::string>& previews);

}  // namespace gvsl

#endif  // GVSL_CLIENT_REPORTS_H_

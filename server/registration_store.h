// RegistrationStore: the registrations that the server keeps. The fields of displacements are a
// blob (server/registration_maps.h).
#ifndef GVSL_SERVER_REGISTRATION_STORE_H_
#define GVSL_SERVER_REGISTRATION_STORE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gvsl/v1/registrations.pb.h"
#include "server/database.h"

namespace gvsl {

struct StoredRegistration {
  v1::Registration registration;
  std::string blob_sha256;
};

// Safe for concurrent use. A change that has returned OK is on the disk. Every method may return
// INTERNAL with the database's own words.
class RegistrationStore {
 public:
  // `database` outlives the store.
  explicit RegistrationStore(Database& database) : connection_(database.connection()) {}

  // The same creation twice makes one: returns the registration that is kept. ALREADY_EXISTS
  // (REQUEST_ID_REUSED).
  absl::StatusOr<v1::Registration> Add(const StoredRegistration& registration,
                                       const Creation& creation);
  // NOT_FOUND.
  absl::StatusOr<StoredRegistration> Get(const std::string& name);
  // INVALID_ARGUMENT: page size, token or filter.
  absl::StatusOr<v1::ListRegistrationsResponse> List(const v1::ListRegistrationsRequest& request);
  // Returns the blob that nothing needs any more, or "". NOT_FOUND.
  absl::StatusOr<std::string> Delete(const std::string& name);

 private:
  Database::Connection& connection_;
};

}  // namespace gvsl

#endif  // GVSL_SERVER_REGISTRATION_STORE_H_

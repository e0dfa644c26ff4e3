// Options that several verbs have: of series and their server, of uploads, and of TLS.
#ifndef GVSL_INGEST_UPLOAD_OPTIONS_H_
#define GVSL_INGEST_UPLOAD_OPTIONS_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "ingest/dicom_tls.h"
#include "ingest/importer.h"
#include "ingest/pseudonym.h"

namespace CLI {
class App;
}

namespace gvsl {

struct UploadArguments {
  ImportOptions import;
  ClientOptions client;
  std::string key_file, tag_rules_file;
};

// Adds --server, --key_file, --split_at_gaps and --threads to a verb.
void AddSeriesOptions(CLI::App* verb, UploadArguments* arguments);

// Those, --tag and --tag_rules.
void AddUploadOptions(CLI::App* verb, UploadArguments* arguments);

// Adds --tls_key, --tls_certificate and --tls_trusted to a verb that opens or takes associations.
void AddTlsOptions(CLI::App* verb, DicomTlsOptions* tls);

// Reads the files that the options name: the rules into arguments.import, and the key.
absl::StatusOr<Pseudonyms> ReadUploadFiles(UploadArguments& arguments);

}  // namespace gvsl

#endif  // GVSL_INGEST_UPLOAD_OPTIONS_H_

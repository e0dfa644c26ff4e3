#include "ingest/upload_options.h"

#include <CLI/CLI.hpp>

namespace gvsl {

void AddSeriesOptions(CLI::App* verb, UploadArguments* arguments) {
  arguments->key_file = DefaultKeyFile();
  verb->add_option("--server", arguments->client.server, "HOST:PORT of gvsld")
      ->envname("GVSL_SERVER")
      ->capture_default_str();
  verb->add_option("--key_file", arguments->key_file,
                   "key of the pseudonyms, made if absent: keep it, and keep it secret")
      ->capture_default_str();
  verb->add_flag("--split_at_gaps", arguments->import.series.split_at_gaps,
                 "where slices are missing, make a volume of each side instead of refusing both");
  verb->add_option("--threads", arguments->import.series.threads, "default 0: all cores")
      ->check(CLI::Range(0, 1024));
}

void AddUploadOptions(CLI::App* verb, UploadArguments* arguments) {
  AddSeriesOptions(verb, arguments);
  verb->add_option("--tag", arguments->import.tags,
                   "word to filter by, of every volume; may be given several times")
      ->take_all()
      ->allow_extra_args(false);  // the words after a tag are paths
  verb->add_option("--tag_rules", arguments->tag_rules_file,
                   "JSON file of further tags by AE title, modality, body part, description");
}

void AddTlsOptions(CLI::App* verb, DicomTlsOptions* tls) {
  verb->add_option("--tls_key", tls->key_file, "PEM file: turns TLS on, and plain DICOM off");
  verb->add_option("--tls_certificate", tls->certificate_file, "PEM file, with its chain");
  verb->add_option("--tls_trusted", tls->trusted_file,
                   "PEM file of the authorities that peers' certificates must come from");
}

absl::StatusOr<Pseudonyms> ReadUploadFiles(UploadArguments& arguments) {
  if (!arguments.tag_rules_file.empty()) {
    absl::StatusOr<std::vector<TagRule>> rules = ReadTagRules(arguments.tag_rules_file);
    if (!rules.ok()) return rules.status();
    arguments.import.tag_rules = *std::move(rules);
  }
  return Pseudonyms::FromKeyFile(arguments.key_file);
}

}  // namespace gvsl

#include "ingest/dicom_peer.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr int kMaxPort = 65535;
constexpr size_t kMaxTitle = 16;

}  // namespace

std::string DicomPeer::Text() const { return absl::StrCat(ae_title, "@", host, ":", port); }

absl::StatusOr<DicomPeer> ParseDicomPeer(const std::string& text) {
  const size_t at = text.find('@'), colon = text.rfind(':');
  DicomPeer peer;
  if (at != std::string::npos && colon != std::string::npos && at < colon) {
    peer.ae_title = text.substr(0, at);
    peer.host = text.substr(at + 1, colon - at - 1);
    if (!absl::SimpleAtoi(text.substr(colon + 1), &peer.port)) peer.port = 0;
  }
  if (peer.ae_title.empty() || peer.ae_title.size() > kMaxTitle || peer.host.empty() ||
      peer.port < 1 || peer.port > kMaxPort) {
    return absl::InvalidArgumentError(
        absl::StrCat(text, " is no peer; it should be AET@HOST:PORT, as PACS@10.0.0.7:104"));
  }
  return peer;
}

}  // namespace gvsl

#include "ingest/pseudonym.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "imaging/output_file.h"

namespace gvsl {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kDigits = 16;

absl::Status MakeKey(const std::string& path) {
  std::string key(kKeyBytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(key.data()), static_cast<int>(kKeyBytes)) != 1) {
    return absl::InternalError("the system has no random numbers for a key");
  }
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  OutputFile file(path);
  if (!file.status().ok()) return file.status();
  // Before a byte of it is written.
  if (chmod(file.aside().c_str(), S_IRUSR | S_IWUSR) != 0) return file.Failed(errno);
  const std::string text = absl::BytesToHexString(key) + "\n";
  if (absl::Status status = file.Write(text.data(), text.size(), 0); !status.ok()) return status;
  return file.Commit();
}

}  // namespace

absl::StatusOr<Pseudonyms> Pseudonyms::FromKeyFile(const std::string& path) {
  int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0 && errno == ENOENT) {
    if (absl::Status status = MakeKey(path); !status.ok()) return status;
    file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  }
  if (file < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot read the key ", path, ": ", std::strerror(errno)));
  }
  struct stat about = {};
  char text[2 * kKeyBytes + 2];
  const bool known = fstat(file, &about) == 0;
  const ssize_t size = read(file, text, sizeof(text));
  close(file);
  if (!known || (about.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("others may read the key ", path, "; run: chmod 600 ", path));
  }
  const absl::string_view digits =
      absl::StripSuffix(absl::string_view(text, size < 0 ? 0 : static_cast<size_t>(size)), "\n");
  if (digits.size() != 2 * kKeyBytes ||
      digits.find_first_not_of("0123456789abcdef") != absl::string_view::npos) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " holds no key; it should be 64 hexadecimal digits"));
  }
  return Pseudonyms(absl::HexStringToBytes(digits));
}

std::string Pseudonyms::Of(const std::string& kind, const std::string& identifier) const {
  // A zero byte is in no identifier: kinds cannot run into each other.
  const std::string message = absl::StrCat(kind, absl::string_view("\0", 1), identifier);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), digest, &size);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), size))
      .substr(0, kDigits);
}

std::string DefaultKeyFile() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  const std::string folder = state != nullptr && *state != '\0'
                                 ? std::string(state)
                                 : absl::StrCat(home != nullptr ? home : "", "/.local/state");
  return folder + "/gvsl/pseudonym.key";
}

}  // namespace gvsl

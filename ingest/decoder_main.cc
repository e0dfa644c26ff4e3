// gvsl-dicom-decoder: decodes compressed DICOM pixels for gvsl-ingest, which starts it.
// Decoders are forked from it and inherit its limits.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ingest/decoder_process.h"
#include "ingest/dicom_logging.h"

namespace {

bool Limit(int resource, rlim_t value) {
  const rlimit limit{value, value};
  return setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0;
}

bool SetLimits() {
  // No core files of patients' pixels, no new rights, no new files or bytes.
  bool good = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
  good = Limit(RLIMIT_CORE, 0) && good;
  good = Limit(RLIMIT_FSIZE, 0) && good;
  good = Limit(RLIMIT_NOFILE, 16) && good;
  good = Limit(RLIMIT_CPU, 3600) && good;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which map terabytes
  good = Limit(RLIMIT_AS, rlim_t{2} << 30) && good;
#endif
  return good;
}

}  // namespace

int main() {
  if (!SetLimits()) return 1;
  // They may be meant for a whole group of processes, of which gvsl-ingest then ends its work
  // first: a decoder that died of one would cost a slice. It ends with its socket.
  for (int signal_number : {SIGTERM, SIGINT, SIGHUP}) signal(signal_number, SIG_IGN);
  gvsl::SilenceDicomLog();
  gvsl::ServeDecoders(STDIN_FILENO);
  return 0;
}

#include "ingest/serve_command.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <optional>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ingest/commitment_reporter.h"
#include "ingest/dicom_logging.h"
#include "ingest/inbox.h"
#include "ingest/ingest_log.h"
#include "ingest/ingest_metrics.h"
#include "ingest/spool_worker.h"
#include "ingest/storage_scp.h"
#include "ingest/upload_options.h"

namespace gvsl {
namespace {

constexpr int kDrainSeconds = 30;
constexpr std::chrono::milliseconds kLookEvery{500};

struct ServeArguments {
  StorageScpOptions scp;
  SpoolWorkerOptions worker;
  UploadArguments upload;
  CommitmentReporterOptions commitment;
  std::string spool, inbox, metrics_listen;
  std::vector<std::string> commitment_peers, ae_quiet_seconds;
  int64_t inbox_settle_s = 5;
};

int64_t Now() { return static_cast<int64_t>(std::time(nullptr)); }

// Before any thread is made: SIGINT and SIGTERM wait for sigwait.
sigset_t PrepareProcess() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a limit of the caller is a full disk
  return signals;
}

// Logs a fault of something that is looked at again and again: when it comes, and when it changes.
class FaultLog {
 public:
  explicit FaultLog(const char* event) : event_(event) {}
  void Update(const absl::Status& status) {
    if (status == last_) return;
    last_ = status;
    if (!status.ok()) LogEvent(event_, std::string(status.message()));
  }

 private:
  const char* event_;
  absl::Status last_;
};

// Of "AET=SECONDS".
absl::Status AddQuietSeconds(const std::string& text, SpoolWorkerOptions& options) {
  const size_t equals = text.rfind('=');
  int64_t seconds = 0;
  if (equals == std::string::npos || equals == 0 ||
      !absl::SimpleAtoi(text.substr(equals + 1), &seconds) || seconds < 1 || seconds > 86400) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--ae_quiet_seconds ", text, ": it should be AET=SECONDS, as CT_WARD3=5; 1 to 86400 s"));
  }
  options.quiet_s_by_ae_title[text.substr(0, equals)] = seconds;
  return absl::OkStatus();
}

absl::Status Serve(ServeArguments arguments) {
  SilenceDicomLog();
  const sigset_t signals = PrepareProcess();
  const absl::StatusOr<Pseudonyms> pseudonyms = ReadUploadFiles(arguments.upload);
  if (!pseudonyms.ok()) return pseudonyms.status();
  for (const std::string& text : arguments.ae_quiet_seconds) {
    if (absl::Status status = AddQuietSeconds(text, arguments.worker); !status.ok()) return status;
  }
  for (const std::string& text : arguments.commitment_peers) {
    absl::StatusOr<DicomPeer> peer = ParseDicomPeer(text);
    if (!peer.ok()) return peer.status();
    arguments.commitment.peers.push_back(*std::move(peer));
  }
  arguments.commitment.ae_title = arguments.scp.ae_title;
  arguments.commitment.tls = arguments.scp.tls;
  absl::StatusOr<std::unique_ptr<Spool>> spool = Spool::Open(arguments.spool);
  if (!spool.ok()) return spool.status();
  absl::StatusOr<std::unique_ptr<IngestMetrics>> metrics =
      IngestMetrics::Make(arguments.metrics_listen, **spool);
  if (!metrics.ok()) return metrics.status();

  Client client(arguments.upload.client);
  arguments.worker.import = arguments.upload.import;
  arguments.worker.min_free_bytes = arguments.scp.min_free_bytes;
  SpoolWorker worker(arguments.worker, **spool, *pseudonyms, client, [&](const SpoolEvent& event) {
    Log(event);
    (*metrics)->Count(event);
  });
  std::optional<Inbox> inbox;
  if (!arguments.inbox.empty()) {
    inbox.emplace(arguments.inbox, arguments.inbox_settle_s, arguments.scp.max_object_bytes,
                  **spool, [&](const absl::Status& status) {
                    LogEvent(status.ok() ? "inbox_kept" : "inbox_refused",
                             std::string(status.message()));
                    (*metrics)->CountInbox(status.ok());
                  });
  }
  const auto observe_commitment = [&](const CommitmentEvent& event) {
    Log(event);
    (*metrics)->Count(event);
  };
  CommitmentQueue commitments(**spool);
  CommitmentReporter reporter(arguments.commitment, commitments, observe_commitment);
  StorageScp scp(
      arguments.scp, **spool, commitments,
      [&](const ScpEvent& event) {
        Log(event);
        (*metrics)->Count(event);
      },
      observe_commitment);
  if (absl::Status status = scp.Start(); !status.ok()) return status;
  LogServing(arguments.scp.ae_title, arguments.scp.port);

  std::atomic<bool> stopping{false};
  std::thread uploads([&] {
    FaultLog spool_fault("spool_unreadable");
    while (!stopping) {
      spool_fault.Update(worker.RunOnce(Now()));
      std::this_thread::sleep_for(kLookEvery);
    }
  });
  // An upload may take long, and the inbox shall not wait for it.
  std::thread inbox_thread([&] {
    FaultLog inbox_fault("inbox_waits");
    while (inbox && !stopping) {
      inbox_fault.Update(inbox->RunOnce(Now(), arguments.scp.min_free_bytes));
      std::this_thread::sleep_for(kLookEvery);
    }
  });
  std::thread reports([&] {
    while (!stopping) {
      reporter.RunOnce(Now());
      std::this_thread::sleep_for(kLookEvery);
    }
  });

  int received = 0;
  sigwait(&signals, &received);
  LogEvent("draining");
  const bool all_ended = scp.Stop(kDrainSeconds);
  stopping = true;
  client.CancelAll();
  uploads.join();
  inbox_thread.join();
  reports.join();
  LogEvent("stopped");
  // An association that outlasts the drain has a thread that nothing ends; all that was answered
  // for is on the disk.
  if (!all_ended) _exit(0);
  return absl::OkStatus();
}

void AddReceiverOptions(CLI::App* verb, StorageScpOptions* scp) {
  verb->add_option("--ae_title", scp->ae_title, "called AE title; no other is answered")
      ->check(CLI::Validator(
          [](std::string& title) {
            return title.empty() || title.size() > 16 ? "an AE title has 1 to 16 characters" : "";
          },
          "TITLE"))
      ->capture_default_str();
  verb->add_option("--port", scp->port)->check(CLI::Range(1, 65535))->capture_default_str();
  verb->add_option("--allow_host", scp->allowed_hosts,
                   "IP address that may send besides loopback; may be given several times");
  verb->add_option("--allow_ae_title", scp->allowed_ae_titles,
                   "calling AE title that is accepted (default: all of an allowed host)");
  AddTlsOptions(verb, &scp->tls);
  verb->add_option("--max_associations", scp->max_associations, "at a time")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  verb->add_option("--max_pdu_bytes", scp->max_pdu_bytes)
      ->check(CLI::Range(4096, 131072))
      ->capture_default_str();
  verb->add_option("--max_object_bytes", scp->max_object_bytes)
      ->check(CLI::Range(int64_t{1} << 20, int64_t{1} << 40))
      ->capture_default_str();
  verb->add_option("--min_free_bytes", scp->min_free_bytes,
                   "with less on the spool's disk, senders are told to come back")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50))
      ->capture_default_str();
}

}  // namespace

void AddServeCommand(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<ServeArguments>();
  CLI::App* verb =
      app->add_subcommand("serve", "Receive DICOM by C-STORE, and upload each complete series");
  verb->add_option("--spool", arguments->spool, "folder for what is received, made if absent")
      ->required();
  AddReceiverOptions(verb, &arguments->scp);
  verb->add_option("--commitment_peer", arguments->commitment_peers,
                   "where a requester of Storage Commitment takes its reports, as "
                   "AET@HOST:PORT; may be given several times");
  verb->add_option("--inbox", arguments->inbox,
                   "folder whose files go into the spool, too, and are deleted here once they are "
                   "safe there")
      ->check(CLI::ExistingDirectory);
  verb->add_option("--inbox_settle_seconds", arguments->inbox_settle_s,
                   "a file of the inbox is whole when nobody wrote it for so long")
      ->check(CLI::Range(int64_t{1}, int64_t{86400}))
      ->capture_default_str();
  SpoolWorkerOptions& worker = arguments->worker;
  verb->add_option("--quiet_seconds", worker.quiet_s,
                   "a series is complete when nothing came for so long")
      ->check(CLI::Range(int64_t{1}, int64_t{86400}))
      ->capture_default_str();
  verb->add_option("--ae_quiet_seconds", arguments->ae_quiet_seconds,
                   "the same for one calling AE title, as AET=SECONDS; may be given several times");
  verb->add_option("--keep_seconds", worker.keep_s,
                   "how long uploaded instances stay, so that late slices make a new revision")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 32))
      ->capture_default_str();
  verb->add_flag("--embed", worker.embed,
                 "embed volumes with the server's default model as soon as they are there");
  verb->add_option("--metrics_listen", arguments->metrics_listen,
                   "HOST:PORT for Prometheus, as 127.0.0.1:8502 (default: none)");
  AddUploadOptions(verb, &arguments->upload);
  verb->footer(
      "Success is answered when the instance is safe on the disk. SIGTERM drains: associations\n"
      "under way may end, what is spooled goes on at the next start.\n\n"
      "Example:\n"
      "  gvsl-ingest serve --ae_title GVSL --port 11112 --spool /var/spool/gvsl \\\n"
      "    --allow_host 10.0.0.7");
  verb->callback([arguments, action] { *action = [arguments] { return Serve(*arguments); }; });
}

}  // namespace gvsl

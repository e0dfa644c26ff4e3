#include "ingest/storage_scp.h"

#include "ingest/storage_contexts.h"
// The network comes after DCMTK's configuration, which storage_contexts.h includes.
#include <dcmtk/dcmnet/scp.h>
#include <dcmtk/dcmnet/scpthrd.h>
#include <dcmtk/dcmtls/tlslayer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ingest/received_instance.h"

namespace gvsl {
namespace {

// Threads beyond those of associations: for connections that have not asked for one yet.
constexpr int kSpareThreads = 16;

struct Shared {
  const StorageScpOptions options;
  Spool& spool;
  const ScpObserver observer;
  std::atomic<bool> stopping{false};
  std::atomic<int> active{0};

  void Observe(const ScpEvent& event) const {
    if (observer) observer(event);
  }
};

// One association.
class SpoolScp : public DcmThreadSCP {
 public:
  explicit SpoolScp(Shared& shared) : shared_(shared) {}

 protected:
  OFBool checkCallingHostAccepted(const OFString&) override {
    const std::string host = getPeerIP().c_str();
    const auto& allowed = shared_.options.allowed_hosts;
    return Tell(
        host == "127.0.0.1" || std::find(allowed.begin(), allowed.end(), host) != allowed.end(),
        host);
  }
  OFBool checkCallingAETitleAccepted(const OFString& title) override {
    const auto& allowed = shared_.options.allowed_ae_titles;
    return Tell(allowed.empty() ||
                    std::find(allowed.begin(), allowed.end(), title.c_str()) != allowed.end(),
                title.c_str());
  }
  OFBool checkCalledAETitleAccepted(const OFString& title) override {
    return Tell(shared_.options.ae_title == title.c_str(), title.c_str());
  }
  void notifyAssociationAcknowledge() override {
    shared_.Observe({ScpEvent::Kind::kAccepted, Peer()});
  }
  void notifyRECEIVEProgress(const unsigned long bytes) override {
    dataset_bytes_ = static_cast<int64_t>(bytes);
  }

  OFCondition handleIncomingCommand(T_DIMSE_Message* message,
                                    const DcmPresentationContextInfo& context) override {
    if (message->CommandField != DIMSE_C_STORE_RQ) {
      return DcmThreadSCP::handleIncomingCommand(message, context);
    }
    T_DIMSE_C_StoreRQ& request = message->msg.CStoreRQ;
    // A dataset that there is no room for must still be read, for the association to go on: DCMTK
    // reads and drops one whose file cannot be made, and says that resources lack.
    const bool has_room = HasRoom();
    const std::string path = shared_.spool.IncomingPath() + (has_room ? "" : "/no-room");
    dataset_bytes_ = 0;
    const OFCondition received =
        receiveSTORERequest(request, context.presentationContextID, OFString(path.c_str()));
    Uint16 status = STATUS_STORE_Refused_OutOfResources;
    // After other failures the connection is broken, and nobody is there to be answered.
    const bool broken = received.bad() && received != DIMSE_OUTOFRESOURCES;
    if (received.bad() || !HasRoom()) {
      unlink(path.c_str());
    } else {
      status = KeepReceived(
          shared_.spool, path,
          {request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, dataset_bytes_});
    }
    if (broken) return received;
    shared_.Observe(
        {ScpEvent::Kind::kInstance, Peer(), status, status == STATUS_Success ? dataset_bytes_ : 0});
    return sendSTOREResponse(context.presentationContextID, request, status);
  }

 private:
  // For an instance beside what the spool needs for its own records.
  bool HasRoom() const { return shared_.spool.FreeBytes() >= shared_.options.min_free_bytes; }
  std::string Peer() const {
    return absl::StrCat(getPeerIP().c_str(), " ", getPeerAETitle().c_str());
  }
  OFBool Tell(bool accepted, const std::string& who) const {
    if (!accepted) shared_.Observe({ScpEvent::Kind::kRejected, who});
    return accepted ? OFTrue : OFFalse;
  }

  Shared& shared_;
  int64_t dataset_bytes_ = 0;  // of the one that is being received
};

// For now: the sender may try again.
void Reject(T_ASC_Association* association) {
  T_ASC_RejectParameters busy;
  busy.result = ASC_RESULT_REJECTEDTRANSIENT;
  busy.source = ASC_SOURCE_SERVICEPROVIDER_PRESENTATION_RELATED;
  busy.reason = ASC_REASON_SP_PRES_LOCALLIMITEXCEEDED;
  ASC_rejectAssociation(association, &busy);
}

}  // namespace

struct StorageScp::Impl {
  Impl(const StorageScpOptions& options, Spool& spool, ScpObserver observer)
      : shared{options, spool, std::move(observer)} {}

  absl::Status Configure();
  // One thread: accepts a connection, serves its association to the end, and again.
  void AcceptAndServe();

  Shared shared;
  DcmSharedSCPConfig config;
  std::shared_ptr<DcmTransportLayer> tls;
  T_ASC_Network* network = nullptr;
  std::atomic<int> running{0};
  std::vector<std::thread> threads;
};

absl::Status StorageScp::Impl::Configure() {
  const StorageScpOptions& options = shared.options;
  config->setAETitle(options.ae_title.c_str());
  config->setMaxReceivePDULength(static_cast<Uint32>(options.max_pdu_bytes));
  config->setACSETimeout(static_cast<Uint32>(options.acse_timeout_s));
  config->setDIMSEBlockingMode(DIMSE_NONBLOCKING);
  config->setDIMSETimeout(static_cast<Uint32>(options.dimse_timeout_s));
  config->setHostLookupEnabled(OFFalse);  // addresses, not names that a peer's DNS makes up
  config->setRespondWithCalledAETitle(OFTrue);
  const OFCondition added = AddStorageContexts(*config);
  if (added.bad()) {
    return absl::InternalError(absl::StrCat("cannot configure the DICOM server: ", added.text()));
  }
  return absl::OkStatus();
}

void StorageScp::Impl::AcceptAndServe() {
  ++running;
  while (!shared.stopping) {
    T_ASC_Association* association = nullptr;
    const OFCondition received =
        ASC_receiveAssociation(network, &association, shared.options.max_pdu_bytes, nullptr,
                               nullptr, tls ? OFTrue : OFFalse, DUL_BLOCK);
    if (received.bad()) {
      ASC_dropAssociation(association);
      ASC_destroyAssociation(&association);
      // No haste: this may be a process without a free file descriptor.
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      continue;
    }
    if (++shared.active <= shared.options.max_associations && !shared.stopping) {
      SpoolScp scp(shared);  // drops the association when it goes
      scp.setSharedConfig(config);
      scp.run(association);
    } else {
      Reject(association);
      ASC_dropAssociation(association);
      ASC_destroyAssociation(&association);
      shared.Observe({ScpEvent::Kind::kRejected, "too many associations"});
    }
    --shared.active;
  }
  --running;
}

StorageScp::StorageScp(const StorageScpOptions& options, Spool& spool, ScpObserver observer)
    : impl_(std::make_unique<Impl>(options, spool, std::move(observer))) {}
StorageScp::~StorageScp() = default;

absl::Status StorageScp::Start() {
  const StorageScpOptions& options = impl_->shared.options;
  if (options.tls.wanted()) {
    auto tls = MakeDicomTls(options.tls, DicomRole::kAcceptor);
    if (!tls.ok()) return tls.status();
    impl_->tls = *std::move(tls);
  }
  if (absl::Status status = impl_->Configure(); !status.ok()) return status;
  OFCondition opened =
      ASC_initializeNetwork(NET_ACCEPTOR, options.port, options.acse_timeout_s, &impl_->network);
  if (opened.good() && impl_->tls) {
    opened = ASC_setTransportLayer(impl_->network, impl_->tls.get(), 0);
  }
  if (opened.bad()) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on port ", options.port, ": ", opened.text()));
  }
  for (int i = 0; i < options.max_associations + kSpareThreads; ++i) {
    impl_->threads.emplace_back([this] { impl_->AcceptAndServe(); });
  }
  return absl::OkStatus();
}

bool StorageScp::Stop(int drain_s) {
  impl_->shared.stopping = true;
  // Ends the accepts that wait.
  shutdown(DUL_networkSocket(impl_->network->network), SHUT_RDWR);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(drain_s);
  while (impl_->running > 0) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
  ASC_dropNetwork(&impl_->network);
  return true;
}

}  // namespace gvsl

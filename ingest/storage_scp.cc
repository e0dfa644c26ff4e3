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
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ingest/dataset_receiver.h"
#include "ingest/received_instance.h"

namespace gvsl {
namespace {

// Threads beyond those of associations: for connections that have not asked for one yet.
constexpr int kSpareThreads = 16;
// How long a thread waits for a connection before it looks whether to stop. Waiting without end,
// DCMTK would not notice that the port is closed.
constexpr int kAcceptSeconds = 1;
// A requester of commitment that is silent for so long waits for the report.
constexpr int kReportAfterSeconds = 2;
// Of a request for commitment: about 100,000 instances.
constexpr int64_t kMaxCommitmentBytes = int64_t{16} << 20;
constexpr Uint16 kRequestCommitment = 1;  // action type

struct Shared {
  const StorageScpOptions options;
  Spool& spool;
  CommitmentQueue& commitments;
  const ScpObserver observer;
  const CommitmentObserver commitment_observer;
  std::atomic<bool> stopping{false};
  std::atomic<int> active{0};

  void Observe(const ScpEvent& event) const {
    if (observer) observer(event);
  }
};

// One association.
class SpoolScp : public DcmThreadSCP {
 public:
  SpoolScp(Shared& shared, T_ASC_Association* association)
      : shared_(shared), association_(association) {}

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

  OFCondition handleIncomingCommand(T_DIMSE_Message* message,
                                    const DcmPresentationContextInfo& context) override {
    if (message->CommandField == DIMSE_C_STORE_RQ) return Store(message->msg.CStoreRQ, context);
    if (message->CommandField == DIMSE_N_ACTION_RQ) return Commit(message->msg.NActionRQ, context);
    return DcmThreadSCP::handleIncomingCommand(message, context);
  }

 private:
  OFCondition Store(T_DIMSE_C_StoreRQ& request, const DcmPresentationContextInfo& context) {
    const std::string path = shared_.spool.IncomingPath();
    const ReceivedDataset dataset =
        Receive(context, path, shared_.options.max_object_bytes, request.DataSetType, &request);
    if (dataset.condition.bad()) return dataset.condition;  // nobody is there to be answered
    Uint16 status = STATUS_STORE_Refused_OutOfResources;
    if (dataset.is_whole && HasRoom()) {
      status = KeepReceived(
          shared_.spool, path,
          {request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, dataset.bytes});
    } else if (dataset.is_whole) {
      unlink(path.c_str());
    }
    shared_.Observe(
        {ScpEvent::Kind::kInstance, Peer(), status, status == STATUS_Success ? dataset.bytes : 0});
    return sendSTOREResponse(context.presentationContextID, request, status);
  }

  OFCondition Commit(const T_DIMSE_N_ActionRQ& request, const DcmPresentationContextInfo& context) {
    const std::string path = shared_.spool.IncomingPath();
    const ReceivedDataset dataset =
        Receive(context, path, kMaxCommitmentBytes, request.DataSetType, nullptr);
    if (dataset.condition.bad()) return dataset.condition;
    CommitmentReport report;
    std::string name;  // of the report in the queue
    const Uint16 status = dataset.is_whole
                              ? Promise(request, path, context, report, name)
                              : Refuse(STATUS_N_ResourceLimitation, "there is no room for it");
    unlink(path.c_str());
    const OFCondition answered =
        sendACTIONResponse(context.presentationContextID, request.MessageID,
                           request.RequestedSOPClassUID, request.RequestedSOPInstanceUID, status);
    if (name.empty()) return answered;
    OFCondition reported = EC_Normal;
    if (answered.bad()) {
      shared_.commitments.Remove(name);  // who asked does not know of it
    } else if (!ASC_dataWaiting(association_, kReportAfterSeconds)) {
      reported = Report(report, name, context.presentationContextID);
    }
    shared_.commitments.Release(name);
    return answered.bad() ? answered : reported;
  }

  ReceivedDataset Receive(const DcmPresentationContextInfo& context, const std::string& path,
                          int64_t max_bytes, T_DIMSE_DataSetType type, T_DIMSE_C_StoreRQ* store) {
    if (type == DIMSE_DATASET_NULL) return {DIMSE_BADMESSAGE};
    // A dataset that there is no room for must still be read, for the association to go on.
    return ReceiveDataset(association_, context.presentationContextID,
                          shared_.options.dimse_timeout_s, HasRoom() ? path : "", max_bytes, store);
  }

  Uint16 Refuse(Uint16 status, const std::string& error) {
    shared_.commitment_observer({"commitment_refused", Peer(), 0, 0, error});
    return status;
  }

  // Decides what is committed, and queues the report of it. Returns an N-ACTION status.
  Uint16 Promise(const T_DIMSE_N_ActionRQ& request, const std::string& path,
                 const DcmPresentationContextInfo& context, CommitmentReport& report,
                 std::string& name) {
    if (context.abstractSyntax != UID_StorageCommitmentPushModelSOPClass ||
        std::string(request.RequestedSOPInstanceUID) != UID_StorageCommitmentPushModelSOPInstance) {
      return Refuse(STATUS_N_NoSuchSOPInstance, "another SOP instance was asked");
    }
    if (request.ActionTypeID != kRequestCommitment) {
      return Refuse(STATUS_N_NoSuchAction, "another action was asked for");
    }
    DcmDataset dataset;
    const DcmXfer syntax(context.acceptedTransferSyntax.c_str());
    if (dataset.loadFile(path.c_str(), syntax.getXfer()).bad()) {
      return Refuse(STATUS_N_InvalidArgumentValue, "the request cannot be read");
    }
    absl::StatusOr<CommitmentRequest> asked = ReadCommitmentRequest(dataset);
    if (!asked.ok()) {
      return Refuse(STATUS_N_InvalidArgumentValue, std::string(asked.status().message()));
    }
    absl::StatusOr<CommitmentReport> made =
        CommitInstances(shared_.spool, getPeerAETitle().c_str(), *std::move(asked));
    if (!made.ok()) {
      return Refuse(STATUS_N_ProcessingFailure, std::string(made.status().message()));
    }
    report = *std::move(made);
    absl::StatusOr<std::string> queued = shared_.commitments.Put(report);
    if (!queued.ok()) {
      return Refuse(STATUS_N_ResourceLimitation, std::string(queued.status().message()));
    }
    name = *std::move(queued);
    shared_.commitment_observer({"commitment", Peer(), report.committed(), report.failures()});
    return STATUS_N_Success;
  }

  OFCondition Report(const CommitmentReport& report, const std::string& name,
                     T_ASC_PresentationContextID context) {
    DcmDataset dataset;
    WriteCommitmentReport(report, dataset);
    Uint16 answer = 0;
    const OFCondition sent =
        sendEVENTREPORTRequest(context, UID_StorageCommitmentPushModelSOPInstance, 1,
                               report.event_type(), &dataset, answer);
    if (sent.good() && answer == STATUS_N_Success) {
      shared_.commitments.Remove(name);
      shared_.commitment_observer(
          {"commitment_reported", Peer(), report.committed(), report.failures()});
    }
    return sent;
  }

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
  T_ASC_Association* const association_;
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
  Impl(const StorageScpOptions& options, Spool& spool, CommitmentQueue& commitments,
       ScpObserver observer, CommitmentObserver commitment_observer)
      : shared{options, spool, commitments, std::move(observer), std::move(commitment_observer)} {}

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
                               nullptr, tls ? OFTrue : OFFalse, DUL_NOBLOCK, kAcceptSeconds);
    if (received.bad()) {
      ASC_dropAssociation(association);
      ASC_destroyAssociation(&association);
      // No haste: this may be a process without a free file descriptor.
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      continue;
    }
    if (++shared.active <= shared.options.max_associations && !shared.stopping) {
      SpoolScp scp(shared, association);  // drops the association when it goes
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

StorageScp::StorageScp(const StorageScpOptions& options, Spool& spool, CommitmentQueue& commitments,
                       ScpObserver observer, CommitmentObserver commitment_observer)
    : impl_(std::make_unique<Impl>(options, spool, commitments, std::move(observer),
                                   std::move(commitment_observer))) {}
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
  // Ends the accepts that several threads made for one connection.
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

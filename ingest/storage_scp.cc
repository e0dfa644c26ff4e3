#include "ingest/storage_scp.h"

#include "ingest/dicom_attributes.h"
// The network comes after DCMTK's configuration, which dicom_attributes.h includes.
#include <dcmtk/dcmnet/scp.h>
#include <dcmtk/dcmnet/scppool.h>
#include <dcmtk/dcmnet/scpthrd.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr Uint32 kHeaderValueBytes = 1024;
constexpr Uint32 kMaxPduBytes = 131072;

struct Shared {
  const StorageScpOptions options;
  Spool& spool;
  const ScpObserver observer;
  std::atomic<bool> draining{false};
  std::atomic<int> active{0};
};

// One association at a time, in a thread of the pool.
class SpoolScp : public DcmThreadSCP {
 public:
  explicit SpoolScp(Shared& shared) : shared_(shared) {}

 protected:
  OFBool checkCallingHostAccepted(const OFString& host) override {
    const auto& allowed = shared_.options.allowed_hosts;
    const bool accepted = host == "127.0.0.1" || host == "::1" || host == "localhost" ||
                          std::find(allowed.begin(), allowed.end(), host.c_str()) != allowed.end();
    return Tell(accepted && !shared_.draining, host);
  }
  OFBool checkCallingAETitleAccepted(const OFString& title) override {
    const auto& allowed = shared_.options.allowed_ae_titles;
    return Tell(allowed.empty() ||
                    std::find(allowed.begin(), allowed.end(), title.c_str()) != allowed.end(),
                title);
  }
  OFBool checkCalledAETitleAccepted(const OFString& title) override {
    return Tell(shared_.options.ae_title == title.c_str(), title);
  }
  void notifyAssociationAcknowledge() override {
    ++shared_.active;
    counted_ = true;
    Observe("association", 0);
  }
  void notifyAssociationTermination() override {
    if (std::exchange(counted_, false)) --shared_.active;
  }

  OFCondition handleIncomingCommand(T_DIMSE_Message* message,
                                    const DcmPresentationContextInfo& context) override {
    if (message->CommandField != DIMSE_C_STORE_RQ) {
      return DcmThreadSCP::handleIncomingCommand(message, context);
    }
    T_DIMSE_C_StoreRQ& request = message->msg.CStoreRQ;
    const std::string path = shared_.spool.IncomingPath();
    const OFCondition received =
        receiveSTORERequest(request, context.presentationContextID, OFString(path.c_str()));
    Uint16 status = 0;
    if (received.bad()) {
      std::error_code ignored;
      std::filesystem::remove(path, ignored);
      // What could not be written was still read from the network; otherwise the connection is
      // broken, and nobody is there to be answered.
      if (received != DIMSE_OUTOFRESOURCES) return received;
      status = STATUS_STORE_Refused_OutOfResources;
    } else {
      status = Take(path, request);
    }
    Observe(status == STATUS_Success ? "instance" : "refused", status);
    return sendSTOREResponse(context.presentationContextID, request, status);
  }

 private:
  void Observe(const char* what, uint16_t status) {
    if (!shared_.observer) return;
    shared_.observer(
        {what, absl::StrCat(getPeerIP().c_str(), " ", getPeerAETitle().c_str()), status});
  }
  OFBool Tell(bool accepted, const OFString& who) {
    if (!accepted && shared_.observer) shared_.observer({"rejected", who.c_str(), 0});
    return accepted ? OFTrue : OFFalse;
  }

  // The DIMSE status of a received file, which is kept or gone afterwards.
  Uint16 Take(const std::string& path, const T_DIMSE_C_StoreRQ& request) {
    const auto refuse = [&](Uint16 status) {
      unlink(path.c_str());
      return status;
    };
    struct statvfs disk = {};
    if (statvfs(path.c_str(), &disk) == 0 &&
        static_cast<int64_t>(disk.f_bavail * disk.f_frsize) < shared_.options.min_free_bytes) {
      return refuse(STATUS_STORE_Refused_OutOfResources);
    }
    std::string study, series, sop_class, sop_instance;
    try {
      DcmFileFormat file;
      if (file.loadFile(path.c_str(), EXS_Unknown, EGL_noChange, kHeaderValueBytes).bad()) {
        return refuse(STATUS_STORE_Error_CannotUnderstand);
      }
      DcmDataset& dataset = *file.getDataset();
      study = TextOf(dataset, DCM_StudyInstanceUID);
      series = TextOf(dataset, DCM_SeriesInstanceUID);
      sop_class = TextOf(dataset, DCM_SOPClassUID);
      sop_instance = TextOf(dataset, DCM_SOPInstanceUID);
    } catch (const std::exception&) {
      return refuse(STATUS_STORE_Error_CannotUnderstand);
    }
    if (sop_class != request.AffectedSOPClassUID ||
        sop_instance != request.AffectedSOPInstanceUID) {
      return refuse(STATUS_STORE_Error_DataSetDoesNotMatchSOPClass);
    }
    if (study.empty() || series.empty()) return refuse(STATUS_STORE_Error_CannotUnderstand);
    return shared_.spool.Keep(path, study, series, sop_instance).ok()
               ? STATUS_Success
               : STATUS_STORE_Refused_OutOfResources;
  }

  Shared& shared_;
  bool counted_ = false;
};

class SpoolScpPool : public DcmBaseSCPPool {
 public:
  explicit SpoolScpPool(Shared& shared) : shared_(shared) {}

 protected:
  // DCMTK's pool makes its workers without arguments; these have the spool.
  struct Worker : DcmBaseSCPWorker, private SpoolScp {
    Worker(DcmBaseSCPPool& pool, Shared& shared) : DcmBaseSCPWorker(pool), SpoolScp(shared) {}
    OFCondition setSharedConfig(const DcmSharedSCPConfig& config) override {
      return SpoolScp::setSharedConfig(config);
    }
    OFBool busy() override { return SpoolScp::isConnected(); }
    OFCondition workerListen(T_ASC_Association* const association) override {
      return SpoolScp::run(association);
    }
  };
  DcmBaseSCPWorker* createSCPWorker() override { return new Worker(*this, shared_); }

 private:
  Shared& shared_;
};

absl::Status Configure(const StorageScpOptions& options, DcmSCPConfig& config) {
  config.setAETitle(options.ae_title.c_str());
  config.setPort(static_cast<Uint16>(options.port));
  config.setMaxReceivePDULength(kMaxPduBytes);
  config.setACSETimeout(static_cast<Uint32>(options.acse_timeout_s));
  config.setDIMSEBlockingMode(DIMSE_NONBLOCKING);
  config.setDIMSETimeout(static_cast<Uint32>(options.dimse_timeout_s));
  config.setHostLookupEnabled(OFFalse);  // addresses, not names that a peer's DNS makes up
  config.setRespondWithCalledAETitle(OFTrue);
  // Native ones first: no sender who offers both is made to compress, perhaps with loss.
  OFList<OFString> syntaxes;
  for (const char* syntax :
       {UID_LittleEndianExplicitTransferSyntax, UID_LittleEndianImplicitTransferSyntax,
        UID_BigEndianExplicitTransferSyntax, UID_DeflatedExplicitVRLittleEndianTransferSyntax,
        UID_RLELosslessTransferSyntax, UID_JPEGLSLosslessTransferSyntax,
        UID_JPEG2000LosslessOnlyTransferSyntax, UID_JPEGProcess14SV1TransferSyntax,
        UID_JPEGProcess14TransferSyntax, UID_JPEGLSLossyTransferSyntax, UID_JPEG2000TransferSyntax,
        UID_JPEGProcess2_4TransferSyntax, UID_JPEGProcess1TransferSyntax}) {
    syntaxes.push_back(syntax);
  }
  OFCondition added = EC_Normal;
  // DCMTK's list for senders: at most 120, as many as fit into an association (128 contexts) beside
  // Verification.
  for (int i = 0; i < numberOfDcmLongSCUStorageSOPClassUIDs && added.good(); ++i) {
    added = config.addPresentationContext(dcmLongSCUStorageSOPClassUIDs[i], syntaxes);
  }
  OFList<OFString> native;
  native.push_back(UID_LittleEndianExplicitTransferSyntax);
  native.push_back(UID_LittleEndianImplicitTransferSyntax);
  if (added.good()) added = config.addPresentationContext(UID_VerificationSOPClass, native);
  if (added.bad()) {
    return absl::InternalError(absl::StrCat("cannot configure the DICOM server: ", added.text()));
  }
  return absl::OkStatus();
}

}  // namespace

struct StorageScp::Impl {
  Impl(const StorageScpOptions& options, Spool& spool, ScpObserver observer)
      : shared{options, spool, std::move(observer)}, pool(shared) {}

  Shared shared;
  SpoolScpPool pool;
};

StorageScp::StorageScp(const StorageScpOptions& options, Spool& spool, ScpObserver observer)
    : impl_(std::make_unique<Impl>(options, spool, std::move(observer))) {}
StorageScp::~StorageScp() = default;

absl::Status StorageScp::Run() {
  const StorageScpOptions& options = impl_->shared.options;
  if (absl::Status status = Configure(options, impl_->pool.getConfig()); !status.ok()) {
    return status;
  }
  impl_->pool.setMaxThreads(static_cast<Uint16>(options.max_associations));
  const OFCondition ended = impl_->pool.listen();
  if (ended.bad()) {
    return absl::UnavailableError(
        absl::StrCat("the DICOM server on port ", options.port, " ended: ", ended.text()));
  }
  return absl::OkStatus();
}

void StorageScp::Drain(int drain_s) {
  impl_->shared.draining = true;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(drain_s);
  while (impl_->shared.active > 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace gvsl

#include "ingest/storage_commitment.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "imaging/testing.h"
#include "ingest/commitment_reporter.h"
#include "ingest/dicom_attributes.h"
#include "ingest/dicom_logging.h"
#include "ingest/dicom_scu.h"
#include "ingest/storage_scp.h"

namespace gvsl {
namespace {

constexpr char kCt[] = UID_CTImageStorage, kReport[] = UID_BasicTextSRStorage;

class StorageCommitmentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SilenceDicomLog();
    auto spool = Spool::Open(folder_ / "spool");
    ASSERT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
  }
  void Keep(const std::string& series, const std::string& sop, const char* sop_class = kCt) {
    DcmFileFormat file;
    DcmDataset& dataset = *file.getDataset();
    dataset.putAndInsertString(DCM_SOPClassUID, sop_class);
    dataset.putAndInsertString(DCM_SOPInstanceUID, sop.c_str());
    const std::string path = spool_->IncomingPath();
    ASSERT_TRUE(file.saveFile(path.c_str(), EXS_LittleEndianExplicit).good());
    ASSERT_TRUE(spool_->Keep(path, 0, "1", series, sop).ok());
  }
  // What the worker does when the server has confirmed: verdicts by SOP Instance UID.
  void Upload(const std::vector<std::pair<std::string, Verdict>>& verdicts) {
    SpoolSeries series = TheSeries();
    Ledger ledger;
    for (const auto& [uid, verdict] : verdicts) ledger.push_back({"", uid, verdict, "", kCt});
    ASSERT_TRUE(spool_->SetLedger(series.key, ledger).ok());
    series.state.uploaded = series.digest;
    series.state.unused = std::count_if(ledger.begin(), ledger.end(), [](const LedgerEntry& entry) {
      return !entry.is_wholly_used();
    });
    ASSERT_TRUE(spool_->SetState(series.key, series.state).ok());
  }
  SpoolSeries TheSeries() {
    const auto all = spool_->List();
    EXPECT_TRUE(all.ok() && all->size() == 1);
    return all.ok() && all->size() == 1 ? (*all)[0] : SpoolSeries{};
  }
  // The failure reasons of a request, 0 for what is committed.
  std::vector<int> Ask(const std::vector<InstanceReference>& references) {
    const auto report = CommitInstances(*spool_, "CT1", {"1.2", references});
    EXPECT_TRUE(report.ok()) << report.status();
    std::vector<int> reasons;
    if (report.ok()) {
      for (const auto& one : report->result.references) reasons.push_back(one.failure_reason);
    }
    return reasons;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Spool> spool_;
};

TEST_F(StorageCommitmentTest, WhatIsInTheSpoolIsCommitted) {
  Keep("1.1", "1.1.1");
  Keep("1.2", "1.2.1");
  EXPECT_EQ(Ask({{kCt, "1.1.1"}, {kCt, "1.2.1"}}), (std::vector<int>{0, 0}));
}

TEST_F(StorageCommitmentTest, UnknownInstancesAndOtherClassesAreNot) {
  Keep("1.1", "1.1.1");
  EXPECT_EQ(Ask({{kCt, "1.1.2"}, {kReport, "1.1.1"}, {kCt, "1.1.1"}}),
            (std::vector<int>{0x0112, 0x0119, 0}));
}

TEST_F(StorageCommitmentTest, WhatIsOnTheServerIsCommittedWithoutItsFiles) {
  Keep("1.1", "1.1.1");
  Keep("1.1", "1.1.2");
  Keep("1.1", "1.1.3");
  Upload({{"1.1.1", Verdict::kUsed}, {"1.1.2", Verdict::kLocalizer}, {"1.1.3", Verdict::kUsed}});
  const SpoolSeries series = TheSeries();
  ASSERT_TRUE(spool_->Remove(series.key, series.digest));
  EXPECT_EQ(Ask({{kCt, "1.1.1"}, {kCt, "1.1.2"}, {kReport, "1.1.3"}}),
            (std::vector<int>{0, 0x0112, 0x0119}));
}

TEST_F(StorageCommitmentTest, SliceOfWhichAPartIsInAVolumeIsNoneThatIs) {
  Keep("1.1", "1.1.1");
  const SpoolSeries series = TheSeries();
  ASSERT_TRUE(
      spool_->SetLedger(series.key, {{"", "1.1.1", Verdict::kUsed, "9 of 12 slices used", kCt}})
          .ok());
  ASSERT_TRUE(spool_->Remove(series.key, series.digest));
  EXPECT_EQ(Ask({{kCt, "1.1.1"}}), (std::vector<int>{0x0112}));
}

// An instance that is in no volume would be gone with its series.
TEST_F(StorageCommitmentTest, CommittedSeriesStaysUntilAllOfItIsInVolumes) {
  Keep("1.1", "1.1.1");
  Keep("1.1", "1.1.2");
  Ask({{kCt, "1.1.2"}});
  Upload({{"1.1.1", Verdict::kUsed}, {"1.1.2", Verdict::kLocalizer}});
  SpoolSeries series = TheSeries();
  EXPECT_TRUE(series.is_committed);
  EXPECT_FALSE(spool_->Remove(series.key, series.digest));
  EXPECT_EQ(Ask({{kCt, "1.1.2"}}), (std::vector<int>{0}));
  Upload({{"1.1.1", Verdict::kUsed}, {"1.1.2", Verdict::kUsed}});
  series = TheSeries();
  EXPECT_TRUE(spool_->Remove(series.key, series.digest));
  EXPECT_EQ(Ask({{kCt, "1.1.2"}}), (std::vector<int>{0}));
}

TEST_F(StorageCommitmentTest, ReportSaysWhichAndWhy) {
  const CommitmentReport report{"CT1", {"1.2", {{kCt, "1"}, {kCt, "2", 0x0112}, {kCt, "3"}}}};
  DcmDataset dataset;
  WriteCommitmentReport(report, dataset);
  EXPECT_EQ(report.event_type(), 2);
  EXPECT_EQ(TextOf(dataset, DCM_TransactionUID), "1.2");
  DcmSequenceOfItems *committed = nullptr, *failed = nullptr;
  ASSERT_TRUE(dataset.findAndGetSequence(DCM_ReferencedSOPSequence, committed).good());
  ASSERT_TRUE(dataset.findAndGetSequence(DCM_FailedSOPSequence, failed).good());
  ASSERT_EQ(committed->card(), 2u);
  ASSERT_EQ(failed->card(), 1u);
  EXPECT_EQ(TextOf(*committed->getItem(1), DCM_ReferencedSOPInstanceUID), "3");
  EXPECT_EQ(TextOf(*failed->getItem(0), DCM_ReferencedSOPInstanceUID), "2");
  EXPECT_EQ(IntegerOf(*failed->getItem(0), DCM_FailureReason), 0x0112);
}

TEST_F(StorageCommitmentTest, ReportOutlivesTheProcessAndIsGivenUpAtLast) {
  const CommitmentReport report{"CT1", {"1.2", {{kCt, "1"}, {kCt, "2", 0x0112}}}};
  {
    CommitmentQueue queue(*spool_);
    ASSERT_TRUE(queue.Put(report).ok());
    ASSERT_FALSE(queue.Put(report).ok()) << "it is claimed";
  }
  CommitmentQueue queue(*spool_);
  ASSERT_EQ(queue.Names().size(), 1u);
  std::ofstream(folder_ / "spool/commitments/damaged.json") << "{";
  CommitmentReporterOptions options;  // knows no peer
  options.max_attempts = 2;
  std::vector<std::string> events;
  CommitmentReporter reporter(options, queue, [&](const CommitmentEvent& event) {
    events.push_back(event.what);
    if (event.peer.empty()) return;
    EXPECT_EQ(event.committed, 1);
    EXPECT_EQ(event.failed, 1);
    EXPECT_NE(event.error.find("--commitment_peer"), std::string::npos);
  });
  reporter.RunOnce(100);
  std::sort(events.begin(), events.end());
  EXPECT_EQ(events, (std::vector<std::string>{"commitment_given_up", "commitment_retry"}));
  reporter.RunOnce(104);
  EXPECT_EQ(events.size(), 2u) << "not before its time";
  reporter.RunOnce(105);
  EXPECT_EQ(events.back(), "commitment_given_up");
  EXPECT_TRUE(queue.Names().empty());
}

int FreePort() {
  const int probe = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(probe, reinterpret_cast<sockaddr*>(&address), size), 0);
  getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size);
  close(probe);
  return ntohs(address.sin_port);
}

// A requester that keeps its association open.
TEST_F(StorageCommitmentTest, RequesterThatWaitsIsReportedToOnItsAssociation) {
  Keep("1.1", "1.1.1");
  CommitmentQueue queue(*spool_);
  StorageScpOptions options;
  options.port = FreePort();
  options.min_free_bytes = 0;
  StorageScp scp(options, *spool_, queue, nullptr, [](const CommitmentEvent&) {});
  ASSERT_TRUE(scp.Start().ok());
  {
    DicomScu scu(ScuOptions{{"GVSL", "127.0.0.1", options.port}, "CT1"});
    scu.Propose(UID_StorageCommitmentPushModelSOPClass);
    const absl::Status opened = scu.Open();
    ASSERT_TRUE(opened.ok()) << opened;
    const auto context = scu.ContextOf(UID_StorageCommitmentPushModelSOPClass, "commitment");
    ASSERT_TRUE(context.ok()) << context.status();
    const auto request = [&](uint16_t action, const CommitmentReport& asked) {
      DcmDataset dataset;
      WriteCommitmentReport(asked, dataset);  // without failures the same as a request
      Uint16 status = 0xFFFF;
      EXPECT_TRUE(scu.sendACTIONRequest(*context, UID_StorageCommitmentPushModelSOPInstance, action,
                                        &dataset, status)
                      .good());
      return status;
    };
    EXPECT_EQ(request(2, {"", {"1.2", {{kCt, "1.1.1"}}}}), 0x0123);
    EXPECT_EQ(request(1, {"", {"1.2", {}}}), 0x0115);
    EXPECT_EQ(request(1, {"", {"1.2", {{kCt, ""}}}}), 0x0115);
    EXPECT_TRUE(queue.Names().empty());
    EXPECT_EQ(request(1, {"", {"1.3", {{kCt, "1.1.1"}, {kCt, "1.1.2"}}}}), 0);
    DcmDataset* told = nullptr;
    Uint16 event_type = 0;
    ASSERT_TRUE(scu.handleEVENTREPORTRequest(told, event_type, 30).good());
    const std::unique_ptr<DcmDataset> owned(told);
    EXPECT_EQ(event_type, 2);
    ASSERT_NE(told, nullptr);
    EXPECT_EQ(TextOf(*told, DCM_TransactionUID), "1.3");
    scu.releaseAssociation();
  }
  EXPECT_TRUE(scp.Stop(30));
  EXPECT_TRUE(queue.Names().empty());
}

}  // namespace
}  // namespace gvsl

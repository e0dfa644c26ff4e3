#include "ingest/spool_worker.h"

#include <gtest/gtest.h>

#include <fstream>

#include "imaging/testing.h"
#include "ingest/dicom_attributes.h"
#include "ingest/dicom_logging.h"

namespace gvsl {
namespace {

// No server: what is shown here never comes to an upload. The instances are no DICOM, so that their
// series is done once each of them has its verdict.
class SpoolWorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SilenceDicomLog();
    auto pseudonyms = Pseudonyms::FromKeyFile(folder_ / "key");
    ASSERT_TRUE(pseudonyms.ok()) << pseudonyms.status();
    pseudonyms_ = std::make_unique<Pseudonyms>(*std::move(pseudonyms));
    options_.quiet_s = 10;
    MakeSpool();
  }
  // A new one, empty, and its worker.
  void MakeSpool() {
    auto spool = Spool::Open(folder_ / ("spool" + std::to_string(++spools_)));
    ASSERT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
    events_.clear();
    MakeWorker();
  }
  void MakeWorker() {
    worker_ = std::make_unique<SpoolWorker>(
        options_, *spool_, *pseudonyms_, client_,
        [this](const SpoolEvent& event) { events_.push_back(event.what); });
  }
  void Receive(const std::string& sop) {
    const std::string path = spool_->IncomingPath();
    std::ofstream(path) << "instance " << sop;
    ASSERT_TRUE(spool_->Keep(path, 0, "study", "series", sop).ok());
  }
  // A report, so no volume comes of it, with one attribute and from one sender.
  void ReceiveDicom(const std::string& sop, const DcmTagKey& key, const char* value,
                    const char* sender = "CT1") {
    DcmFileFormat file;
    DcmDataset& dataset = *file.getDataset();
    dataset.putAndInsertString(DCM_SOPClassUID, UID_BasicTextSRStorage);
    dataset.putAndInsertString(DCM_SOPInstanceUID, sop.c_str());
    dataset.putAndInsertString(key, value);
    file.getMetaInfo()->putAndInsertString(DCM_SourceApplicationEntityTitle, sender);
    const std::string path = spool_->IncomingPath();
    // The default mode drops the sender.
    ASSERT_TRUE(file.saveFile(path.c_str(), EXS_LittleEndianExplicit, EET_ExplicitLength,
                              EGL_recalcGL, EPD_noChange, 0, 0, EWM_updateMeta)
                    .good());
    ASSERT_TRUE(spool_->Keep(path, 0, "study", "series", sop).ok());
  }
  SpoolSeries TheSeries() {
    const auto all = spool_->List();
    return all.ok() && all->size() == 1 ? (*all)[0] : SpoolSeries{};
  }
  void RunAt(int64_t after_arrival_s) {
    EXPECT_TRUE(worker_->RunOnce(TheSeries().last_arrival_s + after_arrival_s).ok());
  }
  // A process that died while it was at the series.
  void DieAtIt() {
    SpoolSeries series = TheSeries();
    series.state.under_way = series.digest;
    ASSERT_TRUE(spool_->SetState(series.key, series.state).ok());
  }

  TemporaryFolder folder_;
  int spools_ = 0;
  std::unique_ptr<Pseudonyms> pseudonyms_;
  std::unique_ptr<Spool> spool_;
  Client client_{{"127.0.0.1:1"}};
  SpoolWorkerOptions options_;
  std::unique_ptr<SpoolWorker> worker_;
  std::vector<std::string> events_;
};

TEST_F(SpoolWorkerTest, SeriesIsLeftAloneUntilItIsQuiet) {
  Receive("1");
  RunAt(9);
  EXPECT_TRUE(events_.empty());
  RunAt(10);
  EXPECT_EQ(events_, std::vector<std::string>{"uploaded"});
  EXPECT_TRUE(TheSeries().is_done());
  EXPECT_EQ(TheSeries().state.verdicts, "1 NOT_DICOM");
}

TEST_F(SpoolWorkerTest, SeriesThatSaysHowManyItIsIsCompleteWithTheLastOfThem) {
  for (const DcmTagKey& key : {DCM_NumberOfSeriesRelatedInstances, DCM_ImagesInAcquisition,
                               DCM_InConcatenationTotalNumber}) {
    MakeSpool();
    ReceiveDicom("1", key, "3");
    ReceiveDicom("2", key, "3");
    RunAt(0);
    EXPECT_TRUE(events_.empty());
    ReceiveDicom("3", key, "3");
    RunAt(0);
    EXPECT_EQ(events_, std::vector<std::string>{"uploaded"});
  }
}

TEST_F(SpoolWorkerTest, NumberThatIsTooLargeIsWaitedForNoLongerThanAnyOther) {
  ReceiveDicom("1", DCM_NumberOfSeriesRelatedInstances, "3");
  RunAt(9);
  EXPECT_TRUE(events_.empty());
  RunAt(10);
  EXPECT_EQ(events_, std::vector<std::string>{"uploaded"});
}

TEST_F(SpoolWorkerTest, NumberThatIsTooSmallCostsOneRevisionAndNoInstance) {
  ReceiveDicom("1", DCM_NumberOfSeriesRelatedInstances, "1");
  RunAt(0);
  EXPECT_EQ(events_.size(), 1u);
  for (const char* sop : {"2", "3"}) {
    ReceiveDicom(sop, DCM_NumberOfSeriesRelatedInstances, "1");
    RunAt(9);
    EXPECT_EQ(events_.size(), 1u);
  }
  RunAt(10);
  EXPECT_EQ(events_.size(), 2u);
  EXPECT_EQ(TheSeries().state.verdicts, "3 NOT_AN_IMAGE");
}

TEST_F(SpoolWorkerTest, OneImageAnAcquisitionSaysNothingOfASeries) {
  ReceiveDicom("1", DCM_ImagesInAcquisition, "1");
  RunAt(9);
  EXPECT_TRUE(events_.empty());
}

TEST_F(SpoolWorkerTest, SenderHasAQuietTimeOfItsOwn) {
  options_.quiet_s_by_ae_title["SLOW"] = 100;
  MakeWorker();
  ReceiveDicom("1", DCM_InstanceNumber, "1", "SLOW");
  RunAt(99);
  EXPECT_TRUE(events_.empty());
  RunAt(100);
  EXPECT_EQ(events_, std::vector<std::string>{"uploaded"});
}

TEST_F(SpoolWorkerTest, UploadedSeriesGoesAfterItsTimeAndItsLedgerStays) {
  options_.keep_s = 100;
  MakeWorker();
  Receive("1");
  RunAt(10);
  const std::string key = TheSeries().key;
  RunAt(99);
  EXPECT_EQ(TheSeries().instances, 1);
  RunAt(100);
  EXPECT_EQ(TheSeries().instances, 0);
  EXPECT_EQ(events_.back(), "removed");
  EXPECT_TRUE(std::filesystem::exists(folder_ / ("spool1/ledgers/" + key + ".json")));
}

TEST_F(SpoolWorkerTest, NearlyFullDiskCostsWhatIsUploadedFirst) {
  Receive("1");
  RunAt(10);
  options_.min_free_bytes = int64_t{1} << 60;
  MakeWorker();
  RunAt(11);
  EXPECT_EQ(events_.back(), "removed");
}

TEST_F(SpoolWorkerTest, SeriesThatKillsTheProcessIsSetAsideAndOthersGoOn) {
  options_.max_attempts = 2;
  MakeWorker();
  Receive("1");
  DieAtIt();
  RunAt(10);
  EXPECT_EQ(events_, std::vector<std::string>{"retry"});
  EXPECT_EQ(TheSeries().state.attempts, 1);
  RunAt(11);  // not before its time
  EXPECT_EQ(events_.size(), 1u);
  DieAtIt();
  RunAt(20);
  EXPECT_EQ(events_.back(), "set_aside");
  EXPECT_TRUE(TheSeries().is_set_aside());
  RunAt(10000);
  EXPECT_EQ(events_.size(), 2u);
  // An instance that comes later gives it another chance.
  Receive("2");
  RunAt(10);
  EXPECT_EQ(events_.back(), "uploaded");
  EXPECT_EQ(TheSeries().state.verdicts, "2 NOT_DICOM");
}

TEST_F(SpoolWorkerTest, StateThatCannotBeWrittenIsTriedLater) {
  Receive("1");
  const std::string state = folder_ / ("spool1/series/" + TheSeries().key + "/state.json");
  std::filesystem::create_directory(state);  // in the way
  RunAt(10);
  EXPECT_EQ(events_, std::vector<std::string>{"retry"});
  std::filesystem::remove(state);
  RunAt(11);
  EXPECT_EQ(events_.size(), 1u);
  RunAt(20);
  EXPECT_EQ(events_.back(), "uploaded");
}

TEST_F(SpoolWorkerTest, DrainIsNoFailure) {
  Receive("1");
  client_.CancelAll();
  RunAt(10);
  EXPECT_TRUE(events_.empty());
  EXPECT_FALSE(TheSeries().is_done());
}

}  // namespace
}  // namespace gvsl

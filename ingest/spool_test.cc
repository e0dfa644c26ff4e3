#include "ingest/spool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "imaging/testing.h"

namespace gvsl {
namespace {

class SpoolTest : public ::testing::Test {
 protected:
  void Receive(Spool& spool, const std::string& series, const std::string& sop,
               const std::string& content) {
    const std::string path = spool.IncomingPath();
    std::ofstream(path) << content;
    const absl::Status kept = spool.Keep(path, 0, "study", series, sop);
    EXPECT_TRUE(kept.ok()) << kept;
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  std::unique_ptr<Spool> MustOpen() {
    auto spool = Spool::Open(folder_ / "spool");
    EXPECT_TRUE(spool.ok()) << spool.status();
    return *std::move(spool);
  }
  static std::vector<SpoolSeries> MustList(const Spool& spool) {
    auto all = spool.List();
    EXPECT_TRUE(all.ok()) << all.status();
    return *std::move(all);
  }

  TemporaryFolder folder_;
};

TEST_F(SpoolTest, InstancesAreKeptBySeriesAndCopiesOnce) {
  const auto spool = MustOpen();
  Receive(*spool, "a", "1", "one");
  Receive(*spool, "a", "2", "two");
  Receive(*spool, "a", "2", "two");
  Receive(*spool, "b", "1", "one");
  const auto all = MustList(*spool);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].instances + all[1].instances, 3);
}

TEST_F(SpoolTest, CopyThatCameAnotherWayIsNoOther) {
  const auto spool = MustOpen();
  const int64_t header_bytes = 8;
  for (const char* content : {"from ct1dataset", "from ct2dataset", "from ct1another"}) {
    const std::string path = spool->IncomingPath();
    std::ofstream(path) << content;
    ASSERT_TRUE(spool->Keep(path, header_bytes, "study", "a", "1").ok());
  }
  EXPECT_EQ(MustList(*spool)[0].instances, 2);
}

// Many at a time, into one new series, while it is looked at and taken away.
TEST_F(SpoolTest, NothingThatWasKeptIsLostToARemovalAtTheSameTime) {
  const auto spool = MustOpen();
  std::atomic<int> kept{0}, done{0};
  int64_t removed = 0;
  std::vector<std::thread> senders;
  for (int sender = 0; sender < 4; ++sender) {
    senders.emplace_back([&, sender] {
      for (int i = 0; i < 50; ++i) {
        const std::string path = spool->IncomingPath();
        const std::string name = std::to_string(100 * sender + i);
        std::ofstream(path) << name;
        kept += spool->Keep(path, 0, "study", "a", name).ok();
      }
      ++done;
    });
  }
  while (done < 4) {
    for (const SpoolSeries& series : MustList(*spool)) {
      if (spool->Remove(series.key, series.digest)) removed += series.instances;
    }
  }
  for (std::thread& sender : senders) sender.join();
  const auto rest = MustList(*spool);
  // One that was taken away before its folder was synced is not kept, and yet counted as removed.
  EXPECT_GT(kept, 0);
  EXPECT_LE(kept, removed + (rest.empty() ? 0 : rest[0].instances));
}

TEST_F(SpoolTest, SameUidWithOtherContentIsKeptBesideTheFirst) {
  const auto spool = MustOpen();
  Receive(*spool, "a", "1", "one");
  Receive(*spool, "a", "1", "another");
  EXPECT_EQ(MustList(*spool)[0].instances, 2);
}

TEST_F(SpoolTest, NewInstanceChangesTheDigestAndACopyDoesNot) {
  const auto spool = MustOpen();
  Receive(*spool, "a", "1", "one");
  const std::string digest = MustList(*spool)[0].digest;
  Receive(*spool, "a", "1", "one");
  EXPECT_EQ(MustList(*spool)[0].digest, digest);
  Receive(*spool, "a", "2", "two");
  EXPECT_NE(MustList(*spool)[0].digest, digest);
}

TEST_F(SpoolTest, StateOutlivesTheProcess) {
  std::string key;
  {
    const auto spool = MustOpen();
    Receive(*spool, "a", "1", "one");
    SpoolSeries series = MustList(*spool)[0];
    EXPECT_FALSE(series.is_done());
    series.state.uploaded = series.digest;
    series.state.error = "\xFF not UTF-8";
    series.state.retry_at_s = 7;
    series.state.volumes = {"volumes/1"};
    ASSERT_TRUE(spool->SetState(series.key, series.state).ok());
  }
  const auto spool = MustOpen();
  const SpoolSeries series = MustList(*spool)[0];
  EXPECT_TRUE(series.is_done());
  EXPECT_EQ(series.state.retry_at_s, 7);
  EXPECT_EQ(series.state.volumes, std::vector<std::string>{"volumes/1"});
}

TEST_F(SpoolTest, DamagedStateIsAnEmptyOne) {
  const auto spool = MustOpen();
  Receive(*spool, "a", "1", "one");
  const std::string key = MustList(*spool)[0].key;
  for (const char* text : {"", "{", "[]", "{\"uploaded\": 3}"}) {
    std::ofstream(folder_ / ("spool/series/" + key + "/state.json")) << text;
    EXPECT_EQ(MustList(*spool)[0].state.uploaded, "") << text;
  }
}

TEST_F(SpoolTest, WhatWasHalfReceivedIsGoneAtTheNextStart) {
  std::string half;
  {
    const auto spool = MustOpen();
    half = spool->IncomingPath();
    std::ofstream(half) << "half an inst";
    Receive(*spool, "a", "1", "one");
  }
  const auto spool = MustOpen();
  EXPECT_FALSE(std::filesystem::exists(half));
  EXPECT_EQ(MustList(*spool)[0].instances, 1);
}

TEST_F(SpoolTest, OneProcessHasASpool) {
  const auto spool = MustOpen();
  EXPECT_EQ(Spool::Open(folder_ / "spool").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(MustList(Spool::ForReading(folder_ / "spool")).size(), 0u);
}

TEST_F(SpoolTest, SeriesWithANewInstanceIsNotRemoved) {
  const auto spool = MustOpen();
  Receive(*spool, "a", "1", "one");
  const SpoolSeries before = MustList(*spool)[0];
  Receive(*spool, "a", "2", "two");
  spool->Remove(before.key, before.digest);
  ASSERT_EQ(MustList(*spool).size(), 1u);
  const SpoolSeries now = MustList(*spool)[0];
  ASSERT_TRUE(spool->SetLedger(now.key, {{"path", "1", Verdict::kUsed, ""}}).ok());
  spool->Remove(now.key, now.digest);
  EXPECT_TRUE(MustList(*spool).empty());
  EXPECT_TRUE(std::filesystem::exists(folder_ / ("spool/ledgers/" + now.key + ".json")));
}

TEST_F(SpoolTest, FolderThatCannotBeMadeIsNamed) {
  std::ofstream(folder_ / "file") << "in the way";
  const absl::Status status = Spool::Open(folder_ / "file").status();
  EXPECT_FALSE(status.ok());
  EXPECT_TRUE(Contains(status, "file")) << status;
}

}  // namespace
}  // namespace gvsl

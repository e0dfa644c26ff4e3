#include "ingest/instance_index.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>
#include <thread>

#include "imaging/testing.h"

namespace gvsl {
namespace {

using Freshness = InstanceIndex::Freshness;
using Keys = std::set<std::string>;

class InstanceIndexTest : public ::testing::Test {
 protected:
  std::unique_ptr<InstanceIndex> MustOpen() {
    auto index = InstanceIndex::Open(path_);
    EXPECT_TRUE(index.ok()) << index.status();
    return *std::move(index);
  }
  static Keys MustFind(InstanceIndex& index, const std::set<std::string>& names) {
    const auto keys = index.Find(names);
    EXPECT_TRUE(keys.ok()) << keys.status();
    return keys.value_or(Keys());
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_ / "index";
};

TEST_F(InstanceIndexTest, NamesEverySeriesThatMayHaveOneOfTheInstances) {
  const auto index = MustOpen();
  ASSERT_TRUE(index->Add("a", {"1", "2"}).ok());
  ASSERT_TRUE(index->Add("b", {"2", "3"}).ok());
  ASSERT_TRUE(index->Add("b", {"2"}).ok());
  EXPECT_EQ(MustFind(*index, {"1"}), Keys({"a"}));
  EXPECT_EQ(MustFind(*index, {"2"}), Keys({"a", "b"}));
  EXPECT_EQ(MustFind(*index, {"3", "4"}), Keys({"b"}));
  EXPECT_EQ(MustFind(*index, {}), Keys());
}

TEST_F(InstanceIndexTest, OutlivesTheProcessAndKnowsWhetherTheMachineWasStartedSince) {
  {
    const auto index = MustOpen();
    EXPECT_EQ(*index->freshness(), Freshness::kEmpty);
    ASSERT_TRUE(index->Add("a", {"1"}).ok());
    EXPECT_EQ(*index->freshness(), Freshness::kEmpty);
    ASSERT_TRUE(index->MarkCurrent().ok());
  }
  {
    const auto index = MustOpen();
    EXPECT_EQ(*index->freshness(), Freshness::kCurrent);
    EXPECT_EQ(MustFind(*index, {"1"}), Keys({"a"}));
  }
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
  sqlite3_exec(database, "UPDATE filled SET boot_id = 'another'", nullptr, nullptr, nullptr);
  sqlite3_close(database);
  EXPECT_EQ(*MustOpen()->freshness(), Freshness::kBehind);
}

TEST_F(InstanceIndexTest, DamagedFileIsMadeAnew) {
  std::ofstream(path_) << std::string(8192, 'x');
  const auto index = MustOpen();
  EXPECT_EQ(*index->freshness(), Freshness::kEmpty);
  EXPECT_TRUE(index->Add("a", {"1"}).ok());
}

TEST_F(InstanceIndexTest, TakesManySendersAtOnce) {
  const auto index = MustOpen();
  std::vector<std::thread> senders;
  for (int sender = 0; sender < 8; ++sender) {
    senders.emplace_back([&, sender] {
      for (int i = 0; i < 50; ++i) {
        EXPECT_TRUE(index->Add(std::to_string(sender), {std::to_string(i)}).ok());
        EXPECT_TRUE(index->Find({std::to_string(i)})->count(std::to_string(sender)) == 1);
      }
    });
  }
  for (std::thread& sender : senders) sender.join();
  EXPECT_EQ(MustFind(*index, {"49"}).size(), 8u);
}

TEST_F(InstanceIndexTest, FileThatCannotBeMadeIsNamed) {
  const absl::Status status = InstanceIndex::Open(folder_ / "absent/index").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Contains(status, "absent/index")) << status;
}

}  // namespace
}  // namespace gvsl

#include "server/database.h"

#include <gtest/gtest.h>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "server/embedding_store.h"
#include "server/job_store.h"
#include "server/metadata_store.h"
#include "server/registration_store.h"

namespace gvsl {
namespace {

class DatabaseTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(folder_);
    ASSERT_TRUE(Database::Open(path_).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  const std::string folder_ = testing::TempDir() + "/database_test." + std::to_string(getpid());
  const std::string path_ = folder_ + "/metadata.sqlite";
};

TEST_F(DatabaseTest, RefusesOneOfANewerProgram) {
  {
    soci::session sql(soci::sqlite3, "dbname=" + path_);
    sql << "UPDATE schema_version SET version = version + 1";
  }
  const auto database = Database::Open(path_);
  EXPECT_EQ(database.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(database.status().message()).find("newer gvsld"), std::string::npos);
}

TEST_F(DatabaseTest, BringsOneOfTheFirstVersionUpToDate) {
  {
    auto database = Database::Open(path_);
    StoredVolume volume;
    volume.volume.set_name("volumes/a");
    ASSERT_TRUE(MetadataStore(**database).AddVolume(volume, {}).ok());
  }
  {
    soci::session sql(soci::sqlite3, "dbname=" + path_);
    for (const char* table : {"registrations", "embeddings", "job_inputs"})
      sql << std::string("DROP TABLE ") + table;
    sql << "DROP TABLE jobs";
    sql << "UPDATE schema_version SET version = 1";
  }
  auto database = Database::Open(path_);
  ASSERT_TRUE(database.ok()) << database.status();
  EXPECT_TRUE(MetadataStore(**database).GetVolume("volumes/a").ok());
  EXPECT_TRUE(JobStore(**database).Totals().ok());
  EXPECT_TRUE(EmbeddingStore(**database).Count("a").ok());
  EXPECT_TRUE(RegistrationStore(**database).List({}).ok());
}

TEST_F(DatabaseTest, BringsOneWithoutRegistrationsUpToDate) {
  {
    soci::session sql(soci::sqlite3, "dbname=" + path_);
    sql << "DROP TABLE registrations";
    sql << "UPDATE schema_version SET version = 3";
  }
  auto database = Database::Open(path_);
  ASSERT_TRUE(database.ok()) << database.status();
  EXPECT_TRUE(EmbeddingStore(**database).Count("a").ok());
  EXPECT_TRUE(RegistrationStore(**database).List({}).ok());
}

TEST_F(DatabaseTest, RefusesAFileThatIsNone) {
  std::ofstream(folder_ + "/noise") << std::string(10000, 'x');
  const auto database = Database::Open(folder_ + "/noise");
  EXPECT_EQ(database.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(database.status().message()).find("noise"), std::string::npos);
}

TEST_F(DatabaseTest, KeepsAWriteAheadLog) {
  // Its synchronisation belongs to a connection and cannot be seen from another: Open checks it.
  soci::session sql(soci::sqlite3, "dbname=" + path_);
  std::string mode;
  sql << "PRAGMA journal_mode", soci::into(mode);
  EXPECT_EQ(mode, "wal");
}

}  // namespace
}  // namespace gvsl

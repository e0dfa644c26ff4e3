#include "server/job_folder.h"

#include <fcntl.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "imaging/status_reason.h"
#include "server/job_test_fixture.h"

namespace gvsl {
namespace {

namespace fs = std::filesystem;

class JobFolderTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_.path()); }
  void TearDown() override { fs::remove_all(data_); }
  void Write(const std::string& path, const std::string& text) {
    const std::string whole = folder_.path() + "/" + path;
    fs::create_directories(fs::path(whole).parent_path());
    std::ofstream(whole) << text;
  }
  std::vector<std::string> Listed() {
    std::vector<std::string> paths;
    for (const auto& artifact : folder_.Artifacts()) paths.push_back(artifact.path());
    return paths;
  }

  const std::string data_ = testing::TempDir() + "/job_folder_test." + std::to_string(getpid());
  const JobFolder folder_{data_, "jobs/a"};
};

TEST_F(JobFolderTest, TheTaskIsThereBeforeTheProcessIs) {
  v1::TrainingTask task;
  task.set_job("jobs/a");
  task.mutable_spec()->mutable_optimization()->set_learning_rate(0.1);
  task.set_cache_dir(data_ + "/cache");
  fs::remove_all(folder_.path());
  ASSERT_TRUE(folder_.Prepare(task).ok());
  std::ifstream in(folder_.path() + "/task.textproto");
  std::stringstream text;
  text << in.rdbuf();
  v1::TrainingTask back;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text.str(), &back));
  EXPECT_EQ(back.SerializeAsString(), task.SerializeAsString());
  EXPECT_TRUE(fs::is_directory(data_ + "/cache"));
}

TEST_F(JobFolderTest, TheLockTellsWhoseProcessLives) {
  EXPECT_EQ(*folder_.LockHolder(), 0);  // no lock, no process
  {
    const Holder holder(folder_.path());
    EXPECT_EQ(*folder_.LockHolder(), holder.pid());
  }
  EXPECT_EQ(*folder_.LockHolder(), 0);  // it was killed: nobody cleaned up after it
  EXPECT_TRUE(fs::exists(folder_.path() + "/lock"));
}

TEST_F(JobFolderTest, ListsWhatTheJobMadeAndNothingElse) {
  for (const char* path :
       {"checkpoints/step-000000010.safetensors", "last.safetensors", "tensorboard/events.1",
        "pictures/step-10.png", "task.textproto", "lock", "events.jsonl", "log.txt",
        "checkpoints/step-000000020.safetensors.part-x1y2z3", ".hidden"}) {
    Write(path, "1234");
  }
  std::ofstream(data_ + "/secret") << "outside";
  fs::create_symlink(data_ + "/secret", folder_.path() + "/link");
  fs::create_directory_symlink(data_, folder_.path() + "/linked_folder");
  ASSERT_EQ(mkfifo((folder_.path() + "/pipe").c_str(), 0600), 0);
  EXPECT_EQ(Listed(),
            (std::vector<std::string>{"checkpoints/step-000000010.safetensors", "last.safetensors",
                                      "pictures/step-10.png", "tensorboard/events.1"}));
  EXPECT_EQ(folder_.Artifacts()[0].size_bytes(), 4);
  EXPECT_GT(folder_.Artifacts()[0].update_time().seconds(), 0);
}

TEST_F(JobFolderTest, OpensOnlyWhatItLists) {
  Write("checkpoints/one", "1234");
  Write("task.textproto", "paths of the server");
  std::ofstream(data_ + "/secret") << "outside";
  fs::create_symlink(data_ + "/secret", folder_.path() + "/link");
  fs::create_directory_symlink(data_, folder_.path() + "/folder");
  const auto open = folder_.Open("checkpoints/one");
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(open->about().size_bytes(), 4);
  for (const char* path :
       {"", ".", "..", "../../secret", "checkpoints/../../../secret", "/etc/passwd", "link",
        "folder/secret", "checkpoints", "checkpoints/", "checkpoints//one", "./checkpoints/one",
        "task.textproto", "none", "a/b/c/d/e/f/g/h/i/j/k/l/m"}) {
    EXPECT_EQ(ReasonOf(folder_.Open(path).status()), "ARTIFACT_NOT_FOUND") << path;
  }
  EXPECT_FALSE(folder_.Open(std::string("checkpoints/one\0x", 17)).ok());
}

TEST_F(JobFolderTest, TheLogsTailNamesNoFolderOfTheServer) {
  EXPECT_EQ(folder_.LogTail(), "");
  std::string text(5000, 'x');
  text += "\nfirst\n\ncannot read " + folder_.path() + "/checkpoints/one\n\xff\x01 " + data_ +
          "/blobs/ab\n";
  Write("log.txt", text);
  EXPECT_EQ(folder_.LogTail(), "first\ncannot read checkpoints/one\n?? blobs/ab");
}

TEST_F(JobFolderTest, ARemovedFolderIsGoneWithAllInIt) {
  Write("checkpoints/one", "1234");
  folder_.Remove(data_ + "/scratch");
  EXPECT_FALSE(fs::exists(folder_.path()));
  EXPECT_FALSE(fs::exists(data_ + "/scratch"));
}

TEST_F(JobFolderTest, FoldersThatNoRecordNamesAreSetAsideUnlessTheirProcessRuns) {
  for (const char* id : {"known", "orphan", "alive"}) {
    fs::create_directories(data_ + "/jobs/" + id);
    std::ofstream(data_ + "/jobs/" + id + "/last.safetensors") << "weights";
  }
  const Holder holder(data_ + "/jobs/alive");
  EXPECT_EQ(SetJobsAside(data_, {"known", "a"}), 1);
  EXPECT_TRUE(fs::exists(data_ + "/jobs/known"));
  EXPECT_TRUE(fs::exists(data_ + "/jobs/alive"));
  EXPECT_FALSE(fs::exists(data_ + "/jobs/orphan"));
  EXPECT_TRUE(fs::exists(data_ + "/unreferenced_jobs/orphan/last.safetensors"));
}

}  // namespace
}  // namespace gvsl

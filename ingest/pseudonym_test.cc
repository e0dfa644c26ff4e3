#include "ingest/pseudonym.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "imaging/testing.h"

namespace gvsl {
namespace {

TEST(PseudonymsTest, SameIdentifierIsTheSamePseudonymUnderOneKeyAlone) {
  const TemporaryFolder folder;
  const auto one = Pseudonyms::FromKeyFile(folder / "new/one.key");
  const auto again = Pseudonyms::FromKeyFile(folder / "new/one.key");
  const auto other = Pseudonyms::FromKeyFile(folder / "other.key");
  ASSERT_TRUE(one.ok() && again.ok() && other.ok()) << one.status();
  const std::string pseudonym = one->Of("patient", "P1");
  EXPECT_EQ(pseudonym.size(), 16u);
  EXPECT_EQ(pseudonym.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(again->Of("patient", "P1"), pseudonym);
  EXPECT_NE(other->Of("patient", "P1"), pseudonym);
  EXPECT_NE(one->Of("patient", "P2"), pseudonym);
  EXPECT_NE(one->Of("study", "P1"), pseudonym);
}

// RFC 4231's way of testing: a known key and message. The digest is Python's
// hmac.new(bytes(range(32)), b"patient\0P1", "sha256").hexdigest()[:16].
TEST(PseudonymsTest, IsHmacSha256OfKindAndIdentifier) {
  const TemporaryFolder folder;
  const std::string path = folder / "key";
  std::ofstream(path) << "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  const auto pseudonyms = Pseudonyms::FromKeyFile(path);
  ASSERT_TRUE(pseudonyms.ok()) << pseudonyms.status();
  EXPECT_EQ(pseudonyms->Of("patient", "P1"), "8f3842b845238960");
}

TEST(PseudonymsTest, KeyThatOthersMayReadOrThatIsNoneIsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "key";
  ASSERT_TRUE(Pseudonyms::FromKeyFile(path).ok());
  struct stat about = {};
  ASSERT_EQ(stat(path.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  EXPECT_EQ(Pseudonyms::FromKeyFile(path).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  for (const std::string& text :
       {std::string(), std::string("abc"), std::string(64, 'x'), std::string(200, 'a')}) {
    std::ofstream(path, std::ios::trunc) << text;
    EXPECT_EQ(Pseudonyms::FromKeyFile(path).status().code(), absl::StatusCode::kFailedPrecondition)
        << text;
  }
}

}  // namespace
}  // namespace gvsl

#include "server/names.h"

#include <gtest/gtest.h>

#include <set>

namespace gvsl {
namespace {

TEST(NewId, IsAnIdAndNeverTheSame) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = NewId();
    EXPECT_EQ(id.size(), 32u);
    EXPECT_TRUE(IdOf("volumes", "volumes/" + id, "name").ok()) << id;
    ids.insert(id);
  }
  EXPECT_EQ(ids.size(), 1000u);
}

TEST(IdOf, GivesTheIdOfANameOfTheCollection) {
  EXPECT_EQ(*IdOf("volumes", "volumes/Az09_-", "name"), "Az09_-");
  EXPECT_EQ(*IdOf("models", "models/default", "name"), "default");
  EXPECT_EQ(IdOf("uploads", "uploads/" + std::string(64, 'x'), "name")->size(), 64u);
}

TEST(IdOf, RefusesEveryOtherNameAndNamesTheField) {
  for (const std::string& name :
       {std::string(), std::string("volumes"), std::string("volumes/"), std::string("models/a"),
        std::string("volumes/a/b"), std::string("volumes/../secret"), std::string("volumes/a b"),
        std::string("volumes/\xC3\xA9"), std::string("volumes/a\0b", 11),
        "volumes/" + std::string(65, 'x')}) {
    const auto id = IdOf("volumes", name, "volumes[3]");
    EXPECT_EQ(id.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(id.status().message().substr(0, 12), "volumes[3]: ") << name;
  }
}

TEST(IdOf, DoesNotRepeatALongName) {
  EXPECT_LT(IdOf("volumes", "volumes/" + std::string(10000, 'x'), "name").status().message().size(),
            200u);
}

TEST(CheckText, TakesUtf8UpToItsLimitAndNoControlCharacter) {
  EXPECT_TRUE(CheckText("", 4, "f").ok());
  EXPECT_TRUE(CheckText("\xC3\xA9\xC3\xA9", 4, "f").ok());
  EXPECT_FALSE(CheckText("12345", 4, "f").ok());
  for (char c : {'\n', '\t', '\0', '\x1b', '\x7f'}) {
    EXPECT_FALSE(CheckText(std::string(1, c), 4, "f").ok()) << static_cast<int>(c);
  }
}

}  // namespace
}  // namespace gvsl

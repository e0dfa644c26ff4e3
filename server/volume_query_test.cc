#include "server/volume_query.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST(VolumeFilter, IsNoConditionWhenEmpty) {
  for (const char* filter : {"", "   "}) {
    const auto condition = ParseVolumeFilter(filter);
    ASSERT_TRUE(condition.ok()) << condition.status();
    EXPECT_EQ(condition->sql, "1 = 1");
    EXPECT_TRUE(condition->values.empty());
  }
}

TEST(VolumeFilter, TakesQuotedAndBareValuesWithAnySpace) {
  for (const char* filter : {"modality = \"CT\"", "modality=\"CT\"", "  modality =CT  "}) {
    const auto condition = ParseVolumeFilter(filter);
    ASSERT_TRUE(condition.ok()) << condition.status();
    EXPECT_EQ(condition->sql, "modality = :p0");
    ASSERT_EQ(condition->values.size(), 1u);
    EXPECT_EQ(condition->values[0].text, "CT");
  }
}

TEST(VolumeFilter, JoinsComparisonsByAnd) {
  const auto condition = ParseVolumeFilter(
      "kind != LABELS AND tags:\"trial 7\" AND create_time >= \"2026-11-24T12:00:00.000001Z\"");
  ASSERT_TRUE(condition.ok()) << condition.status();
  EXPECT_EQ(condition->sql,
            "kind <> :p0 AND id IN (SELECT volume_id FROM volume_tags WHERE tag = :p1) AND "
            "create_us >= :p2");
  EXPECT_EQ(condition->values[1].text, "trial 7");
  EXPECT_TRUE(condition->values[2].is_number);
  EXPECT_EQ(condition->values[2].number, 1795521600000001);
}

TEST(VolumeFilter, ReadsEscapesInsideQuotes) {
  const auto condition = ParseVolumeFilter(R"(display_name = "a \"b\" \\ c")");
  ASSERT_TRUE(condition.ok()) << condition.status();
  EXPECT_EQ(condition->values[0].text, R"(a "b" \ c)");
}

TEST(VolumeFilter, PutsNothingOfTheUsersTextIntoSql) {
  const auto condition = ParseVolumeFilter(R"(display_name = "'; DROP TABLE volumes; --")");
  ASSERT_TRUE(condition.ok()) << condition.status();
  EXPECT_EQ(condition->sql, "display_name = :p0");
}

TEST(VolumeFilter, SaysWhatIsWrongAtWhichCharacter) {
  const struct {
    const char* filter;
    int character;
    const char* what;
  } cases[] = {
      {"colour = red", 1, "\"colour\" cannot be filtered by"},
      {"modality = CT AND colour = red", 19, "\"colour\" cannot be filtered by"},
      {"modality ~ CT", 10, "expected one of"},
      {"modality =", 11, "expected a value"},
      {"modality = \"CT", 12, "a quote is not closed"},
      {"modality = CT OR kind = IMAGE", 15, "expected AND"},
      {"modality = CT AND", 18, "expected a field"},
      {"modality < CT", 10, "takes = and != alone"},
      {"tags = \"a\"", 6, "tags takes : alone"},
      {"kind = PICTURE", 8, "IMAGE or LABELS"},
      {"create_time = \"2026-11-24T12:00:00Z\"", 13, "takes < <= > >= alone"},
      {"create_time > \"yesterday\"", 15, "needs a time"},
      {"(modality = CT)", 1, "expected a field"},
  };
  for (const auto& wrong : cases) {
    const auto condition = ParseVolumeFilter(wrong.filter);
    EXPECT_EQ(condition.status().code(), absl::StatusCode::kInvalidArgument) << wrong.filter;
    const std::string message = MessageOf(condition.status());
    EXPECT_EQ(message.rfind(absl::StrCat("filter: character ", wrong.character, ": "), 0), 0u)
        << wrong.filter << " gave " << message;
    EXPECT_NE(message.find(wrong.what), std::string::npos) << message;
  }
}

TEST(VolumeFilter, HasALimit) {
  const auto condition = ParseVolumeFilter("display_name = \"" + std::string(5000, 'x') + "\"");
  EXPECT_EQ(condition.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_LT(condition.status().message().size(), 200u);
}

TEST(VolumeOrder, TakesTheFourOrdersAndNoOther) {
  for (const char* newest : {"", "create_time desc"}) {
    EXPECT_EQ(ParseVolumeOrder(newest)->column, "create_us");
    EXPECT_TRUE(ParseVolumeOrder(newest)->descending);
  }
  EXPECT_FALSE(ParseVolumeOrder("create_time")->descending);
  EXPECT_EQ(ParseVolumeOrder("display_name")->column, "display_name");
  EXPECT_TRUE(ParseVolumeOrder("display_name desc")->descending);
  for (const char* wrong : {"modality", "create_time asc, id", "id; DROP TABLE volumes"}) {
    const auto order = ParseVolumeOrder(wrong);
    EXPECT_EQ(order.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(MessageOf(order.status()).rfind("order_by: ", 0), 0u);
  }
}

TEST(PageToken, ComesBackForItsOwnQueryAlone) {
  const PageKey key = {"a name,\twith = signs", "3f2a"};
  const std::string token = MakePageToken("query one", key);
  const auto back = ReadPageToken("query one", token);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->key, key.key);
  EXPECT_EQ(back->id, key.id);
  EXPECT_EQ(ReadPageToken("query two", token).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PageToken, RefusesWhatIsNoTokenOfOurs) {
  for (const std::string& token :
       {std::string("x"), std::string("!!!!"), std::string(10000, 'A')}) {
    const auto key = ReadPageToken("query", token);
    EXPECT_EQ(key.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(MessageOf(key.status()).rfind("page_token: ", 0), 0u);
  }
}

TEST(PageSize, IsOneHundredUnlessAskedForAndOneThousandAtMost) {
  EXPECT_EQ(*PageSize(0), 100);
  EXPECT_EQ(*PageSize(1), 1);
  EXPECT_EQ(*PageSize(1000000), 1000);
  EXPECT_EQ(PageSize(-1).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gvsl

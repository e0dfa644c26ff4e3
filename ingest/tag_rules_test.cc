#include "ingest/tag_rules.h"

#include <gtest/gtest.h>

#include <fstream>

#include "imaging/testing.h"

namespace gvsl {
namespace {

DicomInstance HeadMr() {
  DicomInstance instance;
  instance.modality = "MR";
  instance.body_part = "HEAD";
  instance.series_description = "T1 MPRAGE sag";
  instance.source_ae_title = "MR_WARD3";
  return instance;
}

TEST(TagRulesTest, RuleFitsWhereAllThatItNamesFits) {
  const std::vector<TagRule> rules = {
      {"all", "", "", "", ""},      {"mr", "", "MR", "", ""},
      {"t1", "", "MR", "", "*t1*"}, {"ward", "mr_ward?", "", "", ""},
      {"ct", "", "CT", "", "*t1*"}, {"neck", "", "MR", "NECK", ""},
      {"whole", "", "", "", "T1"},  {"mr", "", "", "head", ""},
  };
  EXPECT_EQ(TagsByRules(rules, HeadMr()), (std::vector<std::string>{"all", "mr", "t1", "ward"}));
}

TEST(TagRulesTest, FileIsReadFieldByField) {
  TemporaryFolder folder;
  std::ofstream(folder / "rules.json") << R"([{"tag": "brain", "modality": "MR", "bodyPart": "HEAD",
                                               "description": "*T1*", "aeTitle": "MR*"}])";
  const auto rules = ReadTagRules(folder / "rules.json");
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_EQ(TagsByRules(*rules, HeadMr()), std::vector<std::string>{"brain"});
}

TEST(TagRulesTest, WrongFilesAreToldByRule) {
  TemporaryFolder folder;
  const std::pair<const char*, const char*> cases[] = {
      {"{}", "JSON list"},
      {"[3]", "rule 1 is no object"},
      {R"([{"tag": "a"}, {"tag": ""}])", "rule 2 has no tag"},
      {R"([{"tag": "a", "modality": 3}])", "has a modality that is no text"},
      {R"([{"tag": "a", "bodypart": "HEAD"}])", "unknown field bodypart"},
  };
  for (const auto& [text, told] : cases) {
    std::ofstream(folder / "rules.json") << text;
    const absl::Status status = ReadTagRules(folder / "rules.json").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(Contains(status, told)) << status;
  }
  EXPECT_FALSE(ReadTagRules(folder / "absent.json").ok());
}

}  // namespace
}  // namespace gvsl

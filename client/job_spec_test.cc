#include "client/job_spec.h"

#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "imaging/testing.h"

namespace gvsl {
namespace {

std::string Refusal(const std::string& text) {
  const auto spec = ParseJobSpec(text, "job.textproto");
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(spec.status().message());
}

TEST(JobSpec, IsReadWithItsComments) {
  const auto spec = ParseJobSpec(
      "# Ours.\ndata { filter: 'modality = \"MR\"' crop: 64 }  # half\n"
      "method { z_matching: false }\noptimization { steps: 10, schedule: COSINE }\n",
      "job.textproto");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->data().filter(), "modality = \"MR\"");
  EXPECT_EQ(spec->data().crop(), 64);
  EXPECT_TRUE(spec->method().has_z_matching());
  EXPECT_FALSE(spec->method().z_matching());
  EXPECT_EQ(spec->optimization().schedule(), v1::PretrainingSpec::Optimization::COSINE);
}

TEST(JobSpec, AMistakeIsToldWithFileLineAndField) {
  struct {
    const char *text, *place, *words;
  } cases[] = {
      {"data { crop: 64 }\noptimization {\n  stepz: 10\n}\n",
       "line 3: optimization.stepz: ", "no field named \"stepz\""},
      {"optimization {\n  steps: \"ten\"\n}\n", "line 2: optimization.steps: ", "Expected integer"},
      {"data { crop: 99999999999 }", "line 1: data.crop: ", "out of range"},
      {"# {\noptimization {\n  # 'steps'\n  schedule: FAST\n  seed: 3\n}\n",
       "line 4: optimization.schedule: ", "FAST"},
      {"network { card { spacing_mm: [1, 1, oops] } }",
       "line 1: network.card.spacing_mm: ", "oops"},
      {"data { crop: 64 crop: 32 }", "line 1: data.crop: ", "specified multiple times"},
      {"method {\n  fundament: maybe\n  affine_head: true\n}",
       "line 2: method.fundament: ", "maybe"},
      {"optimisation { steps: 3 }", "line 1: optimisation: ", "no field named"},
      {"data { crop: 64 }\n\n= 3", "line 3: ", "Expected"},
      {"data { crop: 64\n", "line 2: ", "Expected"},
      {"data { filter: 'never closed }\n", "line 1: data.filter: ", ""},
  };
  for (const auto& c : cases) {
    const std::string message = Refusal(c.text);
    EXPECT_EQ(message.rfind(std::string("job.textproto: ") + c.place, 0), 0u) << message;
    EXPECT_TRUE(absl::StrContains(message, c.words)) << message;
  }
}

TEST(JobSpec, WhatIsNoTextFormatIsRefusedInAShortMessage) {
  EXPECT_LT(Refusal(std::string(100000, 'x')).size(), 1000u);
  EXPECT_LT(Refusal(std::string(100000, '{')).size(), 1000u);
  EXPECT_LT(Refusal("{\"data\": {\"crop\": 64}}").size(), 1000u);
  Refusal(std::string("\0\1\2", 3));
}

TEST(JobSpec, AFileThatCannotBeReadIsNamed) {
  const TemporaryFolder folder;
  for (const std::string& path : {folder / "absent.textproto", folder.path()}) {
    const auto spec = ReadJobSpec(path);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kNotFound);
    EXPECT_TRUE(Contains(spec.status(), path));
  }
}

TEST(JobSpec, EveryExampleIsReadAndSaysWhichVolumes) {
  int examples = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(GVSL_SOURCE_DIR) + "/examples/jobs")) {
    if (entry.path().extension() != ".textproto") continue;
    ++examples;
    const auto spec = ReadJobSpec(entry.path().string());
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_TRUE(spec->data().volumes_size() > 1 || !spec->data().filter().empty()) << entry.path();
  }
  EXPECT_GE(examples, 5);
}

// The spec that assignments make of one.
v1::PretrainingSpec Set(std::initializer_list<const char*> assignments,
                        v1::PretrainingSpec spec = {}) {
  for (const char* assignment : assignments) {
    const absl::Status status = SetJobField(assignment, &spec);
    EXPECT_TRUE(status.ok()) << status;
  }
  return spec;
}

TEST(SetJobField, SetsAFieldOfEveryKind) {
  const auto spec = Set({"optimization.steps=100", "optimization.learning_rate=2.5e-4",
                         "optimization.schedule=cosine", "method.z_matching=false",
                         "data.filter=modality = \"CT\" AND tags:\"a,b\"", "network.size=tiny",
                         "optimization.seed=18446744073709551615", "network.card.ct.shift=-1024",
                         "network.card.ct.method=WINDOW"});
  EXPECT_EQ(spec.optimization().steps(), 100);
  EXPECT_EQ(spec.optimization().learning_rate(), 2.5e-4);
  EXPECT_EQ(spec.optimization().schedule(), v1::PretrainingSpec::Optimization::COSINE);
  EXPECT_TRUE(spec.method().has_z_matching());
  EXPECT_FALSE(spec.method().z_matching());
  EXPECT_EQ(spec.data().filter(), "modality = \"CT\" AND tags:\"a,b\"");
  EXPECT_EQ(spec.network().size(), "tiny");
  EXPECT_EQ(spec.optimization().seed(), 18446744073709551615u);
  EXPECT_EQ(spec.network().card().ct().shift(), -1024);
  EXPECT_EQ(spec.network().card().ct().method(), v1::ModelCard::Intensity::WINDOW);
}

TEST(SetJobField, ReplacesAllValuesOfARepeatedField) {
  auto spec = Set({"data.volumes=volumes/a,volumes/b", "network.card.spacing_mm=3, 3,2.5"});
  EXPECT_EQ(spec.data().volumes_size(), 2);
  EXPECT_EQ(spec.data().volumes(1), "volumes/b");
  EXPECT_EQ(spec.network().card().spacing_mm(2), 2.5);
  spec = Set({"data.volumes=volumes/c"}, spec);
  EXPECT_EQ(spec.data().volumes_size(), 1);
}

TEST(SetJobField, OverridesWhatTheFileSaysAndTakesItAwayWithNothing) {
  v1::PretrainingSpec spec;
  spec.mutable_optimization()->set_steps(5);
  spec.mutable_method()->set_fundament(false);
  spec.mutable_data()->add_volumes("volumes/a");
  spec = Set({"optimization.steps=7", "method.fundament=", "data.volumes="}, spec);
  EXPECT_EQ(spec.optimization().steps(), 7);
  EXPECT_FALSE(spec.method().has_fundament());
  EXPECT_EQ(spec.data().volumes_size(), 0);
}

TEST(SetJobField, RefusesWhatDoesNotFitAndLeavesTheSpecAsItWas) {
  struct {
    const char *assignment, *words;
  } cases[] = {
      {"optimization.steps", "FIELD=VALUE"},
      {"=3", "FIELD=VALUE"},
      {"optimization.stepz=3", "optimization.stepz: there is no \"stepz\"; here are: steps, batch"},
      {"optimization..steps=3", "there is no \"\""},
      {"optimization=3", "is a group; name one of its fields: steps, batch_size"},
      {"optimization.steps.more=3", "steps has no fields"},
      {"optimization.steps=many", "\"many\" is not a whole number"},
      {"optimization.steps=1e3", "is not a whole number"},
      {"optimization.steps=1 2", "is not a whole number"},
      {"data.crop=99999999999", "range"},
      {"optimization.seed=-1", "is not a whole number"},
      {"optimization.learning_rate=fast", "\"fast\" is not a number"},
      {"method.z_matching=perhaps", "is not true or false"},
      {"optimization.schedule=FAST", "\"FAST\" is none of CONSTANT, COSINE, POLYNOMIAL"},
      {"network.card.spacing_mm=1,x,1", "\"x\" is not a number"},
  };
  const auto before = Set({"optimization.steps=7", "network.card.spacing_mm=1,2,3"});
  for (const auto& c : cases) {
    auto spec = before;
    const absl::Status status = SetJobField(c.assignment, &spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.assignment;
    EXPECT_TRUE(absl::StrContains(status.message(), c.words)) << status;
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spec, before)) << c.assignment;
  }
}

}  // namespace
}  // namespace gvsl

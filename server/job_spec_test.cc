#include "server/job_spec.h"

#include <gtest/gtest.h>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "trainer/card_conversion.h"

namespace gvsl {
namespace {

using Spec = v1::PretrainingSpec;

// The fields that a status tells, without what is wrong with them.
std::vector<std::string> FieldsOf(const absl::Status& status) {
  std::vector<std::string> fields;
  if (status.ok()) return fields;
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  for (const auto& line : absl::StrSplit(status.message(), '\n'))
    fields.emplace_back(line.substr(0, line.find(": ")));
  return fields;
}

class JobSpecTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(folder_);
    database_ = *Database::Open(folder_ + "/metadata.sqlite");
    metadata_ = std::make_unique<MetadataStore>(*database_);
    for (const char* id : {"a", "b", "c", "d"}) AddVolume(id, v1::Volume::IMAGE, id);
    AddVolume("labels", v1::Volume::LABELS, "labels");
    job_.mutable_spec()->mutable_data()->add_volumes("volumes/a");
    job_.mutable_spec()->mutable_data()->add_volumes("volumes/b");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void AddVolume(const std::string& id, v1::Volume::Kind kind, const std::string& content) {
    StoredVolume stored;
    stored.volume.set_name("volumes/" + id);
    stored.volume.set_display_name(id);
    stored.volume.set_kind(kind);
    stored.volume.set_modality("CT");
    stored.volume.set_content_sha256(content);
    ASSERT_TRUE(metadata_->AddVolume(stored, {}).ok());
  }
  std::string AddModel(const std::array<int64_t, 5>& widths, int64_t crop) {
    ModelCard card;
    card.size = SizeOf(widths);
    card.widths = widths;
    card.crop = crop;
    StoredModel stored;
    stored.model.set_name(absl::StrCat("models/m", crop));
    *stored.model.mutable_card() = ToProto(card);
    EXPECT_TRUE(metadata_->AddModel(stored, {}).ok());
    return stored.model.name();
  }
  absl::StatusOr<ResolvedJob> Resolve(int cuda_devices = 0) {
    return ResolveJob(job_, *metadata_, cuda_devices);
  }
  std::vector<std::string> Wrong() { return FieldsOf(Resolve().status()); }
  Spec& spec() { return *job_.mutable_spec(); }
  Spec::Data& data() { return *spec().mutable_data(); }

  using Fields = std::vector<std::string>;
  const std::string folder_ = testing::TempDir() + "/job_spec_test." + std::to_string(getpid());
  std::unique_ptr<Database> database_;
  std::unique_ptr<MetadataStore> metadata_;
  v1::Job job_;
};

std::vector<std::string> Names(const std::vector<v1::Volume>& volumes) {
  std::vector<std::string> names;
  for (const v1::Volume& volume : volumes) names.push_back(volume.name());
  return names;
}

TEST_F(JobSpecTest, FillsInEveryDefaultThatTheContractNames) {
  const auto resolved = Resolve();
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  const Spec& spec = resolved->spec;
  EXPECT_EQ(spec.data().crop(), 128);
  EXPECT_EQ(spec.network().size(), "base");
  EXPECT_EQ(spec.network().card().geometry(), "corrected");
  EXPECT_EQ(spec.network().card().crop(), 128);
  EXPECT_EQ(spec.network().card().widths(4), 512);
  EXPECT_EQ(spec.network().card().ct().high(), 2048);
  EXPECT_EQ(spec.method().similarity_weight(), 1);
  EXPECT_EQ(spec.method().ncc_window(), 9);
  EXPECT_TRUE(spec.method().z_matching() && spec.method().fundament());
  EXPECT_TRUE(spec.method().affine_head());
  EXPECT_EQ(spec.augmentation().rotation_deg(), 20);
  EXPECT_EQ(spec.augmentation().shuffling_probability(), 0.5);
  EXPECT_EQ(spec.optimization().steps(), 200000);
  EXPECT_EQ(spec.optimization().batch_size(), 2);
  EXPECT_EQ(spec.optimization().learning_rate(), 1e-4);
  EXPECT_EQ(spec.optimization().optimizer(), Spec::Optimization::ADAM);
  EXPECT_EQ(spec.optimization().weight_decay(), 0);
  EXPECT_EQ(spec.optimization().schedule(), Spec::Optimization::CONSTANT);
  EXPECT_EQ(spec.optimization().precision(), Spec::Optimization::SINGLE);
  EXPECT_EQ(spec.upkeep().report_every(), 10);
  EXPECT_EQ(spec.upkeep().validate_every(), 1000);
  EXPECT_EQ(spec.upkeep().checkpoint_every(), 1000);
  EXPECT_EQ(spec.upkeep().picture_every(), 1000);
  EXPECT_EQ(spec.upkeep().keep_checkpoints(), 3);
}

TEST_F(JobSpecTest, DefaultsFollowWhatTheyDependOn) {
  spec().mutable_optimization()->set_steps(100);
  spec().mutable_optimization()->set_optimizer(Spec::Optimization::ADAMW);
  const auto resolved = Resolve(/*cuda_devices=*/1);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->spec.upkeep().checkpoint_every(), 5);
  EXPECT_EQ(resolved->spec.optimization().weight_decay(), 0.01);
  EXPECT_EQ(resolved->spec.optimization().precision(), Spec::Optimization::BFLOAT16);
}

TEST_F(JobSpecTest, ASpecThatCameBackIsTakenAsItIs) {
  const auto once = Resolve();
  ASSERT_TRUE(once.ok()) << once.status();
  *job_.mutable_spec() = once->spec;
  const auto twice = Resolve();
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_EQ(twice->spec.SerializeAsString(), once->spec.SerializeAsString());
}

TEST_F(JobSpecTest, ZeroIsAValueWhereItMeansSomething) {
  spec().mutable_method()->set_smoothness_weight(0);
  spec().mutable_augmentation()->set_rotation_deg(0);
  spec().mutable_augmentation()->set_inpainting_probability(0);
  const auto resolved = Resolve();
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->spec.method().smoothness_weight(), 0);
  EXPECT_EQ(resolved->spec.augmentation().rotation_deg(), 0);
  EXPECT_EQ(resolved->spec.augmentation().inpainting_probability(), 0);
}

TEST_F(JobSpecTest, TellsEveryWrongFieldAtOnce) {
  job_.set_display_name(std::string(257, 'x'));
  data().set_crop(40);
  spec().mutable_network()->set_size("enormous");
  spec().mutable_method()->set_ncc_window(8);
  spec().mutable_augmentation()->set_scale(std::numeric_limits<double>::quiet_NaN());
  spec().mutable_optimization()->set_steps(-1);
  spec().mutable_upkeep()->set_early_stopping(3);
  const auto fields = Wrong();
  for (const char* field : {"job.display_name", "job.spec.data.crop", "job.spec.network.size",
                            "job.spec.method.ncc_window", "job.spec.augmentation.scale",
                            "job.spec.optimization.steps", "job.spec.upkeep.early_stopping"}) {
    EXPECT_EQ(std::count(fields.begin(), fields.end(), field), 1) << field;
  }
}

TEST_F(JobSpecTest, RefusesWhatCannotBe) {
  const struct {
    const char* field;
    void (*change)(Spec&);
  } cases[] = {
      {"data.crop", [](Spec& s) { s.mutable_data()->set_crop(16); }},
      {"data.crop", [](Spec& s) { s.mutable_data()->set_crop(272); }},
      {"data.filter", [](Spec& s) { s.mutable_data()->set_filter("colour = red"); }},
      {"network.card.geometry",
       [](Spec& s) { s.mutable_network()->mutable_card()->set_geometry("official"); }},
      {"network.card",
       [](Spec& s) { s.mutable_network()->mutable_card()->set_orientation("XYZ"); }},
      {"network.card.widths", [](Spec& s) { s.mutable_network()->mutable_card()->add_widths(16); }},
      {"network.initial_model", [](Spec& s) { s.mutable_network()->set_initial_model("m"); }},
      {"network.initial_model",
       [](Spec& s) { s.mutable_network()->set_initial_model("models/none"); }},
      {"method.fundament",
       [](Spec& s) {
         s.mutable_method()->set_fundament(false);
         s.mutable_method()->set_z_matching(false);
       }},
      {"method.similarity_weight",
       [](Spec& s) {
         s.mutable_method()->set_similarity_weight(0);
         s.mutable_method()->set_restoration_weight(0);
       }},
      {"augmentation.spatial_probability",
       [](Spec& s) { s.mutable_augmentation()->set_spatial_probability(1.5); }},
      {"optimization.batch_size",
       [](Spec& s) {
         s.mutable_optimization()->set_batch_size(6);
         s.mutable_optimization()->set_accumulation(2);
         s.mutable_optimization()->set_world_size(2);
       }},
      {"optimization.learning_rate",
       [](Spec& s) { s.mutable_optimization()->set_learning_rate(0); }},
      {"optimization.warmup_steps",
       [](Spec& s) { s.mutable_optimization()->set_warmup_steps(200001); }},
      {"optimization.ema_decay", [](Spec& s) { s.mutable_optimization()->set_ema_decay(1); }},
      {"optimization.schedule",
       [](Spec& s) {
         s.mutable_optimization()->set_schedule(static_cast<Spec::Optimization::Schedule>(9));
       }},
      {"optimization.precision",
       [](Spec& s) { s.mutable_optimization()->set_precision(Spec::Optimization::BFLOAT16); }},
      {"upkeep.picture_every", [](Spec& s) { s.mutable_upkeep()->set_picture_every(1); }},
      {"upkeep.report_every", [](Spec& s) { s.mutable_upkeep()->set_report_every(-1); }},
  };
  const v1::Job good = job_;
  for (const auto& wrong : cases) {
    job_ = good;
    wrong.change(spec());
    EXPECT_EQ(Wrong(), Fields{absl::StrCat("job.spec.", wrong.field)}) << wrong.field;
  }
}

TEST_F(JobSpecTest, ResolvesNamesAndFiltersToImages) {
  data().clear_volumes();
  data().set_filter("modality = CT");
  data().add_validation_volumes("volumes/d");
  data().set_validation_filter("display_name = c");
  const auto resolved = Resolve();
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  // What is held out is not trained on, and label maps never are.
  EXPECT_EQ(Names(resolved->data.training), (Fields{"volumes/a", "volumes/b"}));
  EXPECT_EQ(Names(resolved->data.validation), (Fields{"volumes/c", "volumes/d"}));
}

TEST_F(JobSpecTest, RefusesVolumesThatAreNoneOrNotForThis) {
  data().add_volumes("volumes/none");
  data().add_volumes("pictures/a");
  data().add_volumes("volumes/labels");
  EXPECT_EQ(Wrong(), (Fields{"job.spec.data.volumes[2]", "job.spec.data.volumes[3]",
                             "job.spec.data.volumes[4]"}));
}

TEST_F(JobSpecTest, ThousandsOfWrongNamesAreToldInAFewLines) {
  for (int i = 0; i < 3000; ++i) data().add_volumes(absl::StrCat("volumes/none", i));
  EXPECT_EQ(Wrong().size(), 6u);
}

TEST_F(JobSpecTest, NeedsAPairToTrainOnAndAPairOrNoneToValidate) {
  data().clear_volumes();
  EXPECT_EQ(Wrong(), Fields{"job.spec.data.volumes"});
  data().add_volumes("volumes/a");
  data().add_volumes("volumes/a");
  EXPECT_EQ(Wrong(), Fields{"job.spec.data.volumes"});
  data().add_volumes("volumes/b");
  data().add_validation_volumes("volumes/c");
  EXPECT_EQ(Wrong(), Fields{"job.spec.data.validation_volumes"});
  data().add_validation_volumes("volumes/d");
  EXPECT_EQ(Wrong(), Fields{});
}

TEST_F(JobSpecTest, ANamedVolumeIsNotForBothAlsoNotUnderAnotherName) {
  AddVolume("copy", v1::Volume::IMAGE, "a");
  for (const char* name : {"volumes/c", "volumes/d"}) data().add_validation_volumes(name);
  data().add_volumes("volumes/d");
  EXPECT_EQ(Wrong(), Fields{"job.spec.data.volumes[2]"});
  data().mutable_volumes()->RemoveLast();
  data().add_validation_volumes("volumes/copy");
  EXPECT_EQ(Wrong(), Fields{"job.spec.data.volumes[0]"});
}

TEST_F(JobSpecTest, OneContentUnderSeveralNamesIsOneVolume) {
  AddVolume("copy", v1::Volume::IMAGE, "a");
  data().add_volumes("volumes/copy");
  const auto resolved = Resolve();
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(Names(resolved->data.training), (Fields{"volumes/a", "volumes/b"}));
  data().set_volumes(1, "volumes/copy");
  data().mutable_volumes()->RemoveLast();
  EXPECT_EQ(Wrong(), Fields{"job.spec.data.volumes"}) << "a pair of one image";
  data().set_volumes(1, "volumes/b");
  AddVolume("d_again", v1::Volume::IMAGE, "d");
  data().add_validation_volumes("volumes/d");
  data().add_validation_volumes("volumes/d_again");
  EXPECT_EQ(Wrong(), Fields{"job.spec.data.validation_volumes"});
}

TEST_F(JobSpecTest, TakesNoMoreVolumesThanAProcessMayMap) {
  data().clear_volumes();
  data().set_filter("modality = MR");
  soci::session sql(soci::sqlite3, "dbname=" + folder_ + "/metadata.sqlite");
  // Created one microsecond after another, which pages go by.
  const auto add = [&](int from, int to) {
    sql << "WITH RECURSIVE n (i) AS (SELECT :f UNION ALL SELECT i + 1 FROM n WHERE i < :t) "
           "INSERT INTO volumes (id, display_name, kind, modality, content_sha256, blob_sha256, "
           "create_us, record) SELECT 'm' || i, '', 'IMAGE', 'MR', i, i, i, '{\"name\": "
           "\"volumes/m' || i || '\", \"kind\": \"IMAGE\", \"contentSha256\": \"' || i || "
           "'\", \"createTime\": \"1970-01-01T00:00:00.' || printf('%06d', i) || 'Z\"}' FROM n",
        soci::use(from, "f"), soci::use(to, "t");
  };
  add(1, 59998);
  data().add_validation_volumes("volumes/c");
  data().add_validation_volumes("volumes/d");
  EXPECT_EQ(Wrong(), Fields{});
  add(59999, 59999);
  EXPECT_EQ(Wrong(), Fields{"job.spec.data.filter"});
}

TEST_F(JobSpecTest, SeveralRanksNeedTheCpuOrADeviceEach) {
  spec().mutable_optimization()->set_world_size(2);
  EXPECT_TRUE(Resolve(/*cuda_devices=*/0).ok());
  EXPECT_TRUE(Resolve(/*cuda_devices=*/2).ok());
  EXPECT_EQ(FieldsOf(Resolve(/*cuda_devices=*/1).status()),
            Fields{"job.spec.optimization.world_size"});
}

TEST_F(JobSpecTest, TheDigestIsOfContentsAndRolesNotOfNamesAndOrder) {
  const std::string digest = Resolve()->data.sha256;
  data().mutable_volumes()->SwapElements(0, 1);
  EXPECT_EQ(Resolve()->data.sha256, digest);
  AddVolume("other_name", v1::Volume::IMAGE, "a");
  data().set_volumes(1, "volumes/other_name");
  EXPECT_EQ(Resolve()->data.sha256, digest);
  data().set_volumes(1, "volumes/c");
  EXPECT_NE(Resolve()->data.sha256, digest);
}

TEST_F(JobSpecTest, ANetworkMayHaveWidthsOfItsOwn) {
  for (int width : {16, 16, 32, 64, 128}) {
    spec().mutable_network()->mutable_card()->add_widths(width);
  }
  const auto resolved = Resolve();
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->spec.network().size(), "custom");
  EXPECT_EQ(resolved->card.size, "custom");
  EXPECT_EQ(resolved->card.widths, (std::array<int64_t, 5>{16, 16, 32, 64, 128}));
  spec() = resolved->spec;  // what was completed can be submitted
  EXPECT_TRUE(Resolve().ok());

  v1::ModelCard& card = *spec().mutable_network()->mutable_card();
  spec().mutable_network()->set_size("tiny");
  EXPECT_EQ(Wrong(), Fields{"job.spec.network.card.widths"});
  spec().mutable_network()->clear_size();
  card.set_widths(0, 8);  // those of a size
  EXPECT_EQ(Resolve()->spec.network().size(), "tiny");
  card.set_widths(0, 12);  // no multiple of 8
  EXPECT_EQ(Wrong(), Fields{"job.spec.network.card.widths"});
  spec().mutable_network()->set_size("custom");
  card.clear_widths();
  EXPECT_EQ(Wrong(), Fields{"job.spec.network.card.widths"});
}

TEST_F(JobSpecTest, AnInitialModelBringsItsCardAndItsOwnName) {
  const std::string model = AddModel({16, 8, 8, 8, 8}, 96);
  spec().mutable_network()->set_initial_model("models/default");
  const auto resolved = Resolve();
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->spec.network().initial_model(), model);
  EXPECT_EQ(resolved->initial_model, model);
  EXPECT_FALSE(resolved->spec.network().has_card());
  EXPECT_EQ(resolved->spec.data().crop(), 96);
  EXPECT_EQ(resolved->card.widths[0], 16);
  spec().mutable_network()->set_size("tiny");
  spec().mutable_network()->mutable_card();
  EXPECT_EQ(Wrong(), (Fields{"job.spec.network.size", "job.spec.network.card"}));
}

}  // namespace
}  // namespace gvsl

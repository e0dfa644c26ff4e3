#include "model/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <thread>

#include "imaging/status_reason.h"
#include "model/checkpoint.h"
#include "model/extractor.h"
#include "model/training_volumes.h"

namespace gvsl {
namespace {

// Keeps what it hears, and calls `after_step`.
class Recorder : public TrainingObserver {
 public:
  absl::Status Started(const StartReport& report) override {
    starts.push_back(report);
    return absl::OkStatus();
  }
  absl::Status Step(const StepReport& report) override {
    steps[report.step] = report;
    return after_step ? after_step(report.step) : absl::OkStatus();
  }
  absl::Status Validation(const ValidationReport& report) override {
    validations[report.step] = report;
    return absl::OkStatus();
  }
  absl::Status Checkpoint(const CheckpointReport& report) override {
    checkpoints.push_back(report.step);
    return absl::OkStatus();
  }
  absl::Status Picture(const PictureReport& report) override {
    pictures.push_back(report);
    return absl::OkStatus();
  }
  absl::Status Warning(const std::string& message) override {
    warnings.push_back(message);
    return absl::OkStatus();
  }

  std::function<absl::Status(int64_t)> after_step;
  std::vector<StartReport> starts;
  std::map<int64_t, StepReport> steps;
  std::map<int64_t, ValidationReport> validations;
  std::vector<int64_t> checkpoints;
  std::vector<PictureReport> pictures;
  std::vector<std::string> warnings;
};

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() : folder_("trainer") {
    EXPECT_TRUE(InitializeLibTorch({"cpu", 2}).ok());
    auto sources = MakeTrainingVolumes(folder_, 6, {30, 34, 32});
    setup_.training.assign(sources.begin(), sources.begin() + 4);
    setup_.validation.assign(sources.begin() + 4, sources.end());
    setup_.card.size = "tiny";
    setup_.card.widths = {8, 16, 32, 64, 128};
    setup_.card.crop = setup_.options.crop = 32;
    setup_.cache_folder = folder_ / "cache";
    setup_.folder = folder_ / "run";
    setup_.run_digest = "the run";
    setup_.options.optimization.steps = 6;
    setup_.options.optimization.learning_rate = 1e-3;
    setup_.options.optimization.seed = 1;
    setup_.options.upkeep.report_every = 1;
    setup_.options.upkeep.validate_every = 3;
    setup_.options.upkeep.validation_pairs = 2;
    setup_.options.upkeep.checkpoint_every = 2;
    setup_.options.upkeep.keep_checkpoints = 2;
    setup_.options.upkeep.picture_every = 100;
  }

  absl::StatusOr<TrainingResult> Run(Recorder& recorder) {
    auto trainer = Trainer::Make(setup_, recorder, nullptr);
    if (!trainer.ok()) return trainer.status();
    return (*trainer)->Run();
  }

  TestFolder folder_;
  TrainingSetup setup_;
};

TEST_F(TrainerTest, TrainsAModelThatTheExtractorServes) {
  setup_.provenance = [](int64_t step, const std::optional<LossValues>& losses,
                         const std::optional<ValidationReport>& validation) {
    return "step " + std::to_string(step) + (losses ? " trained" : "") +
           (validation ? " validated" : "");
  };
  Recorder recorder;
  auto result = Run(recorder);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->step, 6);
  EXPECT_EQ(result->model, "best.safetensors");
  EXPECT_EQ(recorder.steps.size(), 6u);
  EXPECT_EQ(recorder.validations.size(), 2u);
  EXPECT_EQ(recorder.checkpoints, (std::vector<int64_t>{2, 4, 6}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(setup_.folder + "/checkpoints"), {}),
            2);
  const StepReport& step = recorder.steps[6];
  EXPECT_NEAR(step.losses.total,
              step.losses.similarity + step.losses.smoothness + step.losses.restoration, 1e-5);
  EXPECT_GT(step.gradient_norm, 0);
  EXPECT_GT(step.memory_bytes, 0);
  ASSERT_EQ(recorder.pictures.size(), 1u);
  EXPECT_EQ(recorder.pictures[0].warped.size(), 32u * 32u);

  auto extractor = Extractor::Load(setup_.folder + "/last.safetensors", {"cpu", 2});
  ASSERT_TRUE(extractor.ok()) << extractor.status();
  EXPECT_EQ((*extractor)->info().card.geometry, Geometry::kCorrected);
  EXPECT_EQ((*extractor)->info().card.provenance, "step 6 trained validated");
}

TEST_F(TrainerTest, LearnsToAlignAndToRestore) {
  setup_.options.optimization.steps = 80;
  setup_.options.optimization.learning_rate = 3e-3;
  setup_.options.upkeep.validate_every = 80;
  setup_.options.augmentation.spatial_probability =
      0;  // as in validation, so that 80 steps are enough
  Recorder recorder;
  ASSERT_TRUE(Run(recorder).ok());
  const ValidationReport& last = recorder.validations[80];
  EXPECT_GT(last.ncc_after, last.ncc_before + 0.02);
  EXPECT_LT(recorder.steps[80].losses.restoration, 0.5 * recorder.steps[1].losses.restoration);
}

TEST_F(TrainerTest, GoesOnAfterAStopExactlyAsIfThereHadBeenNone) {
  setup_.options.optimization.ema_decay = 0.9;
  setup_.options.optimization.schedule = Schedule::kCosine;
  setup_.options.optimization.warmup_steps = 3;
  Recorder straight;
  ASSERT_TRUE(Run(straight).ok());
  const std::string first_folder = setup_.folder;

  setup_.folder = folder_ / "stopped";
  Recorder before;
  {
    Trainer* running = nullptr;
    before.after_step = [&](int64_t step) {
      // As the signal's thread does it, while Run is in the midst of the next step.
      if (step == 3) {
        EXPECT_EQ(*running->Stop(), 3);
      }
      return absl::OkStatus();
    };
    auto trainer = Trainer::Make(setup_, before, nullptr);
    ASSERT_TRUE(trainer.ok()) << trainer.status();
    running = trainer->get();
    EXPECT_EQ((*trainer)->Run().status().code(), absl::StatusCode::kCancelled);
  }
  Recorder after;
  auto result = Run(after);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(after.starts[0].step, 3);
  EXPECT_EQ(after.starts[0].checkpoint, "step-000000003.safetensors");
  EXPECT_EQ(after.steps.size(), 3u);
  for (int64_t step = 4; step <= 6; ++step) {
    EXPECT_EQ(after.steps[step].losses.total, straight.steps[step].losses.total) << step;
    EXPECT_EQ(after.steps[step].gradient_norm, straight.steps[step].gradient_norm) << step;
  }
  // The validation that was due when it was stopped was made up for.
  ASSERT_EQ(after.validations.count(3) + before.validations.count(3), 1u);
  EXPECT_EQ(after.validations[6].losses.total, straight.validations[6].losses.total);
  const auto digest = [](const std::string& folder) {
    return ReadModelInfo(folder + "/last.safetensors")->weights_sha256;
  };
  EXPECT_EQ(digest(setup_.folder), digest(first_folder));
}

TEST_F(TrainerTest, PassesOverADamagedCheckpointWithAWarning) {
  Recorder first;
  first.after_step = [](int64_t step) {
    return step == 5 ? absl::AbortedError("killed") : absl::OkStatus();
  };
  EXPECT_FALSE(Run(first).ok());
  const std::string newest = setup_.folder + "/checkpoints/" + CheckpointName(4);
  ASSERT_TRUE(std::filesystem::exists(newest));
  {
    std::fstream file(newest, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-100, std::ios::end);
    file.put('!');
  }
  Recorder second;
  ASSERT_TRUE(Run(second).ok());
  EXPECT_EQ(second.starts[0].step, 2);
  ASSERT_EQ(second.warnings.size(), 1u);
  EXPECT_NE(second.warnings[0].find(CheckpointName(4)), std::string::npos) << second.warnings[0];
  EXPECT_EQ(second.steps[5].losses.total, first.steps[5].losses.total);
}

TEST_F(TrainerTest, TellsTheStepThatItHasReachedAlsoWhenItFails) {
  Recorder recorder;
  recorder.after_step = [](int64_t step) {
    return step == 5 ? absl::AbortedError("killed") : absl::OkStatus();
  };
  auto trainer = Trainer::Make(setup_, recorder, nullptr);
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  EXPECT_FALSE((*trainer)->Run().ok());
  EXPECT_EQ((*trainer)->step(), 5);
  trainer = Trainer::Make(setup_, recorder, nullptr);
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  EXPECT_EQ((*trainer)->step(), 4) << "its checkpoint's";
}

// What a card tells of its model's losses and validation, to the bit.
std::string Told(int64_t step, const std::optional<LossValues>& losses,
                 const std::optional<ValidationReport>& validation) {
  std::stringstream text;
  text << std::hexfloat << step;
  if (losses) text << " loss " << losses->total << " " << losses->restoration;
  if (validation) text << " at " << validation->step << " ncc " << validation->ncc_after;
  return text.str();
}

TEST_F(TrainerTest, TheModelsCardTellsTheSameAfterAStop) {
  setup_.provenance = Told;
  const auto told = [&] {
    return ReadModelInfo(setup_.folder + "/last.safetensors")->card.provenance;
  };
  Recorder first, second;
  ASSERT_TRUE(Run(first).ok());
  const std::string expected = told();
  EXPECT_EQ(expected, Told(6, first.steps[6].losses, first.validations[6]));
  std::filesystem::remove(setup_.folder + "/last.safetensors");
  // As after a crash between the last checkpoint and the model.
  ASSERT_TRUE(Run(second).ok());
  EXPECT_EQ(second.starts[0].step, 6);
  EXPECT_EQ(told(), expected);
}

TEST_F(TrainerTest, TheLastModelServesWhereTheBestOneIsLost) {
  Recorder recorder;
  ASSERT_EQ(Run(recorder)->model, "best.safetensors");
  std::filesystem::remove(setup_.folder + "/best.safetensors");
  EXPECT_EQ(Run(recorder)->model, "last.safetensors");
}

TEST_F(TrainerTest, RefusesTheCheckpointOfARunWithOtherSettings) {
  Recorder recorder;
  ASSERT_TRUE(Run(recorder).ok());
  setup_.run_digest = "another run";
  EXPECT_EQ(Run(recorder).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(TrainerTest, TakesTheSameStepInSeveralPasses) {
  setup_.options.optimization.batch_size = 4;
  setup_.options.optimization.steps = 2;
  Recorder once, accumulated;
  ASSERT_TRUE(Run(once).ok());
  setup_.folder = folder_ / "accumulated";
  setup_.options.optimization.accumulation = 4;
  ASSERT_TRUE(Run(accumulated).ok());
  // Sums in another order; the first Adam step divides by the gradient's own size, which amplifies.
  EXPECT_NEAR(accumulated.steps[1].losses.total, once.steps[1].losses.total, 1e-5);
  EXPECT_NEAR(accumulated.steps[2].losses.total, once.steps[2].losses.total, 2e-3);
}

TEST_F(TrainerTest, LeavesOutWhatAnAblationLeavesOut) {
  setup_.options.optimization.steps = 1;
  struct Case {
    bool MethodOptions::*off;
    bool similarity, restoration;
  };
  int n = 0;
  for (const Case& c :
       {Case{&MethodOptions::z_matching, false, true}, Case{&MethodOptions::fundament, true, false},
        Case{&MethodOptions::affine_head, true, true}}) {
    setup_.folder = folder_ / ("ablation" + std::to_string(n++));
    setup_.options.method = MethodOptions();
    setup_.options.method.*c.off = false;
    Recorder recorder;
    ASSERT_TRUE(Run(recorder).ok());
    EXPECT_EQ(recorder.steps[1].losses.similarity > 0, c.similarity);
    EXPECT_EQ(recorder.steps[1].losses.restoration > 0, c.restoration);
  }
}

TEST_F(TrainerTest, StopsEarlyWhenValidationNoLongerImproves) {
  setup_.options.optimization.steps = 50;
  setup_.options.optimization.learning_rate = 0;  // so that nothing ever improves
  setup_.options.upkeep.validate_every = 1;
  setup_.options.upkeep.early_stopping = 3;
  Recorder recorder;
  auto result = Run(recorder);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->stopped_early);
  EXPECT_EQ(result->step, 4);
}

TEST_F(TrainerTest, EndsWithAdviceWhenTheLossDiverges) {
  setup_.options.optimization.steps = 50;
  setup_.options.optimization.learning_rate = 1e30;
  Recorder recorder;
  const absl::Status status = Run(recorder).status();
  EXPECT_EQ(ReasonOf(status), "DIVERGED") << status;
  EXPECT_NE(Message(status).find("learning rate"), std::string::npos);
}

TEST_F(TrainerTest, SaysWhatIsWrongWithItsSetup) {
  Recorder recorder;
  TrainingSetup good = setup_;
  setup_.training.resize(1);
  EXPECT_NE(Message(Run(recorder).status()).find("two training volumes"), std::string::npos);
  setup_ = good;
  setup_.options.optimization.batch_size = 3;
  setup_.options.optimization.accumulation = 2;
  EXPECT_NE(Message(Run(recorder).status()).find("batch_size"), std::string::npos);
  setup_ = good;
  setup_.options.method.z_matching = setup_.options.method.fundament = false;
  EXPECT_NE(Message(Run(recorder).status()).find("z_matching"), std::string::npos);
}

}  // namespace
}  // namespace gvsl

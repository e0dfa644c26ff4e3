#include "model/pair_loader.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <set>

#include "model/training_volumes.h"

namespace gvsl {
namespace {

class PairLoaderTest : public testing::Test {
 protected:
  PairLoaderTest() : folder_("pairs") {
    VolumeCache cache(folder_ / "cache", 0);
    for (const auto& source : MakeTrainingVolumes(folder_, 5, {40, 20, 64})) {
      volumes_.push_back(*cache.Get(source, ModelCard()));
    }
    options_.crop = 32;
    options_.seed = 4;
  }
  TestFolder folder_;
  VolumeSet volumes_;
  PairLoaderOptions options_;
};

TEST_F(PairLoaderTest, NeverPairsAVolumeWithItselfAndTakesEachAsAOnceARound) {
  std::multiset<size_t> round;
  std::set<size_t> partners;
  for (int64_t number = 0; number < 500; ++number) {
    const Pair pair = DrawPair(volumes_, options_, number / 2, number % 2);
    EXPECT_NE(pair.a, pair.b);
    round.insert(pair.a);
    partners.insert(pair.b);
    if (number % 5 == 4) {
      EXPECT_EQ(std::set<size_t>(round.begin(), round.end()).size(), 5u);
      round.clear();
    }
  }
  EXPECT_EQ(partners.size(), 5u);
}

TEST_F(PairLoaderTest, CutsBothAtOneRelativePlaceAndCentresWhatIsSmaller) {
  std::set<int64_t> places;
  for (int64_t step = 0; step < 100; ++step) {
    const Pair pair = DrawPair(volumes_, options_, step, 0);
    EXPECT_EQ(pair.a_begin, pair.b_begin) << "the volumes have one size";
    EXPECT_EQ(pair.a_begin[1], -6) << "20 rows in the middle of 32";
    EXPECT_GE(pair.a_begin[0], 0);
    EXPECT_LE(pair.a_begin[0], 32);
    places.insert(pair.a_begin[0]);
  }
  EXPECT_GT(places.size(), 20u);
}

TEST_F(PairLoaderTest, GivesTheSameBatchesHoweverTheyAreReadAndFromWhereverItBegins) {
  options_.margin = 4;
  options_.threads = 1;
  PairLoader one(volumes_, options_);
  std::vector<PairBatch> batches;
  for (int i = 0; i < 6; ++i) batches.push_back(one.Next());
  EXPECT_EQ(batches[0].a.sizes(), (at::IntArrayRef{2, 1, 40, 40, 40}));
  // 40 slices, 20 rows and 64 columns: only the rows need padding, unless the margin leaves it.
  for (const Content& content : {batches[0].a_content[1], batches[0].b_content[0]}) {
    EXPECT_EQ(content.begin[1], 10);
    EXPECT_EQ(content.end[1], 30);
    EXPECT_LE(content.begin[0], 4);
    EXPECT_GE(content.end[0], 36);
  }
  options_.threads = 4;
  options_.first_step = 3;
  PairLoader later(volumes_, options_);
  for (int i = 3; i < 6; ++i) {
    const PairBatch batch = later.Next();
    EXPECT_EQ(batch.step, i);
    EXPECT_TRUE(torch::equal(batch.a, batches[i].a));
    EXPECT_TRUE(torch::equal(batch.b, batches[i].b));
  }
}

TEST_F(PairLoaderTest, ThrowsToItsCallerWhatAThreadOfItThrew) {
  options_.crop = int64_t{1} << 22;  // more voxels than LibTorch can count
  options_.threads = 2;
  PairLoader loader(volumes_, options_);
  EXPECT_THROW(loader.Next(), std::exception);
  EXPECT_THROW(loader.Next(), std::exception);
}

TEST_F(PairLoaderTest, SharesABatchBetweenRanksAndPasses) {
  options_.batch_size = 4;
  options_.pass_size = 4;
  PairLoader whole(volumes_, options_);
  const PairBatch all = whole.Next();
  options_.pass_size = 1;
  options_.passes = 2;
  for (int64_t rank = 0; rank < 2; ++rank) {
    options_.first_sample = 2 * rank;
    PairLoader part(volumes_, options_);
    for (int64_t pass = 0; pass < 2; ++pass) {
      const PairBatch batch = part.Next();
      EXPECT_EQ(batch.first_sample, 2 * rank + pass);
      EXPECT_TRUE(torch::equal(batch.a, all.a.narrow(0, 2 * rank + pass, 1)));
    }
  }
}

}  // namespace
}  // namespace gvsl

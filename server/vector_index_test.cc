#include "server/vector_index.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

constexpr int kDimension = 24;

// Unit vectors around a few directions, as embeddings lie; key i is vector i.
struct Vectors {
  explicit Vectors(int64_t n, uint32_t seed = 1) : count(n) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> centres(16 * kDimension);
    for (float& value : centres) value = normal(random);
    for (int64_t i = 0; i < n; ++i) {
      const size_t centre = random() % 16;
      std::vector<float> vector(kDimension);
      for (int c = 0; c < kDimension; ++c)
        vector[c] = centres[centre * kDimension + c] + 0.5F * normal(random);
      const float length =
          std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0F));
      for (const float value : vector) values.push_back(value / length);
      keys.push_back(i);
    }
  }
  std::vector<float> of(int64_t key) const {
    return {values.begin() + key * kDimension, values.begin() + (key + 1) * kDimension};
  }
  // What an exhaustive search in double precision gives among `among`, nearest first.
  std::vector<int64_t> Nearest(const std::vector<float>& query, int k,
                               const std::vector<int64_t>& among) const {
    std::vector<std::pair<double, int64_t>> all;
    for (const int64_t key : among) {
      double similarity = 0;
      for (int c = 0; c < kDimension; ++c)
        similarity += static_cast<double>(query[c]) * values[key * kDimension + c];
      all.emplace_back(-similarity, key);
    }
    std::sort(all.begin(), all.end());
    std::vector<int64_t> nearest;
    for (size_t i = 0; i < std::min(all.size(), static_cast<size_t>(k)); ++i)
      nearest.push_back(all[i].second);
    return nearest;
  }
  const int64_t count;
  std::vector<int64_t> keys;
  std::vector<float> values;
};

std::vector<int64_t> KeysOf(const absl::StatusOr<std::vector<Neighbour>>& found) {
  EXPECT_TRUE(found.ok()) << found.status();
  std::vector<int64_t> keys;
  if (found.ok()) {
    for (const Neighbour& neighbour : *found) keys.push_back(neighbour.key);
  }
  return keys;
}

// The share of the true nearest that was found.
double Recall(const std::vector<int64_t>& found, const std::vector<int64_t>& truth) {
  const std::set<int64_t> all(found.begin(), found.end());
  return static_cast<double>(std::count_if(truth.begin(), truth.end(),
                                           [&](int64_t key) { return all.count(key) > 0; })) /
         static_cast<double>(truth.size());
}

VectorIndex::Options Graph() {
  VectorIndex::Options options;
  options.exact_up_to = 100;
  return options;
}

class VectorIndexFile : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ =
      absl::StrCat(testing::TempDir(), "/vector_index_test.", getpid(), ".index");
};

TEST(VectorIndex, FewVectorsAreSearchedExactlyAndInOrder) {
  const Vectors vectors(500);
  VectorIndex index("a", kDimension, {});
  ASSERT_TRUE(index.Add(vectors.keys, vectors.values).ok());
  EXPECT_TRUE(index.exact());
  EXPECT_EQ(index.size(), 500);
  for (const int64_t query : {0, 77, 499}) {
    auto found = index.Search(vectors.of(query), 10);
    EXPECT_EQ(KeysOf(found), vectors.Nearest(vectors.of(query), 10, vectors.keys));
    // Float products of 24 values of a unit vector with itself: a few units of the last place.
    EXPECT_NEAR(found->front().similarity, 1, 1e-6);
  }
}

TEST(VectorIndex, AskedForMoreThanThereIsItGivesAll) {
  const Vectors vectors(3);
  VectorIndex index("a", kDimension, {});
  EXPECT_TRUE(KeysOf(index.Search(vectors.of(0), 10)).empty());
  ASSERT_TRUE(index.Add(vectors.keys, vectors.values).ok());
  EXPECT_EQ(KeysOf(index.Search(vectors.of(0), 10)).size(), 3U);
}

TEST(VectorIndex, AKeyThatIsThereStaysAsItIs) {
  const Vectors vectors(2);
  VectorIndex index("a", kDimension, {});
  ASSERT_TRUE(index.Add({7}, vectors.of(0)).ok());
  ASSERT_TRUE(index.Add({7}, vectors.of(1)).ok());
  EXPECT_EQ(index.size(), 1);
  EXPECT_NEAR(index.Search(vectors.of(0), 1)->front().similarity, 1, 1e-6);
}

TEST(VectorIndex, AVectorOfAnotherLengthIsRefused) {
  const VectorIndex index("a", kDimension, {});
  EXPECT_FALSE(index.Search({1, 0}, 1).ok());
}

TEST(VectorIndex, BeyondTheThresholdAGraphFindsTheSame) {
  const Vectors vectors(5000);
  VectorIndex index("a", kDimension, Graph());
  // Some before the threshold, and one by one across it, as volumes arrive.
  for (int64_t key = 0; key < 200; ++key) {
    ASSERT_TRUE(index.Add({key}, vectors.of(key)).ok());
    EXPECT_EQ(index.exact(), key < 100);
  }
  ASSERT_TRUE(index.Add(vectors.keys, vectors.values).ok());
  EXPECT_EQ(index.size(), 5000);
  double recall = 0;
  for (int64_t query = 0; query < 5000; query += 50) {
    recall += Recall(KeysOf(index.Search(vectors.of(query), 10)),
                     vectors.Nearest(vectors.of(query), 10, vectors.keys));
  }
  // A search of 128 candidates among 5000: near all.
  EXPECT_GE(recall / 100, 0.99);
}

TEST(VectorIndex, WhatWasRemovedIsNeverFound) {
  const Vectors vectors(3000);
  for (const int64_t exact_up_to : {int64_t{100}, int64_t{100000}}) {
    VectorIndex::Options options;
    options.exact_up_to = exact_up_to;
    VectorIndex index("a", kDimension, options);
    ASSERT_TRUE(index.Add(vectors.keys, vectors.values).ok());
    std::vector<int64_t> removed, left;
    for (const int64_t key : vectors.keys) (key % 5 == 0 ? removed : left).push_back(key);
    ASSERT_TRUE(index.Remove(removed).ok());
    ASSERT_TRUE(index.Remove({-5, 123456}).ok());  // never there
    EXPECT_EQ(index.size(), static_cast<int64_t>(left.size()));
    double recall = 0;
    for (int64_t query = 0; query < 3000; query += 100) {  // themselves removed
      const auto found = KeysOf(index.Search(vectors.of(query), 10));
      ASSERT_EQ(found.size(), 10U);
      for (const int64_t key : found) EXPECT_NE(key % 5, 0);
      recall += Recall(found, vectors.Nearest(vectors.of(query), 10, left));
    }
    EXPECT_GE(recall / 30, 0.99);
  }
}

TEST(VectorIndex, AGraphOfWhichMostIsGoneIsBuiltAnewAndGivesAllThatIsLeft) {
  const Vectors vectors(3000);
  VectorIndex index("a", kDimension, Graph());
  ASSERT_TRUE(index.Add(vectors.keys, vectors.values).ok());
  const int64_t before = index.memory_bytes();
  ASSERT_TRUE(index.Remove({vectors.keys.begin() + 150, vectors.keys.end()}).ok());
  EXPECT_LT(index.memory_bytes(), before / 2);
  ASSERT_TRUE(index.Remove({vectors.keys.begin() + 40, vectors.keys.begin() + 150}).ok());
  EXPECT_EQ(KeysOf(index.Search(vectors.of(0), 40)),
            vectors.Nearest(vectors.of(0), 40, {vectors.keys.begin(), vectors.keys.begin() + 40}));
}

TEST(VectorIndex, AmongGivenKeysEveryOneIsComparedWith) {
  const Vectors vectors(3000);
  VectorIndex index("a", kDimension, Graph());
  ASSERT_TRUE(index.Add(vectors.keys, vectors.values).ok());
  ASSERT_TRUE(index.Remove({6}).ok());
  // The farthest of all: a search that drops what does not match afterwards would find none.
  const auto order = vectors.Nearest(vectors.of(1), 3000, vectors.keys);
  std::vector<int64_t> last(order.end() - 20, order.end());
  last.erase(std::remove(last.begin(), last.end(), 6), last.end());
  auto asked = last;
  asked.push_back(6);       // removed
  asked.push_back(999999);  // never there
  EXPECT_EQ(KeysOf(index.SearchAmong(vectors.of(1), 5, asked)),
            vectors.Nearest(vectors.of(1), 5, last));
}

TEST(VectorIndex, SearchesGoOnWhileVectorsComeAndGo) {
  const Vectors vectors(2000);
  VectorIndex index("a", kDimension, Graph());
  ASSERT_TRUE(index.Add({0}, vectors.of(0)).ok());
  std::atomic<bool> done{false};
  std::thread searcher([&] {
    while (!done) {
      auto found = index.Search(vectors.of(0), 5);
      ASSERT_TRUE(found.ok());
      ASSERT_EQ(found->front().key, 0);
    }
  });
  for (int64_t key = 1; key < 2000; ++key) {
    EXPECT_TRUE(index.Add({key}, vectors.of(key)).ok());
    if (key % 3 == 0) {
      EXPECT_TRUE(index.Remove({key - 1}).ok());
    }
  }
  done = true;
  searcher.join();
  EXPECT_EQ(index.size(), 2000 - 666);
}

TEST_F(VectorIndexFile, ASavedIndexAnswersAsBeforeAndGrowsOn) {
  const Vectors vectors(1000);
  for (const int64_t exact_up_to : {int64_t{100}, int64_t{100000}}) {
    VectorIndex::Options options;
    options.exact_up_to = exact_up_to;
    VectorIndex index("a", kDimension, options);
    ASSERT_TRUE(index.Add(vectors.keys, vectors.values).ok());
    ASSERT_TRUE(index.Remove({3, 4}).ok());
    ASSERT_TRUE(index.Save(path_).ok());
    auto loaded = VectorIndex::Load(path_, "a", kDimension, options);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ((*loaded)->exact(), index.exact());
    EXPECT_EQ((*loaded)->size(), 998);
    EXPECT_EQ(KeysOf((*loaded)->Search(vectors.of(3), 10)),
              KeysOf(index.Search(vectors.of(3), 10)));
    ASSERT_TRUE((*loaded)->Add({3}, vectors.of(3)).ok());
    EXPECT_EQ((*loaded)->Search(vectors.of(3), 1)->front().key, 3);
  }
}

TEST_F(VectorIndexFile, AFileOfAnotherModelOrSizeIsRefused) {
  EXPECT_EQ(VectorIndex::Load(path_, "a", kDimension, {}).status().code(),
            absl::StatusCode::kNotFound);
  const VectorIndex index("a", kDimension, {});
  ASSERT_TRUE(index.Save(path_).ok());
  EXPECT_EQ(VectorIndex::Load(path_, "b", kDimension, {}).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(VectorIndex::Load(path_, "a", kDimension + 1, {}).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(VectorIndexFile, ADamagedFileIsRefusedWhereverTheDamageIs) {
  const Vectors vectors(50);
  VectorIndex index("a", kDimension, {});
  ASSERT_TRUE(index.Add(vectors.keys, vectors.values).ok());
  ASSERT_TRUE(index.Save(path_).ok());
  std::string good;
  {
    std::ifstream in(path_, std::ios::binary);
    good.assign(std::istreambuf_iterator<char>(in), {});
  }
  const auto load = [&](const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return VectorIndex::Load(path_, "a", kDimension, {}).status().code();
  };
  EXPECT_EQ(load(good), absl::StatusCode::kOk);
  for (size_t at = 0; at < good.size(); at += 97) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x20);
    EXPECT_EQ(load(bad), absl::StatusCode::kDataLoss) << "byte " << at;
    EXPECT_EQ(load(good.substr(0, at)), absl::StatusCode::kDataLoss) << "cut at " << at;
  }
}

}  // namespace
}  // namespace gvsl

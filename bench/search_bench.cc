// Recall and speed of VectorIndex among a million vectors, beside Faiss alone on the same graph and
// beside an exhaustive search: gvsl_search_bench [VECTORS [CHANNELS [plain]]]. Prints Markdown.
//
// The vectors are made: points of a 16-dimensional space through two random layers, with noise, at
// unit length, as a network's vectors fill few of their dimensions. `plain` makes them Gaussian in
// all dimensions instead, which is the worst there is for a graph and like no network's.
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "server/vector_index.h"
#include "server/vector_index_file.h"

namespace {

constexpr int kQueries = 1000, kNearest = 10, kLatent = 16, kHidden = 64;

double Seconds(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class Generator {
 public:
  Generator(int channels, bool plain) : channels_(channels), plain_(plain) {
    for (auto* layer : {&first_, &second_}) layer->resize(kHidden * std::max(kLatent, channels));
    for (float& weight : first_) weight = normal_(random_) / std::sqrt(float{kLatent});
    for (float& weight : second_) weight = normal_(random_) / std::sqrt(float{kHidden});
  }
  void Append(std::vector<float>& values) {
    float latent[kLatent], hidden[kHidden];
    for (float& value : latent) value = normal_(random_);
    for (int h = 0; h < kHidden; ++h) {
      hidden[h] = 0;
      for (int l = 0; l < kLatent; ++l) hidden[h] += first_[h * kLatent + l] * latent[l];
      hidden[h] = std::tanh(hidden[h]);
    }
    const size_t begin = values.size();
    double squares = 0;
    for (int c = 0; c < channels_; ++c) {
      float value = (plain_ ? 1 : 0.05F) * normal_(random_);
      for (int h = 0; !plain_ && h < kHidden; ++h) value += second_[c * kHidden + h] * hidden[h];
      values.push_back(value);
      squares += static_cast<double>(value) * value;
    }
    const auto scale = static_cast<float>(1 / std::sqrt(squares));
    for (size_t i = begin; i < values.size(); ++i) values[i] *= scale;
  }

 private:
  const int channels_;
  const bool plain_;
  std::mt19937_64 random_{7};
  std::normal_distribution<float> normal_;
  std::vector<float> first_, second_;
};

// Queries a second of `threads` callers, each with one query at a time.
double Rate(int threads, const std::function<void(int)>& query) {
  std::atomic<int> next{0};
  const double seconds = Seconds([&] {
    std::vector<std::thread> callers;
    for (int t = 0; t < threads; ++t) {
      callers.emplace_back([&] {
        for (int q = next++; q < kQueries; q = next++) query(q);
      });
    }
    for (std::thread& caller : callers) caller.join();
  });
  return kQueries / seconds;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 1000000;
  const int channels = argc > 2 ? std::atoi(argv[2]) : 128;
  const bool plain = argc > 3 && std::strcmp(argv[3], "plain") == 0;
  Generator generator(channels, plain);
  std::vector<float> queries;
  for (int q = 0; q < kQueries; ++q) generator.Append(queries);

  gvsl::VectorIndex index("bench", channels, {});
  faiss::IndexFlatIP flat(channels);
  double build_s = 0;
  constexpr int64_t kBatch = 10000;
  for (int64_t done = 0; done < count; done += kBatch) {
    std::vector<int64_t> keys;
    std::vector<float> vectors;
    for (int64_t key = done; key < std::min(count, done + kBatch); ++key) {
      keys.push_back(key);
      generator.Append(vectors);
    }
    flat.add(static_cast<int64_t>(keys.size()), vectors.data());
    build_s += Seconds([&] {
      if (!index.Add(keys, vectors).ok()) std::abort();
    });
  }
  std::vector<float> similarities(kQueries * kNearest);
  std::vector<faiss::Index::idx_t> truth(kQueries * kNearest);
  flat.search(kQueries, queries.data(), kNearest, similarities.data(), truth.data());
  const int callers = static_cast<int>(std::thread::hardware_concurrency());
  const double exact_rate = Rate(callers, [&](int q) {
    float nearest[kNearest];
    faiss::Index::idx_t labels[kNearest];
    flat.search(1, &queries[static_cast<size_t>(q) * channels], kNearest, nearest, labels);
  });
  flat.reset();

  const std::string path = std::filesystem::temp_directory_path() / "gvsl_search_bench.index";
  const double save_s = Seconds([&] {
    if (!index.Save(path).ok()) std::abort();
  });
  std::printf(
      "%lld %s vectors of %d channels, %d callers; graph built in %.0f s, %.2f GB in memory, ",
      static_cast<long long>(count), plain ? "Gaussian" : "network-like", channels, callers,
      build_s, static_cast<double>(index.memory_bytes()) * 1e-9);
  std::printf("written in %.1f s\n\n", save_s);
  std::printf(
      "| search_effort | recall@10 | queries/s | Faiss alone, queries/s |\n|---|---|---|---|\n");
  for (const int effort : {64, 128, 256, 512}) {
    gvsl::VectorIndex::Options options;
    options.search_effort = effort;
    auto loaded = gvsl::VectorIndex::Load(path, "bench", channels, options);
    if (!loaded.ok()) std::abort();
    std::atomic<int> hits{0};
    const double rate = Rate(callers, [&](int q) {
      const auto begin = queries.begin() + static_cast<int64_t>(q) * channels;
      auto found = (*loaded)->Search({begin, begin + channels}, kNearest);
      if (!found.ok()) std::abort();
      for (const gvsl::Neighbour& neighbour : *found) {
        const auto* own = &truth[static_cast<size_t>(q) * kNearest];
        hits += std::count(own, own + kNearest, neighbour.key) > 0;
      }
    });
    loaded->reset();
    auto raw = gvsl::ReadVectorIndexFile(path);
    if (!raw.ok()) std::abort();
    if (auto* graph = dynamic_cast<faiss::IndexHNSW*>(raw->index.get()))
      graph->hnsw.efSearch = effort;
    const double raw_rate = Rate(callers, [&](int q) {
      float nearest[kNearest];
      faiss::Index::idx_t labels[kNearest];
      raw->index->search(1, &queries[static_cast<size_t>(q) * channels], kNearest, nearest, labels);
    });
    std::printf("| %d | %.4f | %.0f | %.0f |\n", effort, static_cast<double>(hits) / truth.size(),
                rate, raw_rate);
  }
  std::printf("| exhaustive | 1 | | %.1f |\n", exact_rate);
  std::filesystem::remove(path);
  return 0;
}

#include "model/pair_loader.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "model/random_stream.h"

namespace gvsl {
namespace {

enum Purpose : uint64_t { kOrder = 11, kPartner = 12 };

// Member `place` of a random order of `count` volumes, another one every round.
size_t Shuffled(uint64_t seed, uint64_t round, size_t count, size_t place) {
  RandomStream random({seed, kOrder, round});
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = count - 1; i > 0; --i) {
    std::swap(order[i], order[static_cast<size_t>(random.Index(static_cast<int64_t>(i) + 1))]);
  }
  return order[place];
}

std::array<int64_t, 3> Place(const CachedVolume& volume, int64_t crop,
                             const std::array<double, 3>& relative) {
  std::array<int64_t, 3> begin;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t room = volume.size()[axis] - crop;
    begin[axis] = room <= 0 ? -(-room / 2)
                            : static_cast<int64_t>(relative[axis] * static_cast<double>(room + 1));
  }
  return begin;
}

}  // namespace

Pair DrawPair(const VolumeSet& volumes, const PairLoaderOptions& options, int64_t step,
              int64_t sample) {
  const size_t count = volumes.size();
  const uint64_t number = static_cast<uint64_t>(step * options.batch_size + sample);
  RandomStream random({options.seed, kPartner, number});
  Pair pair;
  pair.a = Shuffled(options.seed, number / count, count, number % count);
  pair.b =
      (pair.a + 1 + static_cast<size_t>(random.Index(static_cast<int64_t>(count) - 1))) % count;
  const std::array<double, 3> relative = {random.Uniform(), random.Uniform(), random.Uniform()};
  pair.a_begin = Place(*volumes[pair.a], options.crop, relative);
  pair.b_begin = Place(*volumes[pair.b], options.crop, relative);
  return pair;
}

PairBatch WholeBatch(at::Tensor a, at::Tensor b) {
  PairBatch batch;
  const int64_t side = a.size(2);
  batch.a_content.resize(static_cast<size_t>(a.size(0)), {{0, 0, 0}, {side, side, side}});
  batch.b_content = batch.a_content;
  batch.a = std::move(a);
  batch.b = std::move(b);
  return batch;
}

void ReadPair(const VolumeSet& volumes, const Pair& pair, int64_t margin, int64_t sample,
              PairBatch& batch) {
  const auto read = [&](const CachedVolume& volume, std::array<int64_t, 3> begin,
                        at::Tensor& images) {
    const int64_t side = images.size(2);
    Content content;
    for (int axis = 0; axis < 3; ++axis) {
      begin[axis] -= margin;
      content.begin[axis] = std::clamp<int64_t>(-begin[axis], 0, side);
      content.end[axis] = std::clamp<int64_t>(volume.size()[axis] - begin[axis], 0, side);
    }
    volume.Read(begin, {side, side, side}, images.data_ptr<float>() + sample * side * side * side);
    return content;
  };
  batch.a_content[sample] = read(*volumes[pair.a], pair.a_begin, batch.a);
  batch.b_content[sample] = read(*volumes[pair.b], pair.b_begin, batch.b);
}

struct PairLoader::Impl {
  VolumeSet volumes;
  PairLoaderOptions options;
  std::mutex mutex;
  std::condition_variable made, wanted;
  int64_t next_to_make = 0, next_to_give = 0;  // passes, counted from the first
  std::map<int64_t, PairBatch> ready;
  bool stopping = false;
  std::exception_ptr failure;  // of the first thread that failed; no other pass is begun then
  std::vector<std::thread> threads;

  PairBatch Make(int64_t pass) const {
    const int64_t side = options.crop + 2 * options.margin;
    const auto empty = [&] {
      return at::empty({options.pass_size, 1, side, side, side},
                       at::TensorOptions(at::kFloat).pinned_memory(options.pinned));
    };
    PairBatch batch = WholeBatch(empty(), empty());
    batch.step = options.first_step + pass / options.passes;
    batch.first_sample = options.first_sample + pass % options.passes * options.pass_size;
    for (int64_t i = 0; i < options.pass_size; ++i) {
      const Pair pair = DrawPair(volumes, options, batch.step, batch.first_sample + i);
      ReadPair(volumes, pair, options.margin, i, batch);
    }
    return batch;
  }

  void Work() {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      wanted.wait(lock, [&] { return stopping || next_to_make < next_to_give + options.ahead; });
      if (stopping || failure) return;
      const int64_t pass = next_to_make++;
      lock.unlock();
      PairBatch batch;
      std::exception_ptr thrown;
      try {
        batch = Make(pass);
      } catch (...) {
        thrown = std::current_exception();
      }
      lock.lock();
      if (thrown && !failure) failure = thrown;
      if (!thrown) ready.emplace(pass, std::move(batch));
      made.notify_one();
    }
  }
};

PairLoader::PairLoader(VolumeSet volumes, const PairLoaderOptions& options)
    : impl_(std::make_unique<Impl>()) {
  impl_->volumes = std::move(volumes);
  impl_->options = options;
  for (int i = 0; i < std::max(1, options.threads); ++i) {
    impl_->threads.emplace_back([this] { impl_->Work(); });
  }
}

PairLoader::~PairLoader() {
  {
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wanted.notify_all();
  for (std::thread& thread : impl_->threads) thread.join();
}

PairBatch PairLoader::Next() {
  std::unique_lock<std::mutex> lock(impl_->mutex);
  const int64_t pass = impl_->next_to_give;
  impl_->made.wait(lock, [&] { return impl_->ready.count(pass) > 0 || impl_->failure; });
  if (impl_->ready.count(pass) == 0) std::rethrow_exception(impl_->failure);
  PairBatch batch = std::move(impl_->ready.extract(pass).mapped());
  ++impl_->next_to_give;
  impl_->wanted.notify_one();
  return batch;
}

}  // namespace gvsl

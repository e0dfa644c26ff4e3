// Resampling of a CT (512 x 512 x 128 int16 voxels of 0.7 x 0.7 x 1.25 mm, to float32), ours beside
// ITK's ResampleImageFilter with linear interpolation, on the same voxels, all cores each.
//
//   gvsl_resample_bench [Google Benchmark's flags]
//
// Prints Google Benchmark's table (medians of 5 runs, interleaved; bytes are those of the source,
// items the voxels made), then the ratios as Markdown. Where the target is coarser, ours low-passes
// first; ITK does so only where a Gaussian is put before it.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>

#include "imaging/orientation.h"
#include "imaging/resample.h"

#ifdef GVSL_BENCH_ITK
#include <itkImportImageFilter.h>
#include <itkLinearInterpolateImageFunction.h>
#include <itkRecursiveGaussianImageFilter.h>
#include <itkResampleImageFilter.h>
#endif

namespace gvsl {
namespace {

Volume MakeCt() {
  Grid grid;
  grid.size = {512, 512, 128};
  grid.spacing_mm = {0.7, 0.7, 1.25};
  grid.origin_mm = {-179, -179, -900};
  auto volume = Volume::Allocate(grid, VoxelType::kInt16, VolumeKind::kImage);
  int16_t* voxel = volume->mutable_voxels<int16_t>();
  uint32_t noise = 1;
  for (int64_t z = 0; z < grid.size[2]; ++z) {
    for (int64_t y = 0; y < grid.size[1]; ++y) {
      for (int64_t x = 0; x < grid.size[0]; ++x) {
        noise = noise * 1664525 + 1013904223;
        *voxel++ = static_cast<int16_t>((x * y / 256 + 3 * z) % 2048 - 1024 + (noise >> 26));
      }
    }
  }
  return *std::move(volume);
}

const Volume& Ct() {
  static const Volume volume = MakeCt();
  return volume;
}

Grid Parallel(const Vec3& spacing_mm) { return *ModelGrid(Ct().grid(), "LPS", spacing_mm); }

// Turned by 10 degrees about the patient's axis and 5 about the left-right one, about the centre.
Grid Rotated(const Vec3& spacing_mm) {
  Grid grid = Parallel(spacing_mm);
  Vec3 middle;
  for (int i = 0; i < 3; ++i) middle[i] = static_cast<double>(grid.size[i] - 1) / 2;
  const Vec3 centre = grid.IndexToPhysical(middle);
  const double a = 10 * M_PI / 180, b = 5 * M_PI / 180;
  grid.direction = {{{std::cos(a), -std::sin(a) * std::cos(b), std::sin(a) * std::sin(b)},
                     {std::sin(a), std::cos(a) * std::cos(b), -std::cos(a) * std::sin(b)},
                     {0, std::sin(b), std::cos(b)}}};
  const Vec3 moved = grid.IndexToPhysical(middle);
  for (int r = 0; r < 3; ++r) grid.origin_mm[r] += centre[r] - moved[r];
  return grid;
}

void Count(benchmark::State& state, const Grid& target) {
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(Ct().byte_count()));
  state.SetItemsProcessed(state.iterations() * target.voxel_count());
}

void Ours(benchmark::State& state, const Grid& target) {
  for (auto _ : state) {
    auto result = Resample(Ct(), target, Interpolation::kLinear, VoxelType::kFloat32);
    benchmark::DoNotOptimize(result->bytes());
  }
  Count(state, target);
}

#ifdef GVSL_BENCH_ITK
using Image = itk::Image<int16_t, 3>;
using FloatImage = itk::Image<float, 3>;

Image::Pointer ItkCt() {
  auto import = itk::ImportImageFilter<int16_t, 3>::New();
  Image::RegionType region;
  Image::SpacingType spacing;
  Image::PointType origin;
  for (unsigned i = 0; i < 3; ++i) {
    region.SetSize(i, static_cast<itk::SizeValueType>(Ct().grid().size[i]));
    spacing[i] = Ct().grid().spacing_mm[i];
    origin[i] = Ct().grid().origin_mm[i];
  }
  import->SetRegion(region);
  import->SetSpacing(spacing);
  import->SetOrigin(origin);
  import->SetImportPointer(const_cast<int16_t*>(Ct().voxels<int16_t>()),
                           static_cast<itk::SizeValueType>(Ct().voxel_count()), false);
  import->Update();
  return import->GetOutput();
}

template <typename Input>
FloatImage::Pointer ItkLinear(const Input* image, const Grid& target) {
  auto filter = itk::ResampleImageFilter<Input, FloatImage>::New();
  typename FloatImage::SizeType size;
  typename FloatImage::SpacingType spacing;
  typename FloatImage::PointType origin;
  typename FloatImage::DirectionType direction;
  for (unsigned i = 0; i < 3; ++i) {
    size[i] = static_cast<itk::SizeValueType>(target.size[i]);
    spacing[i] = target.spacing_mm[i];
    origin[i] = target.origin_mm[i];
    for (unsigned r = 0; r < 3; ++r) direction(r, i) = target.direction[r][i];
  }
  filter->SetInput(image);
  filter->SetSize(size);
  filter->SetOutputSpacing(spacing);
  filter->SetOutputOrigin(origin);
  filter->SetOutputDirection(direction);
  filter->SetInterpolator(itk::LinearInterpolateImageFunction<Input, double>::New());
  filter->Update();
  return filter->GetOutput();
}

void Itk(benchmark::State& state, const Grid& target) {
  const auto image = ItkCt();
  for (auto _ : state) {
    benchmark::DoNotOptimize(ItkLinear(image.GetPointer(), target)->GetBufferPointer());
  }
  Count(state, target);
}

// A Gaussian of our sigma along the two axes that get coarser, then ITK's filter.
void ItkGaussian(benchmark::State& state, const Grid& target) {
  const auto image = ItkCt();
  for (auto _ : state) {
    auto first = itk::RecursiveGaussianImageFilter<Image, FloatImage>::New();
    auto second = itk::RecursiveGaussianImageFilter<FloatImage, FloatImage>::New();
    const double sigma_mm = 0.5 * std::sqrt(1 - 0.7 * 0.7);  // from 0.7 to 1 mm
    first->SetInput(image);
    first->SetDirection(0);
    first->SetSigma(sigma_mm);
    second->SetInput(first->GetOutput());
    second->SetDirection(1);
    second->SetSigma(sigma_mm);
    second->Update();
    benchmark::DoNotOptimize(ItkLinear(second->GetOutput(), target)->GetBufferPointer());
  }
  Count(state, target);
}

// Both do the same work: the largest difference where nothing is low-passed. Voxels beside the
// border are left out: there rounding decides whether they are outside.
double LargestDifference(const Grid& target) {
  auto ours = Resample(Ct(), target, Interpolation::kLinear, VoxelType::kFloat32);
  const auto theirs = ItkLinear(ItkCt().GetPointer(), target);
  double largest = 0;
  for (int64_t i = 0; i < target.voxel_count(); ++i) {
    const auto& size = target.size;
    const Vec3 index = Ct().grid().PhysicalToIndex(target.IndexToPhysical(
        {static_cast<double>(i % size[0]), static_cast<double>(i / size[0] % size[1]),
         static_cast<double>(i / (size[0] * size[1]))}));
    bool inside = true;
    for (int r = 0; r < 3; ++r) {
      inside = inside && index[r] > 0 && index[r] < static_cast<double>(Ct().grid().size[r] - 1);
    }
    if (!inside) continue;
    largest = std::max(largest, static_cast<double>(std::abs(ours->voxels<float>()[i] -
                                                             theirs->GetBufferPointer()[i])));
  }
  return largest;
}
#endif

// Remembers the median time of each benchmark.
class Medians : public benchmark::ConsoleReporter {
 public:
  Medians() : ConsoleReporter(OO_Tabular) {}  // no colours
  void ReportRuns(const std::vector<Run>& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (const Run& run : runs) {
      if (run.aggregate_name == "median") {
        seconds_[run.run_name.function_name] = run.GetAdjustedRealTime() / 1e3;
      }
    }
  }
  void PrintRatio(const std::string& what, const std::string& ours, const std::string& peer) const {
    if (seconds_.count(ours) == 0 || seconds_.count(peer) == 0) return;
    std::printf("| %s | %.3f | %.3f | %.1f |\n", what.c_str(), seconds_.at(peer), seconds_.at(ours),
                seconds_.at(peer) / seconds_.at(ours));
  }

 private:
  std::map<std::string, double> seconds_;
};

template <typename Function>
void Register(const char* name, Function function, const Grid& target) {
  benchmark::RegisterBenchmark(name, function, target)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime()
      ->MinTime(0.3)
      ->Repetitions(5)
      ->ReportAggregatesOnly();
}

int Run(int argc, char** argv) {
  static char interleave[] = "--benchmark_enable_random_interleaving=true";
  std::vector<char*> arguments(argv, argv + argc);
  arguments.insert(arguments.begin() + 1, interleave);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;

  const Vec3 finer = {0.7, 0.7, 1}, coarser = {1, 1, 1};
  Register("parallel", Ours, Parallel(finer));
  Register("parallel_anti_aliased", Ours, Parallel(coarser));
  Register("rotated", Ours, Rotated(finer));
  Register("rotated_anti_aliased", Ours, Rotated(coarser));
#ifdef GVSL_BENCH_ITK
  Register("itk_parallel", Itk, Parallel(finer));
  Register("itk_parallel_1mm", Itk, Parallel(coarser));
  Register("itk_parallel_1mm_gaussian", ItkGaussian, Parallel(coarser));
  Register("itk_rotated", Itk, Rotated(finer));
  Register("itk_rotated_1mm_gaussian", ItkGaussian, Rotated(coarser));
#endif
  Medians medians;
  benchmark::RunSpecifiedBenchmarks(&medians);
#ifdef GVSL_BENCH_ITK
  std::printf("\n| to | ITK s | ours s | ITK / ours |\n|---|---|---|---|\n");
  medians.PrintRatio("0.7 x 0.7 x 1 mm, parallel, linear both", "parallel", "itk_parallel");
  medians.PrintRatio("1 mm, parallel, ours anti-aliased, ITK not", "parallel_anti_aliased",
                     "itk_parallel_1mm");
  medians.PrintRatio("1 mm, parallel, anti-aliased both", "parallel_anti_aliased",
                     "itk_parallel_1mm_gaussian");
  medians.PrintRatio("0.7 x 0.7 x 1 mm, rotated, linear both", "rotated", "itk_rotated");
  medians.PrintRatio("1 mm, rotated, anti-aliased both", "rotated_anti_aliased",
                     "itk_rotated_1mm_gaussian");
  std::printf("\nLargest difference of the linear ones: %.2g parallel, %.2g rotated\n",
              LargestDifference(Parallel(finer)), LargestDifference(Rotated(finer)));
#else
  std::printf("\nBuilt without ITK (libinsighttoolkit5-dev): no peer.\n");
#endif
  return 0;
}

}  // namespace
}  // namespace gvsl

int main(int argc, char** argv) { return gvsl::Run(argc, argv); }

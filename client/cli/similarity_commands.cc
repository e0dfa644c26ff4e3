// gvsl search, gvsl embeddings.
#include <cstdio>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/progress.h"
#include "client/reports.h"
#include "imaging/output_file.h"

namespace gvsl::cli {
namespace {

constexpr int kThumbnailEdge = 128;  // pixels
constexpr char kModelHelp[] = "models/{id} (default: the server's default model)";
constexpr char kFilterHelp[] =
    "comparisons of display_name, modality, kind, content_sha256, create_time and tags, joined by "
    "AND";

void PrintHits(const v1::SearchVolumesResponse& answer) {
  std::vector<std::vector<std::string>> rows = {
      {"RANK", "COSINE", "ALIGNED", "QUALITY", "VOLUME", "DISPLAY NAME", "MODALITY"}};
  for (const auto& hit : answer.hits()) {
    rows.push_back({absl::StrCat(rows.size()), absl::StrFormat("%.6f", hit.global_similarity()),
                    hit.has_aligned() ? absl::StrFormat("%.4f", hit.aligned().score()) : "-",
                    hit.has_aligned()
                        ? v1::RegistrationVerdict::Quality_Name(hit.aligned().verdict().quality())
                        : "-",
                    hit.volume(), hit.display_name(), hit.modality()});
  }
  PrintTable(rows);
  std::printf("%s of %lld volumes, by %s\n", answer.exact() ? "each" : "by a graph",
              static_cast<long long>(answer.candidate_count()), answer.model().model().c_str());
}

absl::Status WriteReport(Context& context, const std::string& query,
                         const v1::SearchVolumesResponse& answer, const std::string& path) {
  std::vector<std::string> volumes = {query};
  for (const auto& hit : answer.hits()) volumes.push_back(hit.volume());
  std::map<std::string, std::string> previews;
  for (const std::string& volume : volumes) {
    v1::PreviewVolumeRequest request;
    request.set_name(volume);
    request.set_max_edge(kThumbnailEdge);
    auto png = context.client.PreviewVolume(request);
    if (absl::IsNotFound(png.status())) continue;  // deleted since
    if (!png.ok()) return png.status();
    previews[volume] = *std::move(png);
  }
  auto page = SearchReport(query, answer, previews);
  return page.ok() ? WriteWholeFile(path, *page) : page.status();
}

void AddSearch(CLI::App& app, Action& action) {
  struct Options : ImportOptions {
    std::string volume, model, filter;
    std::string report;
    int top_k = 10, rerank = 0, regions = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(app, "search", "The stored volumes most like one, best first",
              "gvsl search volumes/3f2a --top_k 5 --filter 'modality = \"CT\" AND tags:\"heart\"'");
  verb->add_option("VOLUME", options->volume, "stored name or file (uploaded first)")->required();
  verb->add_option("--top_k", options->top_k, "hits at most, 1 to 1000 (default 10)")
      ->check(CLI::Range(1, 1000));
  verb->add_option("--rerank", options->rerank,
                   "register so many of the best hits to the query, 0 to 50, and order them by how "
                   "alike they are once aligned (default 0)")
      ->check(CLI::Range(0, 50));
  verb->add_option(
          "--regions", options->regions,
          "with --rerank: how well each hit fits in so many regions along each axis, 0 to 8 "
          "(default 0)")
      ->check(CLI::Range(0, 8));
  verb->add_option("--report", options->report,
                   "one page with the hits, their central planes and what they are worth")
      ->check(EndsIn({".html"}));
  verb->add_option("--filter", options->filter,
                   absl::StrCat("which volumes may be hits: ", kFilterHelp));
  verb->add_option("--model", options->model, kModelHelp);
  verb->add_option("--modality", options->modality,
                   "modality of a file that is uploaded first, such as CT or MR");
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      auto name = NameOfVolume(context, options->volume, *options);
      if (!name.ok()) return name.status();
      v1::SearchVolumesRequest request;
      request.set_volume(*name);
      request.set_model(options->model);
      request.set_top_k(options->top_k);
      request.set_filter(options->filter);
      request.set_rerank(options->rerank);
      request.set_regions(options->regions);
      auto answer = context.client.SearchVolumes(request);
      if (!answer.ok()) return answer.status();
      context.json ? PrintJson(*answer) : PrintHits(*answer);
      if (options->report.empty()) return absl::OkStatus();
      absl::Status status = WriteReport(context, *name, *answer, options->report);
      if (status.ok() && !context.json) std::printf("wrote %s\n", options->report.c_str());
      return status;
    };
  });
}

void AddBackfill(CLI::App& group, Action& action) {
  struct Options {
    std::string model, filter;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(group, "backfill", "Embed every stored image that a search by this model lacks",
              "gvsl embeddings backfill --filter 'modality = \"CT\"'");
  verb->add_option("--model", options->model, kModelHelp);
  verb->add_option("--filter", options->filter,
                   absl::StrCat("which volumes to embed: ", kFilterHelp));
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      v1::BackfillEmbeddingsRequest request;
      request.set_model(options->model);
      request.set_filter(options->filter);
      ProgressBar bar("embedding", "volumes");
      auto done = context.client.BackfillEmbeddings(
          request, [&bar](const v1::BackfillEmbeddingsResponse& progress) {
            if (progress.has_failure()) {
              bar.Clear();
              std::fprintf(stderr, "gvsl: %s: %s\n", progress.failure().volume().c_str(),
                           progress.failure().reason().c_str());
            }
            bar.Update(progress.embedded() + progress.failed(), progress.total());
          });
      bar.Clear();
      if (!done.ok()) return done.status();
      if (context.json) {
        PrintJson(*done);
      } else {
        std::printf("embedded %lld of %lld volumes by %s\n",
                    static_cast<long long>(done->embedded()), static_cast<long long>(done->total()),
                    done->model().model().c_str());
      }
      if (done->failed() == 0) return absl::OkStatus();
      return absl::FailedPreconditionError(
          absl::StrCat(done->failed(), " volumes were passed over; they are named above"));
    };
  });
}

}  // namespace

void AddSimilarityCommands(CLI::App& app, Action& action) {
  AddSearch(app, action);
  CLI::App* group =
      app.add_subcommand("embeddings", "What the network sees in whole volumes, kept for search");
  group->require_subcommand(1);
  AddBackfill(*group, action);
}

}  // namespace gvsl::cli

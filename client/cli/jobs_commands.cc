#include <google/protobuf/text_format.h>
#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/job_spec.h"
#include "client/job_text.h"
#include "client/loss_plot.h"
#include "client/progress.h"
#include "imaging/output_file.h"
#include "imaging/status_reason.h"

namespace gvsl::cli {
namespace {

using google::protobuf::util::TimeUtil;

// `jobs/{id}`, also of a bare id.
std::string JobName(const std::string& text) {
  return text.rfind("jobs/", 0) == 0 ? text : "jobs/" + text;
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(TimeUtil::DurationToMilliseconds(duration)) / 1000;
}

std::string StepOf(const v1::Job& job) {
  return absl::StrCat(job.step(), " of ", job.total_steps());
}

void PrintJobs(Context& context, const std::vector<v1::Job>& jobs) {
  if (context.json) {
    v1::ListJobsResponse list;
    for (const v1::Job& job : jobs) *list.add_jobs() = job;
    return PrintJson(list);
  }
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "DISPLAY NAME", "STATE", "STEP", "LOSS", "LEFT", "MODEL"}};
  for (const v1::Job& job : jobs) {
    rows.push_back(
        {job.name(), job.display_name(), StateText(job.state()), StepOf(job),
         job.has_last_step() ? absl::StrFormat("%.4g", job.last_step().losses().total()) : "",
         job.has_remaining() ? DurationText(Seconds(job.remaining())) : "", job.model()});
  }
  PrintTable(rows);
}

std::string ValidationOf(const v1::JobEvent::Validation& validation) {
  return absl::StrFormat("%s at step %d, correlation %.4g to %.4g", LossesText(validation.losses()),
                         validation.step(), validation.ncc_before(), validation.ncc_after());
}

void PrintJob(Context& context, const v1::Job& job) {
  if (context.json) return PrintJson(job);
  std::vector<std::vector<std::string>> rows;
  const auto row = [&rows](const char* heading, const std::string& value) {
    if (!value.empty()) rows.push_back({heading, value});
  };
  const auto time = [&row](const char* heading, const google::protobuf::Timestamp& value) {
    if (value.seconds() != 0) row(heading, TimeUtil::ToString(value));
  };
  row("name", job.name());
  row("display name", job.display_name());
  if (job.state() != v1::Job::STATE_UNSPECIFIED) row("state", StateText(job.state()));
  row("failure", job.failure());
  row("model", job.model());
  row("step", StepOf(job));
  if (job.has_last_step()) {
    row("loss", LossesText(job.last_step().losses()));
    row("speed", absl::StrFormat("%.3g steps/s, %.0f %% of it waiting for data",
                                 job.last_step().steps_per_second(),
                                 100 * job.last_step().data_wait_share()));
    row("memory", BytesText(job.last_step().memory_bytes()));
  }
  if (job.has_last_validation()) row("validation", ValidationOf(job.last_validation()));
  if (job.has_best_validation()) row("best", ValidationOf(job.best_validation()));
  if (job.has_remaining()) row("left", DurationText(Seconds(job.remaining())));
  if (job.restarts() > 0) row("restarts", absl::StrCat(job.restarts()));
  row("volumes", absl::StrCat(job.training_volume_count(), " for training, ",
                              job.validation_volume_count(), " for validation"));
  if (job.has_estimate()) {
    row("estimate", absl::StrCat(BytesText(job.estimate().memory_bytes()), " of memory, ",
                                 BytesText(job.estimate().disk_bytes()), " of disk",
                                 job.estimate().has_duration()
                                     ? ", " + DurationText(Seconds(job.estimate().duration()))
                                     : ""));
  }
  time("created", job.create_time());
  time("started", job.start_time());
  time("ended", job.end_time());
  row("data SHA-256", job.data_sha256());
  PrintTable(rows);
}

std::string SpecText(const v1::PretrainingSpec& spec) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(spec, &text);
  return text;
}

// How a job ended, as the exit status of a command that waits for it.
absl::Status Outcome(const v1::Job& job) {
  if (job.state() == v1::Job::FAILED)
    return WithReason(absl::AbortedError(JobText(job)), "JOB_FAILED");
  if (job.state() == v1::Job::CANCELLED)
    return WithReason(absl::AbortedError(JobText(job)), "JOB_CANCELLED");
  return absl::OkStatus();
}

// Shows a watch: on a terminal a bar for the steps and a line for all else; on a pipe a line for
// everything, at once.
class WatchView {
 public:
  explicit WatchView(bool json) : json_(json) {
    if (!json && isatty(STDOUT_FILENO) == 1 && isatty(STDERR_FILENO) == 1) bar_.emplace("training");
  }

  // False when the output can take no more.
  bool Show(const v1::WatchJobResponse& part) {
    if (part.has_job()) {
      const bool news = part.job().state() != job_.state() || job_.name().empty();
      job_ = part.job();
      if (!json_ && news) Say(JobText(job_));
    }
    if (json_) PrintJsonLine(part);
    if (!json_ && part.has_event()) ShowEvent(part.event());
    return std::fflush(stdout) == 0;
  }

  const v1::Job& job() const { return job_; }

 private:
  void ShowEvent(const v1::JobEvent& event) {
    if (!bar_ || !event.has_step()) return Say(EventText(event, job_.total_steps()));
    // The bar is for what goes on now; a watch tells what was first.
    if (event.step().step() < job_.step()) return;
    words_ = StepText(event.step(), job_.total_steps());
    share_ = static_cast<double>(event.step().step()) /
             static_cast<double>(std::max<int64_t>(job_.total_steps(), 1));
    bar_->Show(share_, words_);
  }

  void Say(const std::string& line) {
    if (bar_) bar_->Clear();
    std::puts(line.c_str());
    if (!bar_ || words_.empty() || HasEnded(job_.state())) return;
    std::fflush(stdout);  // before the bar, which is on the other stream
    bar_->Show(share_, words_);
  }

  const bool json_;
  std::optional<ProgressBar> bar_;
  std::string words_;
  double share_ = 0;
  v1::Job job_;
};

absl::Status Watch(Context& context, const std::string& name, int64_t after_sequence) {
  context.json_lines = true;
  WatchView view(context.json);
  absl::Status status = context.client.WatchJob(
      name, after_sequence, [&view](const v1::WatchJobResponse& part) { return view.Show(part); });
  if (status.code() == absl::StatusCode::kCancelled)
    return absl::CancelledError(absl::StrCat("interrupted; ", name, " goes on"));
  return status.ok() ? Outcome(view.job()) : status;
}

// Volumes that the spec names by a file are uploaded, as everywhere.
absl::Status NameVolumes(Context& context, const ImportOptions& import,
                         google::protobuf::RepeatedPtrField<std::string>* volumes) {
  for (std::string& volume : *volumes) {
    auto name = NameOfVolume(context, volume, import);
    if (!name.ok()) return name.status();
    volume = *std::move(name);
  }
  return absl::OkStatus();
}

struct SubmitOptions : ImportOptions {
  std::string spec, job_name, request_id;
  std::vector<std::string> assignments;
  bool dry_run = false, watch = false;
};

absl::Status Submit(const SubmitOptions& options, Context& context) {
  auto spec = ReadJobSpec(options.spec);
  if (!spec.ok()) return spec.status();
  for (const std::string& assignment : options.assignments) {
    if (absl::Status status = SetJobField(assignment, &*spec); !status.ok()) return status;
  }
  for (auto* volumes : {spec->mutable_data()->mutable_volumes(),
                        spec->mutable_data()->mutable_validation_volumes()}) {
    if (absl::Status status = NameVolumes(context, options, volumes); !status.ok()) return status;
  }
  v1::CreateJobRequest request;
  *request.mutable_job()->mutable_spec() = *std::move(spec);
  request.mutable_job()->set_display_name(options.job_name.empty()
                                              ? std::filesystem::path(options.spec).stem().string()
                                              : options.job_name);
  request.set_request_id(options.request_id);
  request.set_validate_only(options.dry_run);
  auto job = context.client.CreateJob(request);
  if (!job.ok()) return job.status();
  if (options.watch) {
    if (!context.json) PrintJob(context, *job);
    std::fflush(stdout);
    return Watch(context, job->name(), 0);  // with --json its first line is the job
  }
  PrintJob(context, *job);
  if (options.dry_run && !context.json) std::printf("\n%s", SpecText(job->spec()).c_str());
  return absl::OkStatus();
}

void AddSubmit(CLI::App& group, Action& action) {
  auto options = std::make_shared<SubmitOptions>();
  CLI::App* verb = AddVerb(group, "submit", "Queue a pre-training job",
                           "gvsl jobs submit examples/jobs/quick-mr-cpu.textproto "
                           "--set optimization.steps=100 --watch");
  verb->add_option("SPEC", options->spec,
                   "PretrainingSpec in protobuf text format (proto/gvsl/v1/jobs.proto; "
                   "examples/jobs); volumes by stored name or file (uploaded first)")
      ->required();
  verb->add_option("--name", options->job_name,
                   "display name of the job and of its model (default: the file's name)");
  verb->add_option("--set", options->assignments,
                   "FIELD=VALUE: sets a field by its path, such as optimization.steps=100; all "
                   "values of a repeated one with commas; may be given several times")
      ->take_all()
      ->allow_extra_args(false)
      ->check([](const std::string& text) {
        v1::PretrainingSpec scratch;
        return std::string(SetJobField(text, &scratch).message());
      });
  verb->add_option("--request_id", options->request_id,
                   "a word of yours: submitting again with it gives the same job");
  CLI::Option* dry_run =
      verb->add_flag("--dry_run", options->dry_run,
                     "check and estimate alone; shows the spec with every default, queues nothing");
  verb->add_flag("--watch", options->watch, "then follow it, as `gvsl jobs watch`")
      ->excludes(dry_run);
  verb->add_option("--modality", options->modality,
                   "modality of files that are uploaded first, such as CT or MR");
  verb->callback([options, &action] {
    action = [options](Context& context) { return Submit(*options, context); };
  });
}

void AddList(CLI::App& group, Action& action) {
  struct Options {
    std::string filter, order_by;
    int64_t limit = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "list", "List jobs, newest first",
                           "gvsl jobs list --filter 'state = RUNNING'");
  verb->add_option("--filter", options->filter,
                   "comparisons of state, display_name and create_time, joined by AND");
  verb->add_option("--order-by", options->order_by, "create_time or create_time desc");
  verb->add_option("--limit", options->limit, "at most this many (default 0: all)")
      ->check(NotNegative());
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      v1::ListJobsRequest request;
      request.set_filter(options->filter);
      request.set_order_by(options->order_by);
      auto jobs = context.client.ListJobs(request, options->limit);
      if (jobs.ok()) PrintJobs(context, *jobs);
      return jobs.status();
    };
  });
}

void AddShow(CLI::App& group, Action& action) {
  struct Options {
    std::string name;
    bool spec = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "show", "Show one job", "gvsl jobs show jobs/3f2a");
  verb->add_option("JOB", options->name, "jobs/{id}, or its id")->required();
  verb->add_flag("--spec", options->spec,
                 "print its spec alone, with every default, as `gvsl jobs submit` reads it");
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      auto job = context.client.GetJob(JobName(options->name));
      if (!job.ok()) return job.status();
      if (!options->spec) {
        PrintJob(context, *job);
      } else if (context.json) {
        PrintJson(job->spec());
      } else {
        std::fputs(SpecText(job->spec()).c_str(), stdout);
      }
      return absl::OkStatus();
    };
  });
}

void AddWatch(CLI::App& group, Action& action) {
  struct Options {
    std::string name;
    int64_t after = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(
      group, "watch",
      "Follow a job to its end: a progress bar on a terminal, a line for every event on a pipe, "
      "with --json a WatchJobResponse a line. Exit status 1 unless it succeeds",
      "gvsl jobs watch jobs/3f2a");
  verb->add_option("JOB", options->name, "jobs/{id}, or its id")->required();
  verb->add_option("--after", options->after, "leave out events up to this sequence number")
      ->check(NotNegative());
  verb->callback([options, &action] {
    action = [options](Context& context) {
      return Watch(context, JobName(options->name), options->after);
    };
  });
}

void AddLogs(CLI::App& group, Action& action) {
  struct Options {
    std::string name;
    int64_t offset = 0;
    bool follow = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "logs",
                           "Print what the job's process wrote; with --json a "
                           "StreamJobLogsResponse a line",
                           "gvsl jobs logs jobs/3f2a --follow");
  verb->add_option("JOB", options->name, "jobs/{id}, or its id")->required();
  verb->add_flag("--follow", options->follow, "wait for more until the job has ended");
  verb->add_option("--offset", options->offset, "byte to begin at (default 0)")
      ->check(NotNegative());
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      context.json_lines = true;
      v1::StreamJobLogsRequest request;
      request.set_name(JobName(options->name));
      request.set_offset(options->offset);
      request.set_follow(options->follow);
      return context.client.StreamJobLogs(
          request, [&context](const v1::StreamJobLogsResponse& part) {
            if (context.json) {
              PrintJsonLine(part);
            } else {
              std::fwrite(part.data().data(), 1, part.data().size(), stdout);
            }
            return std::fflush(stdout) == 0;
          });
    };
  });
}

void AddCancel(CLI::App& group, Action& action) {
  struct Options {
    std::string name;
    bool wait = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      AddVerb(group, "cancel", "Ask a job to stop; it writes a checkpoint and can be resumed",
              "gvsl jobs cancel jobs/3f2a --wait");
  verb->add_option("JOB", options->name, "jobs/{id}, or its id")->required();
  verb->add_flag("--wait", options->wait, "until it has ended");
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      const std::string name = JobName(options->name);
      auto job = context.client.CancelJob(name);
      if (!job.ok()) return job.status();
      if (options->wait) {
        absl::Status status =
            context.client.WatchJob(name, 0, [](const v1::WatchJobResponse&) { return true; });
        if (!status.ok()) return status;
        job = context.client.GetJob(name);
        if (!job.ok()) return job.status();
      }
      PrintJob(context, *job);
      return absl::OkStatus();
    };
  });
}

void AddResume(CLI::App& group, Action& action) {
  struct Options {
    std::string name;
    bool watch = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "resume",
                           "Queue a cancelled or failed job again; it goes on from its last "
                           "checkpoint",
                           "gvsl jobs resume jobs/3f2a --watch");
  verb->add_option("JOB", options->name, "jobs/{id}, or its id")->required();
  verb->add_flag("--watch", options->watch, "then follow it, as `gvsl jobs watch`");
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      int64_t told = 0;  // what was before is not told again
      if (options->watch) {
        auto events = context.client.ListJobEvents(JobName(options->name));
        if (!events.ok()) return events.status();
        if (!events->empty()) told = events->back().sequence();
      }
      auto job = context.client.ResumeJob(JobName(options->name));
      if (!job.ok()) return job.status();
      if (options->watch) return Watch(context, job->name(), told);
      PrintJob(context, *job);
      return absl::OkStatus();
    };
  });
}

void AddDelete(CLI::App& group, Action& action) {
  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* verb = AddVerb(group, "delete", "Delete jobs with their checkpoints; their models stay",
                           "gvsl jobs delete jobs/3f2a");
  verb->add_option("JOB", *names, "jobs/{id}, or ids")->required();
  verb->callback([names, &action] {
    action = [names](Context& context) -> absl::Status {
      for (const std::string& text : *names) {
        const std::string name = JobName(text);
        if (absl::Status status = context.client.DeleteJob(name); !status.ok()) return status;
        if (!context.json) std::printf("deleted %s\n", name.c_str());
      }
      if (context.json) std::puts("{}");
      return absl::OkStatus();
    };
  });
}

void AddArtifacts(CLI::App& group, Action& action) {
  auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(group, "artifacts",
                           "List a job's checkpoints, models, TensorBoard files and pictures",
                           "gvsl jobs artifacts jobs/3f2a");
  verb->add_option("JOB", *name, "jobs/{id}, or its id")->required();
  verb->callback([name, &action] {
    action = [name](Context& context) -> absl::Status {
      auto artifacts = context.client.ListJobArtifacts(JobName(*name));
      if (!artifacts.ok()) return artifacts.status();
      if (context.json) {
        v1::ListJobArtifactsResponse list;
        for (const v1::JobArtifact& artifact : *artifacts) *list.add_artifacts() = artifact;
        PrintJson(list);
        return absl::OkStatus();
      }
      std::vector<std::vector<std::string>> rows = {{"PATH", "SIZE", "WRITTEN"}};
      for (const v1::JobArtifact& artifact : *artifacts) {
        rows.push_back({artifact.path(), BytesText(artifact.size_bytes()),
                        TimeUtil::ToString(artifact.update_time())});
      }
      PrintTable(rows);
      return absl::OkStatus();
    };
  });
}

void AddDownload(CLI::App& group, Action& action) {
  struct Options {
    std::string name, path, output;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "download", "Write one of a job's files to a file here",
                           "gvsl jobs download jobs/3f2a best.safetensors -o best.safetensors");
  verb->add_option("JOB", options->name, "jobs/{id}, or its id")->required();
  verb->add_option("PATH", options->path, "as `gvsl jobs artifacts` lists it")->required();
  verb->add_option("-o,--output", options->output,
                   "file to write (default: the same file name, in this folder)");
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      const std::string output = options->output.empty()
                                     ? std::filesystem::path(options->path).filename().string()
                                     : options->output;
      v1::DownloadJobArtifactRequest request;
      request.set_name(JobName(options->name));
      request.set_path(options->path);
      absl::StatusOr<v1::JobArtifact> artifact = absl::UnknownError("");
      {
        ProgressBar bar("downloading");
        artifact = context.client.DownloadJobArtifact(
            request, output, [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
      }
      if (!artifact.ok()) return artifact.status();
      if (context.json) {
        PrintJson(*artifact);
      } else {
        std::printf("wrote %s\n", output.c_str());
      }
      return absl::OkStatus();
    };
  });
}

void AddPlot(CLI::App& group, Action& action) {
  struct Options {
    std::string name, output;
    bool log = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = AddVerb(group, "plot", "Draw a job's losses over its steps, also while it runs",
                           "gvsl jobs plot jobs/3f2a -o losses.png");
  verb->add_option("JOB", options->name, "jobs/{id}, or its id")->required();
  verb->add_option("-o,--output", options->output, "PNG file to write")
      ->required()
      ->check(EndsIn({".png"}));
  verb->add_flag("--log", options->log, "draw losses on a logarithmic axis");
  verb->callback([options, &action] {
    action = [options](Context& context) -> absl::Status {
      auto job = context.client.GetJob(JobName(options->name));
      if (!job.ok()) return job.status();
      auto events = context.client.ListJobEvents(job->name());
      if (!events.ok()) return events.status();
      LossPlotOptions plot;
      plot.title = job->display_name().empty()
                       ? job->name()
                       : absl::StrCat(job->display_name(), "  (", job->name(), ")");
      plot.log_scale = options->log;
      auto png = LossPlotPng(*events, plot);
      if (!png.ok()) return png.status();
      if (absl::Status status = WriteWholeFile(options->output, *png); !status.ok()) return status;
      if (context.json) {
        PrintJson(*job);
      } else {
        std::printf("wrote %s\n", options->output.c_str());
      }
      return absl::OkStatus();
    };
  });
}

}  // namespace

void AddJobsCommands(CLI::App& app, Action& action) {
  CLI::App* group = app.add_subcommand("jobs", "Pre-training of networks on the server's volumes");
  group->require_subcommand(1);
  AddSubmit(*group, action);
  AddList(*group, action);
  AddShow(*group, action);
  AddWatch(*group, action);
  AddLogs(*group, action);
  AddCancel(*group, action);
  AddResume(*group, action);
  AddDelete(*group, action);
  AddArtifacts(*group, action);
  AddDownload(*group, action);
  AddPlot(*group, action);
}

}  // namespace gvsl::cli

#include "server/job_store.h"

#include "absl/strings/str_cat.h"
#include "imaging/status_reason.h"
#include "server/database_connection.h"
#include "server/job_query.h"

namespace gvsl {
namespace {

constexpr char kColumns[] =
    "spec, record, queue_us, event_sequence, event_offset, checkpoint_step, crashes, "
    "stop_requested";

// The record of a job without what has a column of its own.
std::string RecordOf(const v1::Job& job) {
  v1::Job record = job;
  record.clear_spec();
  return ToJson(record);
}

absl::StatusOr<v1::Job> JobOf(const std::string& spec, const std::string& record) {
  auto job = FromJson<v1::Job>(record);
  if (!job.ok()) return job;
  auto whole = FromJson<v1::PretrainingSpec>(spec);
  if (!whole.ok()) return whole.status();
  *job->mutable_spec() = *std::move(whole);
  return job;
}

// NOT_FOUND where there is none. Within Locked.
absl::StatusOr<StoredJob> Read(soci::session& sql, const std::string& id) {
  StoredJob stored;
  std::string spec, record;
  long long queue_us = 0, sequence = 0, offset = 0, checkpoint_step = 0;
  int stop_requested = 0;
  sql << absl::StrCat("SELECT ", kColumns, " FROM jobs WHERE id = :i"), soci::use(id, "i"),
      soci::into(spec), soci::into(record), soci::into(queue_us), soci::into(sequence),
      soci::into(offset), soci::into(checkpoint_step), soci::into(stored.crashes),
      soci::into(stop_requested);
  if (!sql.got_data()) return NotFound("jobs", id);
  auto job = JobOf(spec, record);
  if (!job.ok()) return job.status();
  stored.job = *std::move(job);
  stored.queue_us = queue_us;
  stored.event_sequence = sequence;
  stored.event_offset = offset;
  stored.checkpoint_step = checkpoint_step;
  stored.stop_requested = stop_requested != 0;
  return stored;
}

void AddInputs(soci::session& sql, const std::string& job_id, const JobInputs& inputs) {
  int position = 0;
  std::string role, collection, resource_id;
  soci::statement insert =
      (sql.prepare << "INSERT INTO job_inputs (job_id, position, role, collection, resource_id) "
                      "VALUES (:j, :p, :r, :c, :i)",
       soci::use(job_id, "j"), soci::use(position, "p"), soci::use(role, "r"),
       soci::use(collection, "c"), soci::use(resource_id, "i"));
  const auto add = [&](const char* as, const std::string& name) {
    role = as;
    collection = name.substr(0, name.find('/'));
    resource_id = IdPart(name);
    insert.execute(true);
    ++position;
  };
  for (const std::string& name : inputs.training) add("training", name);
  for (const std::string& name : inputs.validation) add("validation", name);
  if (!inputs.initial_model.empty()) add("initial_model", inputs.initial_model);
}

// One input of a job that is no longer stored, or "".
std::string MissingInput(soci::session& sql, const std::string& job_id) {
  for (const char* collection : {"volumes", "models"}) {
    std::string missing;
    sql << absl::StrCat("SELECT resource_id FROM job_inputs WHERE job_id = :j AND collection = '",
                        collection, "' AND resource_id NOT IN (SELECT id FROM ", collection,
                        ") LIMIT 1"),
        soci::use(job_id, "j"), soci::into(missing);
    if (sql.got_data()) return absl::StrCat(collection, "/", missing);
  }
  return "";
}

JobTotals CountUnfinished(soci::session& sql) {
  long long running = 0, queued = 0;
  sql << "SELECT COUNT(*) FROM jobs WHERE state = 'RUNNING'", soci::into(running);
  sql << "SELECT COUNT(*) FROM jobs WHERE state = 'QUEUED'", soci::into(queued);
  return {running, queued};
}

}  // namespace

absl::StatusOr<v1::Job> JobStore::Add(const v1::Job& job, const JobInputs& inputs,
                                      const Creation& creation) {
  return connection_.Locked([&]() -> absl::StatusOr<v1::Job> {
    soci::session& sql = connection_.sql;
    soci::transaction all(sql);
    auto before = connection_.MadeBefore("jobs", creation);
    if (!before.ok()) return before.status();
    if (!before->empty()) {
      auto made = Read(sql, *before);
      if (!made.ok()) return made.status();
      return std::move(made->job);
    }
    const JobTotals totals = CountUnfinished(sql);
    if (totals.running + totals.queued >= kMostUnfinished) {
      return WithReason(
          absl::ResourceExhaustedError(absl::StrCat(
              "there are ", kMostUnfinished, " jobs that have not ended; wait, or cancel some")),
          "TOO_MANY_JOBS");
    }
    const std::string id = IdPart(job.name()), state = v1::Job::State_Name(job.state());
    const std::string spec = ToJson(job.spec()), record = RecordOf(job);
    const long long create_us = Micros(job.create_time());
    sql << "INSERT INTO jobs (id, display_name, state, create_us, queue_us, spec, record, "
           "event_sequence, event_offset, checkpoint_step, crashes, stop_requested) VALUES (:i, "
           ":d, :s, :t, :q, :p, :r, 0, 0, 0, 0, 0)",
        soci::use(id, "i"), soci::use(job.display_name(), "d"), soci::use(state, "s"),
        soci::use(create_us, "t"), soci::use(create_us, "q"), soci::use(spec, "p"),
        soci::use(record, "r");
    AddInputs(sql, id, inputs);
    if (const std::string missing = MissingInput(sql, id); !missing.empty()) {
      return WithReason(absl::AbortedError(missing + " was deleted meanwhile; create the job anew"),
                        "INPUT_DELETED");
    }
    connection_.Remember("jobs", creation, id);
    all.commit();
    ++generation_;
    return job;
  });
}

absl::StatusOr<StoredJob> JobStore::Get(const std::string& name) {
  return connection_.Locked([&] { return Read(connection_.sql, IdPart(name)); });
}

absl::StatusOr<JobInputs> JobStore::Inputs(const std::string& name) {
  return connection_.Locked([&]() -> absl::StatusOr<JobInputs> {
    const std::string id = IdPart(name);
    std::string role, collection, resource_id;
    soci::statement statement =
        (connection_.sql.prepare << "SELECT role, collection, resource_id FROM job_inputs WHERE "
                                    "job_id = :j ORDER BY position",
         soci::use(id, "j"), soci::into(role), soci::into(collection), soci::into(resource_id));
    statement.execute();
    JobInputs inputs;
    while (statement.fetch()) {
      const std::string resource = absl::StrCat(collection, "/", resource_id);
      if (role == "training") {
        inputs.training.push_back(resource);
      } else if (role == "validation") {
        inputs.validation.push_back(resource);
      } else {
        inputs.initial_model = resource;
      }
    }
    return inputs;
  });
}

absl::StatusOr<JobPage> JobStore::List(const v1::ListJobsRequest& request) {
  auto condition = ParseJobFilter(request.filter());
  if (!condition.ok()) return condition.status();
  auto order = ParseJobOrder(request.order_by());
  if (!order.ok()) return order.status();
  auto plan =
      PlanList("jobs", {"spec", "record"},
               {request.page_size(), request.page_token(), request.filter(), request.order_by()},
               *std::move(condition), *order);
  if (!plan.ok()) return plan.status();
  return connection_.Locked([&]() -> absl::StatusOr<JobPage> {
    JobPage page;
    auto token = FetchPage(
        connection_, *plan,
        [](const std::vector<std::string>& row) { return JobOf(row[0], row[1]); }, page.jobs);
    if (!token.ok()) return token.status();
    page.next_page_token = *std::move(token);
    return page;
  });
}

absl::StatusOr<StoredJob> JobStore::Update(const std::string& name,
                                           const std::function<absl::Status(StoredJob&)>& change) {
  return connection_.Locked([&]() -> absl::StatusOr<StoredJob> {
    const std::string id = IdPart(name);
    soci::transaction all(connection_.sql);
    auto stored = Read(connection_.sql, id);
    if (!stored.ok()) return stored;
    if (absl::Status status = change(*stored); !status.ok()) return status;
    const std::string state = v1::Job::State_Name(stored->job.state());
    const std::string record = RecordOf(stored->job);
    const long long queue_us = stored->queue_us, sequence = stored->event_sequence,
                    offset = stored->event_offset, checkpoint_step = stored->checkpoint_step;
    const int stop_requested = stored->stop_requested ? 1 : 0;
    connection_.sql
        << "UPDATE jobs SET state = :s, record = :r, queue_us = :q, event_sequence = :e, "
           "event_offset = :o, checkpoint_step = :c, crashes = :n, stop_requested = :x WHERE id = "
           ":i",
        soci::use(state, "s"), soci::use(record, "r"), soci::use(queue_us, "q"),
        soci::use(sequence, "e"), soci::use(offset, "o"), soci::use(checkpoint_step, "c"),
        soci::use(stored->crashes, "n"), soci::use(stop_requested, "x"), soci::use(id, "i");
    all.commit();
    ++generation_;
    return stored;
  });
}

absl::Status JobStore::Delete(const std::string& name) {
  return connection_.Locked([&]() -> absl::Status {
    const std::string id = IdPart(name);
    soci::transaction all(connection_.sql);
    auto stored = Read(connection_.sql, id);
    if (!stored.ok()) return stored.status();
    if (!HasEnded(stored->job.state())) {
      return WithReason(
          absl::FailedPreconditionError(absl::StrCat(
              name, " has not ended; cancel it first (gvsl jobs cancel ", name, "), then delete")),
          "JOB_RUNNING");
    }
    connection_.sql << "DELETE FROM creations WHERE resource_id = :i", soci::use(id, "i");
    connection_.sql << "DELETE FROM jobs WHERE id = :i", soci::use(id, "i");
    all.commit();
    ++generation_;
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<std::string>> JobStore::InState(v1::Job::State state, int limit) {
  return connection_.Locked(
      [&]() -> absl::StatusOr<std::vector<std::string>> {
        const std::string wanted = v1::Job::State_Name(state);
        std::string id;
        soci::statement statement =
            (connection_.sql.prepare
                 << "SELECT id FROM jobs WHERE state = :s ORDER BY queue_us, id LIMIT :l",
             soci::use(wanted, "s"), soci::use(limit, "l"), soci::into(id));
        statement.execute();
        std::vector<std::string> names;
        while (statement.fetch()) names.push_back("jobs/" + id);
        return names;
      });
}

absl::StatusOr<JobTotals> JobStore::Totals() {
  return connection_.Locked(
      [&]() -> absl::StatusOr<JobTotals> { return CountUnfinished(connection_.sql); });
}

absl::StatusOr<std::set<std::string>> JobStore::Ids() {
  return connection_.Locked([&]() -> absl::StatusOr<std::set<std::string>> {
    const soci::rowset<std::string> rows = (connection_.sql.prepare << "SELECT id FROM jobs");
    return std::set<std::string>(rows.begin(), rows.end());
  });
}

}  // namespace gvsl

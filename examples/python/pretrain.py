#!/usr/bin/python3
"""Submits a pre-training job and follows it to its end, with plain gRPC stubs.

  examples/python/pretrain.py examples/jobs/quick-mr-cpu.textproto --server 127.0.0.1:8500

Needs Debian's python3-grpcio, python3-protobuf, protobuf-compiler and protobuf-compiler-grpc: the stubs are
made from proto/ at every start, into a folder that is gone afterwards. When the server restarts, the watch
goes on after the last event that it saw. Ctrl-C leaves the job running; --job follows it again. Exit status:
0 the job succeeded, 1 it did not, 2 wrong usage.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

PROTO = pathlib.Path(__file__).resolve().parent.parent.parent / "proto"
PROTOS = ["gvsl/v1/common.proto", "gvsl/v1/models.proto", "gvsl/v1/jobs.proto"]
ATTEMPTS = 8  # without any news from the server


class Failure(Exception):
    """What went wrong, in words for the user."""


def load_stubs(proto_dir):
    """jobs_pb2 and jobs_pb2_grpc, made from the protos with protoc and gRPC's plugin for Python."""
    protoc, plugin = shutil.which("protoc"), shutil.which("grpc_python_plugin")
    if not protoc or not plugin:
        raise Failure("protoc or grpc_python_plugin is missing: apt install protobuf-compiler protobuf-compiler-grpc")
    if not (proto_dir / PROTOS[-1]).is_file():
        raise Failure(f"{proto_dir} does not hold {PROTOS[-1]}: name the folder with --proto")
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run([protoc, f"--proto_path={proto_dir}", f"--python_out={folder}",
                               f"--grpc_python_out={folder}", f"--plugin=protoc-gen-grpc_python={plugin}", *PROTOS],
                              capture_output=True, text=True)
        if made.returncode != 0:
            raise Failure("protoc: " + made.stderr.strip())
        sys.path.insert(0, folder)
        try:
            from gvsl.v1 import jobs_pb2, jobs_pb2_grpc
        finally:
            sys.path.remove(folder)
    return jobs_pb2, jobs_pb2_grpc


def read_spec(path, jobs_pb2):
    from google.protobuf import text_format
    try:
        return text_format.Parse(pathlib.Path(path).read_text(), jobs_pb2.PretrainingSpec())
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}")
    except UnicodeDecodeError:
        raise Failure(f"{path}: is no text")
    except text_format.ParseError as error:  # "2:5 : what is wrong there"
        raise Failure(f"{path}: line {error.GetLine()}: {str(error).partition(' : ')[2]}")


def describe(error, server):
    """A failed call in words: the server's own where it has answered."""
    if error.code().name == "UNAVAILABLE":
        return f"cannot reach gvsld at {server}: is it running? ({error.details()})"
    return f"{error.code().name}: {error.details()}"


def losses_text(losses):
    return (f"loss {losses.total:.4g} (similarity {losses.similarity:.4g}, smoothness {losses.smoothness:.4g}, "
            f"restoration {losses.restoration:.4g})")


def event_text(event, total_steps):
    kind = event.WhichOneof("event")
    if kind == "step":
        return f"step {event.step.step} of {total_steps}  {losses_text(event.step.losses)}"
    if kind == "validation":
        v = event.validation
        return (f"validation at step {v.step}  {losses_text(v.losses)}  correlation {v.ncc_before:.4g} to "
                f"{v.ncc_after:.4g}" + ("  best" if v.best else ""))
    if kind == "started":
        return f"begins at step {event.started.step} on {event.started.device}"
    if kind == "checkpoint":
        return f"checkpoint at step {event.checkpoint.step}  {event.checkpoint.path}"
    if kind == "warning":
        return f"warning: {event.warning.message}"
    return f"{kind}"


def watch(stub, jobs_pb2, grpc, name, server):
    """Prints what the job tells until it has ended; its last record."""
    Job = jobs_pb2.Job
    ended = (Job.SUCCEEDED, Job.FAILED, Job.CANCELLED)
    sequence, attempts, job, reached = 0, 0, None, False
    while True:
        try:
            request = jobs_pb2.WatchJobRequest(name=name, after_sequence=sequence)
            for part in stub.WatchJob(request):
                reached = True
                if part.HasField("job"):
                    if job is None or part.job.state != job.state:
                        print(f"{part.job.name} is {Job.State.Name(part.job.state).lower()}", flush=True)
                    job = part.job
                else:
                    sequence, attempts = part.event.sequence, 0
                    print(event_text(part.event, job.total_steps), flush=True)
            if job is not None and job.state in ended:
                return job
            problem = "the watch ended before the job"
        except grpc.RpcError as error:
            # UNAVAILABLE: the server is gone; CANCELLED: it is stopping.
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or not reached:
                raise
            problem = describe(error, server)
        attempts += 1
        if attempts >= ATTEMPTS:
            raise Failure(f"{problem}; the job may still run: follow it with --job {name}")
        delay = min(0.2 * 2 ** attempts, 5)
        print(f"pretrain.py: {problem}; again in {delay:.1f} s", file=sys.stderr)
        time.sleep(delay)


def run(arguments):
    jobs_pb2, jobs_pb2_grpc = load_stubs(arguments.proto)
    import grpc
    spec = read_spec(arguments.spec, jobs_pb2) if arguments.spec else None
    name = arguments.job and "jobs/" + arguments.job.removeprefix("jobs/")
    with grpc.insecure_channel(arguments.server,
                               options=[("grpc.max_reconnect_backoff_ms", 1000)]) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        try:
            if spec is not None:
                display_name = arguments.name or pathlib.Path(arguments.spec).stem
                # With a request_id a submission may be repeated: it never makes two jobs.
                job = stub.CreateJob(jobs_pb2.CreateJobRequest(
                    job=jobs_pb2.Job(display_name=display_name, spec=spec),
                    request_id=arguments.request_id or uuid.uuid4().hex))
                name = job.name
                print(f"submitted {name}: {job.training_volume_count} volumes, {job.total_steps} steps", flush=True)
            job = watch(stub, jobs_pb2, grpc, name, arguments.server)
        except grpc.RpcError as error:
            raise Failure(describe(error, arguments.server))
        except KeyboardInterrupt:
            raise Failure(f"interrupted; {name} goes on: --job {name}" if name else "interrupted")
    if job.state == jobs_pb2.Job.FAILED:
        raise Failure(f"{name} has failed: {job.failure}")
    if job.state == jobs_pb2.Job.CANCELLED:
        raise Failure(f"{name} was cancelled at step {job.step} of {job.total_steps}")
    print(f"{name} has made {job.model}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="PretrainingSpec in protobuf text format")
    parser.add_argument("--job", help="follow this job in place of submitting one")
    parser.add_argument("--server", default="127.0.0.1:8500", help="HOST:PORT of gvsld (default %(default)s)")
    parser.add_argument("--name", help="display name of the job and its model (default: the file's name)")
    parser.add_argument("--request_id", help="a word of yours: submitting again with it gives the same job")
    parser.add_argument("--proto", type=pathlib.Path, default=PROTO, help="folder of the protos (default: this clone's)")
    arguments = parser.parse_args()
    if bool(arguments.spec) == bool(arguments.job):
        parser.error("give SPEC, or --job JOB")
    try:
        run(arguments)
    except Failure as failure:
        print(f"pretrain.py: {failure}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"pretrain.py: {error}: apt install python3-grpcio python3-protobuf", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

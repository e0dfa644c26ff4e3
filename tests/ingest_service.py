"""The real gvsl-ingest serve beside a gvsld of one's own, and DCMTK's senders, for tests written in Python."""
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.request

from service import BIN, SKIPPED, Service, until

ORTHANC = shutil.which("Orthanc", path=os.environ.get("PATH", "") + ":/usr/sbin")


def require_programs(*names):
    """Leaves the test as skipped where a program of another package is absent."""
    for name in names:
        if not shutil.which(name):
            print(f"skipped: {name} is not there")
            sys.exit(SKIPPED)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class IngestTest(unittest.TestCase):
    """A folder, a server that is not started yet, and a receiver that is not started yet."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.spool = self.folder / "spool"
        self.key = self.folder / "key"
        self.port = free_port()
        self.receiver = None
        self.addCleanup(self.kill)
        self.service = Service()
        self.addCleanup(self.service.close)

    def serve(self, *arguments, quiet=2, min_free=0, wait=True):
        with open(self.folder / "log", "a") as log:
            self.receiver = subprocess.Popen(
                [BIN / "gvsl-ingest", "serve", "--spool", self.spool, "--port", str(self.port),
                 "--quiet_seconds", str(quiet), "--key_file", self.key,
                 "--server", self.service.address or "127.0.0.1:1", "--min_free_bytes", str(min_free),
                 *map(str, arguments)], stderr=log)
        if wait:
            until(lambda: self.echo() == 0, every=0.1)

    def kill(self):
        if self.receiver and self.receiver.poll() is None:
            self.receiver.kill()
            self.receiver.wait()

    def echo(self, *arguments, called="GVSL", host="127.0.0.1"):
        self.assertIsNone(self.receiver.poll(), self.log())
        return subprocess.run(["echoscu", "-aec", called, *map(str, arguments), host, str(self.port)],
                              capture_output=True).returncode

    def log(self):
        return (self.folder / "log").read_text()

    def events(self, event):
        """The log's lines of one kind."""
        lines = map(json.loads, self.log().splitlines())
        return [line for line in lines if line["event"] == event]

    def store(self, files, *arguments, called="GVSL", wait=True):
        sender = subprocess.Popen(["storescu", "-v", "-aec", called, *map(str, arguments), "127.0.0.1",
                                   str(self.port), *map(str, files)], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
        self.addCleanup(sender.kill)
        if wait:
            sender.output = sender.communicate()[0]
        return sender

    def ingest(self, *arguments, check=True):
        return subprocess.run([BIN / "gvsl-ingest", *map(str, arguments)], env=self.service.environment(),
                              capture_output=True, text=True, check=check)

    def status(self):
        return json.loads(self.ingest("status", "--json", "--spool", self.spool).stdout)["series"]

    def states(self):
        return sorted(series["state"] for series in self.status())

    def until_uploaded(self, count):
        until(lambda: self.states() == ["uploaded"] * count, every=0.1)

    def phantoms(self, count=2, slices=12, first=0, size="32,28", folder="studies"):
        self.ingest("phantom", "--patient", first, "--count", count, "--size", f"{size},{slices}", "--spacing",
                    "10,10,20", "-o", self.folder / folder)
        return sorted((self.folder / folder).rglob("*.dcm"))

    def volumes(self):
        return self.service.must("--json", "volumes", "list").json().get("volumes", [])

    def spooled_uids(self):
        """What of each file's name is made from its SOP Instance UID."""
        return {path.name.split("-")[0] for path in self.spool.glob("series/*/instances/*.dcm")}

    def ledger(self):
        """All ledgers' entries: verdicts by SOP Instance UID."""
        entries = [entry for path in self.spool.glob("ledgers/*.json") for entry in json.loads(path.read_text())]
        return {entry["sopInstanceUid"]: entry["verdict"] for entry in entries}


class Archive:
    """A real archive: Debian's Orthanc on free ports of loopback, with what it stores in a folder."""

    def __init__(self, folder, modalities=None):
        self.log = folder / "orthanc.log"
        self.dicom_port, self.http_port = free_port(), free_port()
        (folder / "orthanc.json").write_text(json.dumps({
            "StorageDirectory": str(folder / "archive"), "IndexDirectory": str(folder / "archive"),
            "HttpPort": self.http_port, "DicomPort": self.dicom_port, "DicomAet": "ORTHANC",
            "AuthenticationEnabled": False, "Plugins": [], "DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True,
            "DicomModalities": modalities or {}}))
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([ORTHANC, folder / "orthanc.json"], stdout=subprocess.DEVNULL, stderr=log)
        until(self.answers, every=0.1)

    @property
    def peer(self):
        return f"ORTHANC@127.0.0.1:{self.dicom_port}"

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("system")
        except OSError:
            return None

    def get(self, path, data=None):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/{path}", data) as answer:
            return answer.read()

    def ask(self, path, data=None):
        return json.loads(self.get(path, data))

    def close(self):
        self.process.kill()
        self.process.wait()


def uids_of(files, tag="0008,0018"):
    """The UID of each file, all by one dcmdump."""
    files = list(map(str, files))
    dump = subprocess.run(["dcmdump", "-q", "-Un", "+P", tag, *files], capture_output=True, text=True, check=True).stdout
    uids = re.findall(rf"^\({tag}\) UI \[(.*?)\]", dump, re.M)
    assert len(uids) == len(files), dump
    return dict(zip(files, uids))


def spool_name(uid):
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def acknowledged(output):
    """The files that a sender's words show as stored."""
    done, current = [], None
    for line in output.splitlines():
        if match := re.match(r"I: Sending file: (.*)", line):
            current = match[1]
        elif "Received Store Response (Success)" in line:
            done.append(current)
    return done


@contextlib.contextmanager
def connection(port, data=b""):
    """A TCP connection that has said `data`."""
    with socket.create_connection(("127.0.0.1", port)) as made:
        made.sendall(data)
        yield made

"""The real programs, for tests written in Python: a gvsld of one's own and the gvsl command line."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ.get("GVSL_BIN_DIR", pathlib.Path(__file__).resolve().parent.parent / "build/bin"))
DATA = pathlib.Path(os.environ.get("GVSL_TEST_DATA",
                                   pathlib.Path(__file__).resolve().parent.parent / "../shared/data"))
SKIPPED = 77  # CTest's SKIP_RETURN_CODE


def require_data():
    """The folder of real volumes; leaves the test as skipped where it is absent."""
    if not (DATA / "volumes").is_dir():
        print(f"skipped: no real images at {DATA} (set GVSL_TEST_DATA)")
        sys.exit(SKIPPED)
    return DATA / "volumes"


def until(condition, seconds=60, every=0.001):
    """Waits for something to become true; looks again after `every` seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(every)


class Result:
    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout
        self.error = process.stderr

    def json(self):
        return json.loads(self.out)


class Service:
    """A gvsld on a free port of loopback, with its data in a temporary folder."""

    def __init__(self, *arguments):
        self.arguments = arguments
        self._folder = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._folder.name)
        self.process = None
        self.address = ""

    def start(self, port=0):
        """Starts it, on the port of an earlier one where its clients shall find it again."""
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(
                [BIN / "gvsld", "--data_dir", self.folder / "data", "--listen", f"127.0.0.1:{port}",
                 "--port_file", port_file, *self.arguments], stderr=log)
        while not (port_file.exists() and port_file.read_text().strip()):
            if self.process.poll() is not None:
                raise RuntimeError("gvsld did not start: " + (self.folder / "log").read_text())
            time.sleep(0.05)
        self.address = "127.0.0.1:" + port_file.read_text().strip()
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Asks for a drain by SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def restart(self):
        """A kill, and a new process at the same address."""
        self.kill()
        return self.start(int(self.address.split(":")[1]))

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()
        self._folder.cleanup()

    def environment(self):
        return dict(os.environ, GVSL_SERVER=self.address)

    def gvsl(self, *arguments, timeout=300):
        """Runs the command line; the result, whatever its exit status."""
        return Result(subprocess.run([BIN / "gvsl", *map(str, arguments)], env=self.environment(),
                                     capture_output=True, text=True, timeout=timeout))

    def must(self, *arguments, timeout=300):
        """Runs the command line, which must succeed."""
        result = self.gvsl(*arguments, timeout=timeout)
        if result.code != 0:
            raise AssertionError(f"gvsl {' '.join(map(str, arguments))[:300]} failed ({result.code}):\n"
                                 f"{result.error[-2000:]}\nserver log:\n"
                                 + (self.folder / "log").read_text()[-2000:])
        return result

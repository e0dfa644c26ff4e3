#!/usr/bin/python3
"""Runs what the documents tell a reader to type.

  docs_test.py tour BIN_DIR     runs every `$ command` of README.md's console blocks, in order, in one shell
                                in a folder with build/ and examples/ alone, and fails at the first that fails
  docs_test.py names            every script, preset, file and link that the documents name is there

The tour's server gets a free port instead of the default one, so that the test runs beside a real server.
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "examples/README.md"] + sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def tour(bin_dir):
    commands = [line[2:] for block in blocks((ROOT / "README.md").read_text(), "console")
                for line in block.splitlines() if line.startswith("$ ")]
    if len(commands) < 8:
        print(f"README.md: only {len(commands)} commands found in console blocks")
        return 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = ["set -euo pipefail"]
    for command in commands:
        script.append("echo " + json.dumps("$ " + command).replace("$", "\\$").replace("`", "\\`"))
        script.append(re.sub(r"^gvsld ", f"gvsld --listen 127.0.0.1:{port} ", command))
    environment = dict(os.environ, PATH=f"{bin_dir}:{os.environ['PATH']}", GVSL_SERVER=f"127.0.0.1:{port}")
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "build").symlink_to(pathlib.Path(bin_dir).parent)
        (pathlib.Path(folder) / "examples").symlink_to(ROOT / "examples")
        shell = subprocess.Popen(["bash"], stdin=subprocess.PIPE, text=True, cwd=folder,
                                 env=environment, start_new_session=True)
        try:
            shell.communicate("\n".join(script) + "\n", timeout=540)
        finally:
            try:  # a tour that failed may have left its server
                os.killpg(shell.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
    return shell.returncode


def names():
    presets = {preset["name"] for preset in
               json.loads((ROOT / "CMakePresets.json").read_text())["buildPresets"]}
    problems = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        for script in sorted(set(re.findall(r"\b(?:scripts|bench|deploy|examples)/[a-z_-]+(?:[./][a-z_-]+)*", text))):
            if not (ROOT / script).exists():
                problems.append(f"{document}: names {script}, which is not there")
        for preset in re.findall(r"(?:scripts/build|--preset) ([a-z][a-z-]*)", text):
            if preset not in presets:
                problems.append(f"{document}: names preset {preset}, which CMakePresets.json lacks")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            if not ((ROOT / document).parent / link).exists():
                problems.append(f"{document}: link to {link}, which is not there")
    print("\n".join(problems))
    return 1 if problems else 0


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "tour":
        return tour(os.path.abspath(sys.argv[2]))
    if sys.argv[1:] == ["names"]:
        return names()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

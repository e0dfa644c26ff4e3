#!/usr/bin/python3
"""Faults while instances are on their way: every instance that was answered with success ends in a volume, or in the
ledger with its reason. Prints the table of docs/ingestion.md."""
import json
import os
import random
import select
import socket
import subprocess
import threading
import time
import unittest

from ingest_service import IngestTest, acknowledged, connection, free_port, require_programs, spool_name, uids_of
from service import until

require_programs("storescu", "dcmodify")


class Cable:
    """A port that leads to another one, until it is cut after so many bytes of the sender."""

    def __init__(self, port, cut_after):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.carry, args=(port, cut_after))
        self.thread.start()

    def carry(self, port, left):
        near, _ = self.listener.accept()
        with self.listener, near, socket.create_connection(("127.0.0.1", port)) as far:
            while left > 0:
                for side in select.select([near, far], [], [])[0]:
                    data = side.recv(min(left, 4096))
                    if not data:
                        return
                    (far if side is near else near).sendall(data)
                    left -= len(data) if side is near else 0


def association_request(calling="FLOOD", called="GVSL"):
    """The bytes of an A-ASSOCIATE-RQ, as echoscu says them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asker = subprocess.Popen(["echoscu", "-aet", calling, "-aec", called, "127.0.0.1",
                                  str(listener.getsockname()[1])], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        with listener.accept()[0] as asked:
            request = asked.recv(6, socket.MSG_WAITALL)
            request += asked.recv(int.from_bytes(request[2:6], "big"), socket.MSG_WAITALL)
        asker.wait()
    return request


class IngestFault(IngestTest):
    def setUp(self):
        super().setUp()
        self.random = random.Random(5)

    def count(self, fault, files, stored, verdicts=("USED",)):
        """Every instance of the files in `stored` is in the ledger, with one of the verdicts."""
        ledger = self.ledger()
        uids = set(uids_of(set(stored)).values())
        lost = uids - set(ledger)
        used = sum(ledger.get(uid) == "USED" for uid in uids)
        print(f"| {fault} | {len(set(files))} | {len(uids)} | {used} | {len(uids) - used - len(lost)} | {len(lost)} |",
              flush=True)
        self.assertEqual(lost, set())
        self.assertLessEqual({ledger[uid] for uid in uids}, set(verdicts))

    def store_all(self, files):
        self.assertEqual(self.store(files).returncode, 0)

    def assert_whole(self, count, slices):
        """So many volumes of all slices; a slow sender leaves earlier revisions of fewer slices beside them."""
        self.assertEqual([volume["grid"]["size"][2] for volume in self.volumes()].count(slices), count)

    def test_a_receiver_killed_in_associations(self):
        files = self.phantoms(count=4, slices=40)
        stored = []
        for attempt in range(3):
            self.serve()
            senders = [self.store(files[part::4], wait=False) for part in range(4)]
            # In the midst of it, at another place each time.
            before = len(self.spooled_uids())
            until(lambda: len(self.spooled_uids()) >= min(before + 10 + 15 * attempt, len(files)))
            self.kill()
            for sender in senders:
                stored += acknowledged(sender.communicate()[0])
        self.assertGreater(len(stored), 30)
        self.assertLessEqual(set(map(spool_name, uids_of(set(stored)).values())), self.spooled_uids())
        # And the rest arrives when it is sent again.
        self.service.start()
        self.serve()
        self.store_all(files)
        self.until_uploaded(4)
        self.assert_whole(4, "40")
        self.assertEqual(list((self.spool / "incoming").iterdir()), [])
        self.count("SIGKILL of the receiver in 4 associations, 3 times", files, stored)

    def test_a_receiver_killed_while_it_uploads(self):
        self.service.start()
        files = self.phantoms(count=6, slices=60, size="256,256")  # long enough under way to be seen there
        self.serve(quiet=1)
        self.store_all(files)
        kills = 0
        while kills < 3 and self.states() != ["uploaded"] * 6:
            if any(state["underWay"] for state in self.spool_states()):
                time.sleep(self.random.uniform(0, 0.05))
                self.kill()
                kills += 1
                self.serve(quiet=1)
        self.assertGreater(kills, 0)
        self.until_uploaded(6)
        self.assert_whole(6, "60")
        self.count(f"SIGKILL of the receiver while it uploads, {kills} times", files, files)

    def spool_states(self):
        return [json.loads(path.read_text()) for path in self.spool.glob("series/*/state.json")]

    def test_a_server_killed_while_it_is_uploaded_to(self):
        self.service.start()
        files = self.phantoms(count=3, slices=60, size="256,256")  # 7.5 MiB each
        self.serve(quiet=1)
        self.store_all(files)
        uploads = self.service.folder / "data/uploads"
        for _ in range(2):
            until(lambda: any(path.stat().st_size for path in uploads.glob("*.part")))
            self.service.restart()
        self.until_uploaded(3)
        self.assert_whole(3, "60")
        self.count("SIGKILL of the server while it is uploaded to, twice", files, files)

    def test_a_server_away_for_a_while(self):
        self.service.start()
        port = int(self.service.address.split(":")[1])
        self.service.kill()
        self.serve()
        files = self.phantoms(count=2)
        self.store_all(files)
        until(lambda: self.states() == ["retrying"] * 2, every=0.1)
        self.service.start(port)
        self.until_uploaded(2)
        self.assertEqual(len(self.volumes()), 2)
        self.count("server away", files, files)

    def test_a_full_disk(self):
        self.spool.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", self.spool],
                          capture_output=True).returncode != 0:
            self.skipTest("no right to mount a small disk")
        self.addCleanup(subprocess.run, ["umount", "--lazy", self.spool])
        self.service.start()
        self.serve("--keep_seconds", "1", quiet=4, min_free=1 << 18)
        files = self.phantoms(count=1, slices=40, size="256,256")  # 5 MiB
        stored = acknowledged(self.store(files).output)
        self.assertGreater(len(stored), 5)
        self.assertLess(len(stored), len(files))
        self.assertIn("A700", {event["status"] for event in self.events("refused")})
        # The sender tries again what was not stored: there is room as soon as volumes are uploaded.
        while rest := [file for file in files if str(file) not in stored]:
            until(lambda: not list(self.spool.glob("series/*/instances/*")))
            stored += acknowledged(self.store(rest).output)
        until(lambda: not list(self.spool.glob("series/*/instances/*")))
        self.assertGreaterEqual(len(self.volumes()), 3)
        self.count("spool's disk of 2 MiB full", files, stored, ("USED", "SINGLE_SLICE"))

    def test_a_nearly_full_disk_and_too_large_objects(self):
        files = self.phantoms(count=1, slices=2)
        self.serve(min_free=1 << 49)
        self.assertEqual(acknowledged(self.store(files).output), [])
        self.assertEqual({event["status"] for event in self.events("refused")}, {"A700"})
        self.assertEqual(self.spooled_uids(), set())
        self.kill()
        self.port = free_port()
        self.serve("--max_object_bytes", 1 << 20)
        large = self.phantoms(count=1, slices=2, size="1024,1024", folder="large")
        refused = len(self.events("refused"))
        # The too large one is refused, and its association goes on.
        self.assertEqual(acknowledged(self.store([large[0], *files], "-nh").output), list(map(str, files)))
        self.assertEqual([event["status"] for event in self.events("refused")][refused:], ["A700"])
        self.assertEqual(len(self.spooled_uids()), 2)

    def test_a_connection_cut_in_an_instance(self):
        self.service.start()
        self.serve()
        files = self.phantoms(count=1, slices=20, size="128,128")  # 33 kB each
        stored = []
        for cut_after in (100, 20_000, 100_000, 333_333):
            cable = Cable(self.port, cut_after)
            sender = subprocess.run(["storescu", "-v", "-aec", "GVSL", "127.0.0.1", str(cable.port),
                                     *map(str, files)], capture_output=True, text=True)
            cable.thread.join()
            self.assertNotEqual(sender.returncode, 0)
            stored += acknowledged(sender.stdout + sender.stderr)
        self.assertGreater(len(stored), 3)
        # The half of an instance goes when the connection is known to be gone.
        until(lambda: list((self.spool / "incoming").iterdir()) == [])
        self.assertLessEqual(set(map(spool_name, uids_of(set(stored)).values())), self.spooled_uids())
        self.store_all(files)
        until(lambda: any(volume["grid"]["size"][2] == "20" for volume in self.volumes()), every=0.1)
        self.until_uploaded(1)
        self.count("connection cut inside a PDU, 4 times", files, stored)

    def test_objects_shorter_than_they_say(self):
        self.service.start()
        self.serve()
        files = self.phantoms(count=1)
        # Twice the rows, and no more pixels.
        subprocess.run(["dcmodify", "-nb", "-m", "(0028,0010)=56", *files[:3]], check=True, capture_output=True)
        self.store_all(files)
        self.until_uploaded(1)
        self.count("3 objects with half of their pixels", files, files, ("USED", "TRUNCATED"))
        self.assertEqual(sorted(self.ledger().values()), ["TRUNCATED"] * 3 + ["USED"] * 9)

    def test_a_flood_of_connections_and_associations(self):
        self.service.start()
        self.serve("--max_associations", "3")
        files = self.phantoms(count=1)
        flood = [connection(self.port, data) for data in
                 (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x00\x00\x00\x10", os.urandom(4096)) * 3]
        for one in flood:
            one.__enter__()
        # Twelve that say nothing of use do not keep this one waiting.
        self.store_all(files[:6])
        for one in flood:
            one.__exit__(None, None, None)

        request = association_request()
        held = []
        for _ in range(3):
            held.append(socket.create_connection(("127.0.0.1", self.port)))
            held[-1].sendall(request)
            self.assertEqual(held[-1].recv(1), b"\x02", "accepted")
        self.assertNotEqual(self.store(files[6:]).returncode, 0)
        self.assertIn("too many associations", {event["peer"] for event in self.events("rejected")})
        for one in held:
            one.close()
        until(lambda: self.echo() == 0, every=0.1)
        self.store_all(files[6:])
        until(lambda: len(self.ledger()) == 12)
        self.count("a flood of connections, and all associations taken", files, files)


if __name__ == "__main__":
    unittest.main()

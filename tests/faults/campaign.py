# SPDX-License-Identifier: Apache-2.0
"""Killing at random: a server, its workers, its decoders and its clients, one at a time.

Each seed sends a shot or two through one and the same server and ends somebody by SIGKILL at a
moment of its own. Nothing is looked at but what an artist or a disk would show: how jobs ended,
which files are visible, what the table says.
"""

import json
import random
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from faults.artist import connected, order_of
from faults.stage import Server, half_written, make_shot, send, table_of
from gencomp_protocol.client import request_key
from gencomp_protocol.transfer import digest_of_file

VICTIMS = {"front": 8, "worker": 4, "decoder": 3, "client": 3, "all": 2}
LATEST_S = 1.1  # After the client is started; a shot that nobody disturbs takes about so long.
END_S = 90.0


@dataclass
class Found:
    """What a campaign came to.

    Attributes:
        seeds: How many there were.
        kills: Who was killed how often.
        jobs: How many jobs were sent in.
        lost: Shots that did not come out.
        doubled: Keys of which there is more than one job.
        half: Visible files that were not whole.
        other: Layers whose bytes are not those of an unbroken run.
        tables: What integrity checks said that is not ok.
        starts_s: How long each restart took until clients could connect.
        memory: Jobs so far, and bytes of main memory that the front had then.
    """

    seeds: int = 0
    kills: dict = field(default_factory=dict)
    jobs: int = 0
    lost: list = field(default_factory=list)
    doubled: list = field(default_factory=list)
    half: list = field(default_factory=list)
    other: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    starts_s: list = field(default_factory=list)
    memory: list = field(default_factory=list)


class Campaign:
    """A server, and shots that are sent to it while somebody is killed.

    Args:
        folder: Where everything goes.
        victims: Who is killed, and how often compared with the others.
        settings: Settings of the server.
    """

    def __init__(self, folder, victims=None, **settings):
        self._folder, self._server = folder, Server(folder / "server", **settings)
        self._victims = victims or VICTIMS
        self._orders = []
        self.found = Found()

    def run(self, seeds):
        """Go through the seeds; return what was found."""
        with self._server:
            for seed in seeds:
                self._one(seed)
            self._look("at the end")
            rows, _ = table_of(self._server.spool, self._folder / "copy")
        self._count(rows)
        self._compare()
        return self.found

    def _one(self, seed):
        dice = random.Random(seed)
        names = list(self._victims)
        victim = dice.choices(names, [self._victims[name] for name in names])[0]
        pause_s = dice.uniform(0.0, LATEST_S)
        orders = []
        for at in range(dice.choice((1, 2))):
            shot = make_shot(self._folder / "shots" / f"{seed}-{at}", 2 * seed + at)
            orders.append((shot, {"wait_s": dice.choice((0.02, 0.05, 0.1))}))
        self._orders += orders
        client = send(self._server.state_file, orders)
        time.sleep(pause_s)
        self._kill(victim, client)
        self._look(f"seed {seed}, {victim} after {pause_s:.2f} s")
        if self._server.process.poll() is not None:
            self._server.start()
            self.found.starts_s.append(self._server.start_s)
        if client.poll() is not None and victim in ("client", "all"):
            client = send(self._server.state_file, orders)
        ends = self._wait(client)
        for shot, _ in orders:
            if ends.get(shot.name, {}).get("state") != "done":
                self.found.lost.append((seed, victim, round(pause_s, 2), ends.get(shot.name)))
        front = psutil.Process(self._server.process.pid)
        self.found.memory.append((self.found.jobs, front.memory_info().rss))
        self.found.seeds += 1
        self.found.jobs += len(orders)
        self.found.kills[victim] = self.found.kills.get(victim, 0) + 1

    def _kill(self, victim, client):
        if victim == "nobody":
            return
        family = self._server.family()
        if victim in ("client", "all"):
            client.kill()
            client.wait(30)
            client.stdout.close()
        if victim in ("front", "all"):
            if victim == "all":
                for one in (*family["worker"], *family["decoder"]):
                    one.kill()
            self._server.kill()
        if victim in ("worker", "decoder") and family[victim]:
            with suppress(psutil.NoSuchProcess):
                family[victim][0].kill()

    def _look(self, when):
        """Look at the disk as it is at this moment."""
        for folder in (self._server.spool / "jobs", self._folder / "shots"):
            self.found.half += [(when, str(path)) for path in half_written(folder)]
        _, said = table_of(self._server.spool, self._folder / "copy")
        if said != "ok":
            self.found.tables.append((when, said))

    def _wait(self, client):
        """Return how each order ended."""
        try:
            said, _ = client.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            client.kill()
            said, _ = client.communicate()
        events = [json.loads(line) for line in said.splitlines()]
        return {entry["shot"]: entry for entry in events if entry["event"] == "end"}

    def _count(self, rows):
        """Compare what the table holds with what was sent in."""
        wanted = {}
        for shot, knobs in self._orders:
            wanted[request_key(*order_of(shot, knobs))] = shot.name
        for key, name in wanted.items():
            own = [row for row in rows if row[1] == key]
            if len(own) > 1:
                self.found.doubled.append((name, own))
            if not any(row[2] == "done" for row in own):
                self.found.lost.append((name, own))
        strange = [row for row in rows if row[1] not in wanted]
        self.found.doubled += [("unknown", row) for row in strange]

    def _compare(self):
        """Compare every layer with that of a run that nobody disturbed, on a server of its own."""
        with Server(self._folder / "calm") as calm, connected(calm.state_file) as client:
            for shot, _ in self._orders:
                request, pictures = order_of(shot, {"wait_s": 0.0})
                job = client.submit(request, pictures, request_key(request, pictures))
                manifest = client.follow(job, pictures=pictures).manifest
                for layer, facts in manifest["layers"].items():
                    for frame, one in facts["frames"].items():
                        path = shot / "out" / layer / f"{layer}.{int(frame):04d}.exr"
                        if not path.is_file():
                            self.found.lost.append((shot.name, layer, frame))
                        elif digest_of_file(path) != one["digest"]:
                            self.found.other.append((shot.name, layer, frame))
                client.release(job)

"""The events of a run. One seed decides all of them, whatever the daemon does.

In: a seed. Out: an endless row of lives of the daemon, and an endless row of changes of the world
around it (service, disk, clock, load).
"""

from dataclasses import dataclass, field
from random import Random

#: The behaviours of the service, and how often each is drawn.
MODES = {
    "works": 30,
    "refuses connections": 8,
    "answers 500": 6,
    "throttles": 8,
    "throttles documents": 4,
    "hangs": 6,
    "cuts before it takes a request": 4,
    "cuts after it has taken a request": 6,
    "sends half an answer": 3,
    "answers late": 4,
    "finds requests too large": 3,
    "is another server": 3,
    "answers what cannot be read": 2,
    "denies": 1,
}

#: How wrong the date of the host can be, in seconds.
HOUR, DAY = 3600, 24 * 3600
OFFSETS = [0, 0, 0, 5, -5, 200, -200, 3 * HOUR, -3 * HOUR, 5 * DAY, -5 * DAY, 30 * DAY]
OFFSETS += [-100 * DAY, -56 * 365 * DAY, 70 * 365 * DAY]

#: The size of a request of 50 documents.
BODY_MB = 0.125

#: The sizes of the disk and of the smaller spool. The larger spool does not fit on the disk.
DISK_MB = 20
SPOOL_MB = [16, 16, 32]


@dataclass(frozen=True)
class Settings:
    """How a life of the daemon is started."""

    memory_mb: int
    spool_mb: int
    shutdown_seconds: int
    concurrency: int
    receiver: str

    def is_tight(self):
        """Returns whether the batches in flight may take half of the memory. New segments then
        have no room, whatever the spool can take.
        """
        return self.concurrency * BODY_MB > 0.2 * self.memory_mb

    def rate_max(self):
        """Returns the documents a second that the rings hold for two seconds, so that a busy machine
        is no reason for a loss.
        """
        return {3: 200, 4: 400, 6: 600}.get(self.memory_mb, 1000)


@dataclass(frozen=True)
class Life:
    """A life of the daemon: its settings, its stops, its end and the pause after it."""

    settings: Settings
    #: When the process is stopped, in seconds since the stop before, and for how long.
    stops: list = field(default_factory=list)
    #: Seconds from the last stop to the end.
    seconds: float = 0.0
    #: How it ends: "killed", "killed while stopped", "ended", "ended at once" (a second signal),
    #: "killed during the shutdown".
    end: str = "ended"
    #: Seconds between two signals of the end.
    patience: float = 0.0
    #: Seconds until the next life begins.
    pause: float = 0.0


#: The last life: everything that is left arrives.
LAST = Life(Settings(32, 32, 8, 8, "auto"))


def lives(seed):
    """Yields the lives of the daemon."""
    random = Random(f"{seed} lives")
    ends = ["killed"] * 7 + ["killed while stopped"] * 2 + ["ended"] * 7
    ends += ["ended at once"] * 2 + ["killed during the shutdown"] * 3
    while True:
        settings = Settings(
            memory_mb=random.choice([3, 3, 4, 6, 8, 16]),
            spool_mb=random.choice(SPOOL_MB),
            shutdown_seconds=random.choice([4, 8]),
            concurrency=random.choice([1, 3, 8]),
            receiver=random.choice(["auto", "auto", "recvmmsg"]),
        )
        stops = [
            (random.uniform(0.2, 6), random.uniform(0.2, 5))
            for _ in range(random.choice([0, 0, 1, 2]))
        ]
        yield Life(
            settings=settings,
            stops=stops,
            seconds=random.choice([random.uniform(0.0, 3), random.uniform(3, 25)]),
            end=random.choice(ends),
            patience=random.uniform(0.05, 3),
            pause=random.choice([0.0, random.uniform(0, 2)]),
        )


def _services(random):
    while True:
        mode = random.choices(list(MODES), MODES.values())[0]
        share = random.choice([1.0, 1.0, random.uniform(0.1, 0.9)])
        seconds = random.choice([random.uniform(0.5, 4), random.uniform(4, 20)])
        if mode == "denies":
            seconds = min(seconds, 4)
        values = {
            "documents_per_second": random.uniform(20, 500),
            "body_bytes_max": random.randrange(3_000, 40_000),
            "answer_seconds": random.choice([random.uniform(0.1, 3), 17]),
            "resets": random.random() < 0.5,
        }
        yield seconds, ("service", mode, share, values)


def _disks(random):
    while True:
        yield random.uniform(5, 40), ("disk", None)
        # So many bytes are left free.
        yield random.uniform(1, 15), ("disk", random.choice([0, 0, random.randrange(400_000)]))


def _clocks(random):
    while True:
        yield random.uniform(1, 25), ("clock", random.choice(OFFSETS))


def _loads(random):
    while True:
        yield random.uniform(2, 15), ("load", random.choice([20, 100, 300, 300, 600, 1000]))


def changes(seed):
    """Yields the changes of the world: the time in seconds, and the change."""
    makers = [_services, _disks, _clocks, _loads]
    rows = [maker(Random(f"{seed} {maker.__name__}")) for maker in makers]
    heads = [[0.0, *next(row)] for row in rows]
    while True:
        index = min(range(len(rows)), key=lambda at: heads[at][0])
        at, seconds, change = heads[index]
        yield at, change
        heads[index] = [at + seconds, *next(rows[index])]

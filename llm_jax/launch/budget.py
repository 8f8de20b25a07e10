"""How often the hosts of a job ask its output folder, by their number.

A bucket takes about 5,000 reads and 1,000 writes per second before it has grown (Cloud Storage,
"Request rate and access distribution guidelines"). All hosts of a job together stay at 500 requests
per second, whatever their number: a few readers list the folder and publish the news, and every
other host reads that one object. `benchmarks/scale.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_jax.launch.spec import JobSpec

READERS = 8
"""Hosts that list the folder. As many may be lost at once before others have to take over."""
NEWS_PER_SECOND = 200.0
"""Of all hosts together: reads of the news."""
SIGNS_PER_SECOND = 64.0
"""Of all hosts together: signs of life."""
STATUS_PER_SECOND = 32.0
"""Of all hosts together: reads of the trainers' reports, which are written as often, and uploads of
logs if all hosts write."""
HOSTS_PER_SECOND = 2048
"""Whose files a reader lists per second: two of each, in pages of a thousand."""
WRITES_PER_SECOND = 400.0
"""Of all hosts together, where something makes all of them write at the same moment."""


@dataclass(frozen=True)
class Pace:
    """Seconds between two requests of one host, by what it asks."""

    look: float
    """Of a reader: listing the attempt, and reading the news."""
    news: float
    """Of all others: reading the news."""
    announce: float
    """A sign of life."""
    status: float
    """Reading the trainer's own report, where it comes through the folder."""
    log: float
    """Sending the trainer's output."""
    spread: float
    """What all hosts do at the same moment is spread over so many seconds."""
    refresh: float
    """Of a reader: the news are written again although nothing is new, as a sign of life."""
    stale: float
    """News that stay the same for so long have no writer: others take over."""
    turn: float
    """How long a reader gives the one before it to close an attempt."""


def pace(spec: JobSpec, bucket: bool) -> Pace:
    """The pace of a job's hosts; `bucket`: the folder is one, not a local or shared disk."""
    hosts = spec.hosts
    alone = hosts <= READERS  # all are readers, and news have no reader
    quick = 2.0 if bucket else 0.25  # as long as a listing has few pages
    news = max(5.0 if bucket else 0.25, hosts / NEWS_PER_SECOND)
    refresh = max(20.0, 2 * news)
    return Pace(
        look=max(quick, hosts / HOSTS_PER_SECOND),
        news=news,
        # Three may be late before a host counts as silent.
        announce=min(max(10.0, hosts / SIGNS_PER_SECOND), spec.limits.heartbeat / 3),
        status=max(5.0 if bucket else 0.25, hosts / STATUS_PER_SECOND),
        log=max(10.0 if bucket else 0.25, hosts / STATUS_PER_SECOND),
        spread=0.0 if alone else hosts / WRITES_PER_SECOND,
        refresh=refresh,
        stale=3 * refresh,
        turn=0.0 if alone else 10.0,
    )


def turn_of(process: int, hosts: int) -> int | None:
    """The place of a reader among the readers, which are spread evenly over the slices; None of all
    other hosts."""
    places = [place * hosts // READERS for place in range(min(READERS, hosts))]
    places = list(range(hosts)) if hosts <= READERS else places
    return places.index(process) if process in places else None

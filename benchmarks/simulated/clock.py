"""Virtual time: threads that run one at a time, in an order that depends on nothing but the seed.

The code under test keeps its loops and its sleeps. Its modules see `World` in place of `time` and
`threading`; a thread that sleeps hands the turn to the one that wakes next.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Any

STACK_BYTES = 512 << 10
EPOCH = 1_790_000_000.0


class Killed(BaseException):
    """The machine that runs this thread is gone."""


class Task:
    """A thread, and the machine's clock that it reads."""

    def __init__(self, work: Callable[[], None], skew: float) -> None:
        self.work, self.skew = work, skew
        self.turn = threading.Lock()
        self.turn.acquire()
        self.wakeup = 0
        self.killed = self.ended = False


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Task | Callable[[], None], int]] = []
        self._order = itertools.count()
        self.task = Task(lambda: None, 0.0)
        threading.stack_size(STACK_BYTES)

    def spawn(self, work: Callable[[], None], skew: float = 0.0) -> Task:
        """Starts a task, which runs from now on; `skew` is the error of its machine's clock."""
        task = Task(work, skew)
        threading.Thread(target=self._run, args=(task,), daemon=True).start()
        self._push(self.now, task, task.wakeup)
        return task

    def at(self, moment: float, work: Callable[[], None]) -> None:
        """Calls `work`, which must not sleep, at a moment of virtual time."""
        self._push(moment, work, 0)

    def sleep(self, seconds: float) -> None:
        task = self._here()
        self._push(self.now + max(0.0, seconds), task, task.wakeup)
        self._give_turn(task)

    def wake(self, task: Task) -> None:
        self._push(self.now, task, task.wakeup)

    def kill(self, task: Task) -> None:
        task.killed = True
        self.wake(task)

    def block(self, seconds: float | None) -> None:
        """Sleeps until `wake`, but at most so long."""
        task = self._here()
        if seconds is not None:
            self._push(self.now + max(0.0, seconds), task, task.wakeup)
        self._give_turn(task)

    def _here(self) -> Task:
        if self.task.killed:
            raise Killed
        return self.task

    def _push(self, moment: float, what: Task | Callable[[], None], wakeup: int) -> None:
        heapq.heappush(self._heap, (moment, next(self._order), what, wakeup))

    def _run(self, task: Task) -> None:
        task.turn.acquire()
        try:
            self.task = task
            if not task.killed:
                task.work()
        except Killed:
            pass  # as a machine that loses its power
        task.ended = True
        following = self._next()
        following.turn.release()

    def _give_turn(self, task: Task) -> None:
        following = self._next()
        if following is not task:
            following.turn.release()
            task.turn.acquire()
        self.task = task
        if task.killed:
            raise Killed

    def _next(self) -> Task:
        while True:
            self.now, _, what, wakeup = heapq.heappop(self._heap)
            if not isinstance(what, Task):
                what()
            elif what.wakeup == wakeup and not what.ended:
                what.wakeup += 1
                return what


class Time:
    """Stands for the module `time`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.sleep = world.sleep

    def monotonic(self) -> float:
        return self._world.now

    def time(self) -> float:
        return EPOCH + self._world.now + self._world.task.skew


class Event:
    """Stands for `threading.Event`."""

    def __init__(self, world: World) -> None:
        self._world, self._set = world, False
        self._waiting: list[Task] = []

    def set(self) -> None:
        self._set = True
        for task in self._waiting:
            self._world.wake(task)
        self._waiting.clear()

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            task = self._world.task
            self._waiting.append(task)
            self._world.block(timeout)
            if task in self._waiting:
                self._waiting.remove(task)
        return self._set


class Thread:
    """Stands for `threading.Thread`."""

    def __init__(self, world: World, target: Callable[[], None], daemon: bool = True) -> None:
        self._world, self._target = world, target
        self._task: Task | None = None

    def start(self) -> None:
        self._task = self._world.spawn(self._target, self._world.task.skew)

    def join(self) -> None:
        while self._task is not None and not self._task.ended:
            self._world.sleep(0.1)


class Threading:
    """Stands for the module `threading`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def Event(self) -> Event:  # the module's own name
        return Event(self._world)

    def Thread(self, target: Callable[[], None], **options: Any) -> Thread:
        return Thread(self._world, target)

"""The one queue before the model: jobs wait their turn, tell how far they are, and can be cancelled."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, TypeAlias

from camlucida.app.errors import BusyError, ClosedError, TimeOverError
from camlucida.engine.chunks import out_of_memory
from camlucida.explanation.left_out import reason

Event: TypeAlias = Mapping[str, Any]
Tell: TypeAlias = Callable[[Event], object]

_EVERY = 0.1  # seconds between two words about the progress


class Cancelled(BaseException):
    """Raised inside a job that nobody waits for any more; no handler of errors takes it for one."""


class Job:
    """A piece of work for a page.

    Args:
        work: does it; gets the job, to tell events and progress with.
        tell: gets every event, in the worker's thread.
        seconds: how long it may run.
    """

    def __init__(self, work: Callable[[Job], object], tell: Tell, seconds: float) -> None:
        self._work = work
        self._tell = tell
        self._seconds = seconds
        self._until = float("inf")
        self._told = 0.0
        self.cancelled = False

    def tell(self, kind: str, **facts: Any) -> None:
        """Tell the page something."""
        if not self.cancelled:
            self._tell({"event": kind, **facts})

    def check(self) -> None:
        """Stop here if nobody waits any more, or the time is over.

        Raises:
            Cancelled: nobody waits.
            TimeOverError: the time is over.
        """
        if self.cancelled:
            raise Cancelled
        if monotonic() > self._until:
            raise TimeOverError(
                f"stopped after {self._seconds:g} seconds, which is as long as one request may take; choose fewer "
                "methods or fewer iterations, or start the page with a larger --job-seconds"
            )

    def progress(self, what: str) -> Callable[[float, float], None]:
        """A callback for work that reports what is done and the whole; it also ends cancelled work."""

        def advance(done: float, total: float) -> None:
            self.say(what, done, total)

        return advance

    def say(self, what: str, done: float, total: float) -> None:
        """Tell how far a part of the work is, ten times a second at most."""
        self.check()
        now = monotonic()
        if now - self._told >= _EVERY:
            self._told = now
            share = min(1.0, done / total) if total else 0.0
            self.tell("progress", what=what, share=round(share, 3))

    def run(self) -> None:
        """Do the work; whatever goes wrong becomes an event with words."""
        self._until = monotonic() + self._seconds
        try:
            self.check()
            self._work(self)
        except Cancelled:
            pass
        except Exception as error:
            if out_of_memory(error) or isinstance(error, MemoryError):
                words = (
                    "there is not enough memory for this; choose a smaller photo or fewer methods"
                )
            else:
                words = reason(error)
            self.tell("error", words=words)
        finally:
            self.end()

    def end(self) -> None:
        """Tell that nothing more comes, also where nobody may listen any more."""
        self._tell({"event": "done"})


class Desk:
    """One worker and the jobs that wait for it.

    Args:
        most: jobs that may wait.
        seconds: how long a job may run.
    """

    def __init__(self, most: int = 16, seconds: float = 300.0) -> None:
        self.most = most
        self.seconds = seconds
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._run, name="camlucida-app", daemon=True)
        self._worker.start()

    def submit(self, work: Callable[[Job], object], tell: Tell) -> Job:
        """Put work at the end of the queue.

        Raises:
            BusyError: the queue is full.
            ClosedError: the page is being closed.
        """
        job = Job(work, tell, self.seconds)
        with self._changed:
            if self._closed:
                raise ClosedError("the page is being closed")
            if len(self._waiting) >= self.most:
                raise BusyError(
                    f"{len(self._waiting)} requests wait for the model already; try again in a moment"
                )
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or end it where it runs."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)

    def before(self, job: Job) -> int | None:
        """How many jobs come first; ``None`` for one that does not wait."""
        with self._changed:
            if job not in self._waiting:
                return None
            return self._waiting.index(job) + (self._running is not None)

    @property
    def state(self) -> dict[str, int]:
        """How many jobs run and wait."""
        with self._changed:
            return {"running": int(self._running is not None), "waiting": len(self._waiting)}

    def close(self, *, wait: bool = False) -> None:
        """Cancel everything and take nothing more; ``wait`` until the job that runs has noticed."""
        with self._changed:
            self._closed = True
            for job in (*self._waiting, *([self._running] if self._running else [])):
                job.cancelled = True
            for job in self._waiting:
                job.end()
            self._waiting.clear()
            self._changed.notify()
        if wait:
            self._worker.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = None
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._running = job = self._waiting.popleft()
            job.run()

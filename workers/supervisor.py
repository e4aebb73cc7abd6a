"""The supervisor's hold on its child: starts it, hands it orders, hears its steps, and ends it when it hangs or dies.

The supervisor loads no torch, so it can beat and obey signals whatever the child is doing. It reports nothing itself.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from autopeft.errors import EvaluationError, LeaseLostError
from autopeft.store.blame import Failure
from autopeft.study import Checkpoint, Measurement, Order
from workers.failures import TrialFailure, Unusable, named_error
from workers.pipe import Lines, Message, checkpoint_of, measurement_from_json, order_to_json, send
from workers.stopping import Preempted

HANG_SECONDS = 600.0
HANG_STEPS = 5.0
"""A child that shows no progress for the longer of ``HANG_SECONDS`` and so many median steps is killed."""

LOAD_SECONDS = 3600.0
"""Loading a model, perhaps from a hub, shows no progress: so long until an order's first step."""

GIVE_UP_SECONDS = 10.0
"""So long until a child that was asked to give up its trial is killed; engines wait twice as long."""

LAST_WORDS_SECONDS = 10.0
"""So long a child that hangs is waited for to say where it stands."""

LOOK_SECONDS = 0.1
_LAST_LINES = 40
_OOM_COUNTER = Path("/proc/vmstat")


def child_command(device: str, threads: int, artifacts: Path, cache: str | None = None) -> list[str]:
    """The command of a real child; the supervisor's process id comes behind it."""
    command = [sys.executable, "-P", "-m", "workers", "child", "--device", device, "--threads", str(threads)]
    command += ["--cache", cache] if cache is not None else []
    return [*command, "--artifacts", str(artifacts), "--parent"]


class Supervised:
    """Evaluates in a child process that outlives the trials and may be killed at any time.

    Args:
        command: What starts the child; this process's id is added.
        hang_seconds: Shortest silence that counts as a hang.
        load_seconds: The same before an order's first step.
    """

    def __init__(
        self, command: Sequence[str], hang_seconds: float = HANG_SECONDS, load_seconds: float = LOAD_SECONDS
    ) -> None:
        self._command = command
        self._hang_seconds = hang_seconds
        self._load_seconds = max(load_seconds, hang_seconds)
        self._child: ChildProcess | None = None

    def start(self) -> Mapping[str, str]:
        """What the child's measurements rest on, once it is ready for orders.

        Raises:
            EvaluationError: If it cannot be started, with its last words.
        """
        self._child = ChildProcess(self._command)
        first = self._child.lines.read(self._load_seconds)
        if first is not None and "ready" in first:
            return dict(first["ready"])
        child, self._child = self._child, None
        ended = child.kill()
        if first is not None and "unusable" in first:
            raise named_error(first["unusable"], first["reason"])
        last = child.last_words.strip().splitlines() or ["it left no message"]
        raise EvaluationError(f"the training process could not be started ({ended}): {last[-1]}")

    def evaluate(self, order: Order, check: Callable[[], None]) -> tuple[Measurement, Mapping[str, str]]:
        """The measurement of ``order``, and what it rests on beside what ``start`` said.

        Args:
            order: What to train.
            check: Called ten times a second; what it raises gives the trial up.

        Raises:
            TrialFailure: If the trial failed, its process died, or it hangs.
            Unusable: If nothing can be trained here.
            Preempted: If ``check`` said so.
            LeaseLostError: If ``check`` said so.
        """
        child = self._living()
        killed_before = out_of_memory_kills()
        try:
            child.say({"order": order_to_json(order)})
            answer = self._await(child, order, check)
        except Died:
            self._child = None
            raise death(child, killed_before) from None
        return read_answer(answer)

    def close(self) -> None:
        """Ends the child; nothing of it stays behind."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _living(self) -> ChildProcess:
        """The child, started if it is not there."""
        if self._child is None or not self._child.alive:
            try:
                self.start()
            except EvaluationError as error:
                raise Unusable(error) from error
        assert self._child is not None
        return self._child

    def _await(self, child: ChildProcess, order: Order, check: Callable[[], None]) -> Message:
        progress = Progress(self._hang_seconds, self._load_seconds)
        while True:
            message = child.lines.read(LOOK_SECONDS)
            if message is None and child.lines.closed:
                raise Died
            if message is not None:
                if "step" not in message:
                    return message
                progress.made(message["step"])
            if progress.hangs:
                raise self._hang(child, progress)
            try:
                check()
            except Preempted as stopped:
                stopped.checkpoint = self._give_up(child, order, keep=stopped.keep)
                raise
            except LeaseLostError:
                self._give_up(child, order, keep=False)
                raise

    def _hang(self, child: ChildProcess, progress: Progress) -> TrialFailure:
        silence = progress.silence
        child.say_where_it_stands()
        child.kill()
        self._child = None
        reason = f"no progress for {silence:.0f} s after step {progress.steps}: killed"
        return TrialFailure(Failure.HANG, reason, child.last_words)

    def _give_up(self, child: ChildProcess, order: Order, *, keep: bool) -> Checkpoint | None:
        """Ends the trial and keeps the child, if it listens; where the trial stands comes back, if that was written."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        try:
            child.say({"give_up": [order.trial_id, order.attempt], "keep": keep})
            while (left := deadline - time.monotonic()) > 0:
                message = child.lines.read(left)
                if message is not None and "step" not in message:
                    return checkpoint_of(message)
                if child.lines.closed:
                    break
        except Died:
            pass
        child.kill()
        self._child = None
        return None


class Died(Exception):  # noqa: N818 - never leaves the supervisors
    """The child is gone."""


class ChildProcess:
    """One child process with its pipes and the last lines that it wrote to standard error."""

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([*command, str(os.getpid())], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._incoming = self._process.stdin
        self._outgoing = self._process.stdout
        self.lines = Lines(self._process.stdout.fileno())
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._echo = threading.Thread(target=self._pass_on, args=(self._process.stderr,), daemon=True)
        self._echo.start()

    @property
    def alive(self) -> bool:
        """Whether it runs and can be heard."""
        return self._process.poll() is None and not self.lines.closed

    @property
    def last_words(self) -> str:
        """The last lines that it wrote to standard error."""
        return "".join(self._last)

    def say(self, message: Message) -> None:
        """Sends a message; ``Died`` if nobody reads it."""
        try:
            send(self._incoming.fileno(), message)
        except OSError:
            raise Died from None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; nothing if the process is gone."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def say_where_it_stands(self) -> None:
        """Has the process write where every thread stands to standard error, and waits until it has."""
        before, deadline = self.last_words, time.monotonic() + LAST_WORDS_SECONDS
        self.signal(signal.SIGUSR2)
        while self.alive and self.last_words == before and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        time.sleep(0.5)  # for the lines after the first

    def kill(self) -> str:
        """Ends the process if it has not ended; how it ended comes back in words."""
        with suppress(subprocess.TimeoutExpired):
            if self.lines.closed:
                self._process.wait(1.0)
        self._process.kill()
        status = self._process.wait()
        self._echo.join(1.0)
        for stream in (self._incoming, self._outgoing):
            stream.close()
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    def _pass_on(self, stream: IO[bytes]) -> None:
        with stream:
            for line in iter(stream.readline, b""):
                text = line.decode(errors="replace")
                self._last.append(text)
                sys.stderr.write(text)


class Progress:
    """How long a trial has been silent, against how long its steps take."""

    def __init__(self, hang_seconds: float, load_seconds: float) -> None:
        self._hang_seconds = hang_seconds
        self._load_seconds = load_seconds
        self._last = time.monotonic()
        self._each: deque[float] = deque(maxlen=200)
        self.steps = 0

    def made(self, steps: int) -> None:
        """Notes that so many steps are done."""
        now = time.monotonic()
        if steps > self.steps > 0:
            self._each.append((now - self._last) / (steps - self.steps))
        self.steps, self._last = max(steps, 1), now

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._last

    @property
    def hangs(self) -> bool:
        """Whether that is longer than steps take."""
        step = statistics.median(self._each) if self._each else 0.0
        patience = self._hang_seconds if self.steps else self._load_seconds
        return self.silence > max(patience, HANG_STEPS * step)


def read_answer(answer: Message) -> tuple[Measurement, Mapping[str, str]]:
    """What a child's answer to an order says, returned or raised: as ``Supervised.evaluate``."""
    if "measurement" in answer:
        return measurement_from_json(answer["measurement"]), dict(answer["environment"])
    if "unusable" in answer:
        raise Unusable(named_error(answer["unusable"], answer["reason"]))
    if "failure" in answer:
        raise TrialFailure(Failure(answer["failure"]), answer["reason"], answer["trace"])
    stopped = Preempted("the trial was given up")
    stopped.checkpoint = checkpoint_of(answer)
    raise stopped


def death(child: ChildProcess, killed_before: int) -> TrialFailure:
    """What the end of a child is to what it trained; the system's kills for want of memory before are known."""
    ended = child.kill()
    if out_of_memory_kills() > killed_before and "SIGKILL" in ended:
        reason = "out of memory: the system killed the training process; lower --batch-size or use fewer workers"
        return TrialFailure(Failure.HOST_MEMORY, reason, child.last_words)
    return TrialFailure(Failure.LOST, f"the training process died ({ended})", child.last_words)


def out_of_memory_kills() -> int:
    """Processes that the system killed for want of memory since it started."""
    try:
        lines = _OOM_COUNTER.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

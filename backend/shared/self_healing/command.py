"""Runs a command that must not outlive its welcome: no shell, a process group of its own, output drained.

The exit is seen through a pidfd (a thread in ``waitid`` where the kernel has none) before the process is
reaped, so that its zombie keeps the group's number from being used again while the rest of the group is killed
(pidfd_open(2)). Cancelled, as by a timeout, the group is killed and waited for. On Linux the command dies with
this program (prctl(2), PR_SET_PDEATHSIG), and its group by the hand of the guard that was given. Output is read
at a bounded rate: who writes more waits at the full pipe.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from modules.contracts.health import GroupGuard

OUTPUT_BYTES = 64 * 1024
_BURST_BYTES = 1024 * 1024
_WINDOW_S = 0.1
"""At most a burst is read in so long, and a small read counts as an eighth of a full one."""
_KILL_TIMEOUT_S = 0.5
_PR_SET_PDEATHSIG = 1
# Loaded here, because the child must not look for libraries between fork and exec.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended: ``code`` is negative for a signal; ``output`` is the first 64 KiB of both streams."""

    code: int
    output: bytes

    @property
    def how(self) -> str:
        """``"ended with code 3"`` or ``"was ended by signal 9"``."""
        return f"was ended by signal {-self.code}" if self.code < 0 else f"ended with code {self.code}"

    @property
    def last_line(self) -> str:
        """The last line of the output that is not empty, at most 200 characters, for a message."""
        lines = self.output.decode("utf-8", "replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


async def run_command(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    guard: GroupGuard | None = None,
) -> CommandResult:
    """Run ``command`` to its end; ``env`` is added to this program's own. ``guard`` ends its group with this program.

    Raises OSError when it cannot be started, ValueError when a part of it holds a null character. Processes
    that it left in its group are killed.
    """
    process = subprocess.Popen(  # noqa: S603, ASYNC220  no shell; the fork must come from the loop's own thread
        list(command),
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=True,
        preexec_fn=_dies_with(os.getpid()),  # noqa: PLW1509  no lock is taken in it
    )
    if guard is not None:
        guard.add(process.pid)
    running = _Running(process, guard)
    try:
        await running.exited()
    finally:
        # Also when cancelled: whatever is left of the group goes while the zombie still holds its number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            await running.exited(within=_KILL_TIMEOUT_S)
        finally:
            running.finish()
    return CommandResult(process.returncode, bytes(running.output))


class _Running:
    """Drains the output of a process and waits for its exit."""

    def __init__(self, process: subprocess.Popen[bytes], guard: GroupGuard | None) -> None:
        assert process.stdout is not None  # noqa: S101  asked for above
        self._process = process
        self._guard = guard
        self._pipe = process.stdout
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[None] = self._loop.create_future()
        self._pidfd: int | None = None
        self._window_began = 0.0
        self._burst = 0
        self._pause: asyncio.TimerHandle | None = None
        self.output = bytearray()
        os.set_blocking(self._pipe.fileno(), False)
        self._loop.add_reader(self._pipe.fileno(), self._drain)
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except (AttributeError, OSError):
            threading.Thread(target=self._wait, name=f"wait-{process.pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._set_exit)

    async def exited(self, within: float | None = None) -> None:
        """Wait for the exit, at most ``within`` seconds."""
        await asyncio.wait((self._exit,), timeout=within)

    def finish(self) -> None:
        """Take what the pipe still holds, and reap the process, now or when it ends at last.

        One that has become another user's cannot be killed; waiting for it would hold up the loop.
        """
        if self._exit.done():
            self._reap(self._exit)
        else:
            _unkillable.add(self)
            self._exit.add_done_callback(self._reap)
        if not self._pipe.closed:
            self._read()  # once: a process that left the group may write on for ever
        self._close()

    def _reap(self, _: asyncio.Future[None]) -> None:
        _unkillable.discard(self)
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        if self._guard is not None:
            self._guard.drop(self._process.pid)  # while the zombie still holds the number
        self._process.wait()  # returns at once: it has ended

    def _drain(self) -> None:
        """Read once, and look away for a while after a burst."""
        now = self._loop.time()
        if now - self._window_began >= _WINDOW_S:
            self._window_began, self._burst = now, 0
        self._burst += max(self._read(), OUTPUT_BYTES // 8)
        if self._burst >= _BURST_BYTES and not self._pipe.closed:
            self._loop.remove_reader(self._pipe.fileno())
            self._pause = self._loop.call_later(_WINDOW_S, self._loop.add_reader, self._pipe.fileno(), self._drain)

    def _read(self) -> int:
        try:
            data = os.read(self._pipe.fileno(), OUTPUT_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._close()
        self.output += data[: OUTPUT_BYTES - len(self.output)]
        return len(data)

    def _close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if not self._pipe.closed:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()

    def _set_exit(self) -> None:
        if not self._exit.done():
            self._exit.set_result(None)

    def _wait(self) -> None:
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._set_exit)


_unkillable: set[_Running] = set()
"""Commands that SIGKILL did not end, kept so that they are reaped when they end."""


def _dies_with(parent: int) -> Callable[[], None] | None:
    """What the child does between fork and exec so that the kernel kills it after ``parent``.

    The signal follows the thread that forked, so only a child of the main thread is tied.
    """
    if _prctl is None or threading.current_thread() is not threading.main_thread():
        return None
    prctl = _prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call: no signal will come
            os._exit(1)

    return tie

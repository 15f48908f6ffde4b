"""One child process: spawned in a session of its own, drained, watched, and ended with its whole group.

The exit is seen through a pidfd (a thread in ``waitid`` where the kernel has none) *before* the child is
reaped: its zombie keeps the process group's number from being used again while the rest of the group is
killed. On Linux the child also dies with its parent (prctl PR_SET_PDEATHSIG, see prctl(2)). That signal
follows the *thread* that forked, so a child is spawned synchronously in the loop's thread, and tied only
when this is the main thread; elsewhere the guardian alone serves. Output is read at a bounded rate: who writes
more waits at the full pipe, and costs this program next to nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from modules.contracts.clock import Clock
from modules.contracts.errors import ProcessError
from modules.contracts.health import GroupGuard

TAIL_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_BURST_BYTES = 1024 * 1024
_WINDOW_S = 0.1
"""At most a burst is read in so long, and a small read counts as an eighth of a full one."""
_LINE_CHARACTERS = 200
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_PR_SET_PDEATHSIG = 1
_KILL_TIMEOUT_S = 5.0

# Loaded here, because the child must not look for libraries between fork and exec.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Tail:
    """The newest bytes of an endless output, in bounded memory."""

    def __init__(self, limit: int = TAIL_BYTES) -> None:
        self._limit = limit
        self._data = bytearray()
        self.written = 0
        """All bytes so far, also those that are kept no more."""

    def write(self, data: bytes) -> None:
        self._data += data
        self.written += len(data)
        if len(self._data) > 2 * self._limit:  # cut seldom, so that a byte is moved at most once on average
            del self._data[: -self._limit]

    def text(self) -> str:
        """Return the newest ``limit`` bytes as text, beginning with a whole character."""
        return self._newest(self._limit)

    def last_line(self, since: int = 0) -> str:
        """Return the last line with something in it that was written after the first ``since`` bytes.

        At most 200 characters, and none that would move a terminal's cursor or change its colours.
        """
        for line in reversed(self._newest(min(self.written - since, self._limit)).splitlines()):
            clean = "".join(char for char in _ESCAPES.sub("", line) if char.isprintable()).strip()
            if clean:
                return clean[:_LINE_CHARACTERS]
        return ""

    def _newest(self, count: int) -> str:
        newest = bytes(self._data[-count:]) if count > 0 else b""
        whole = next((at for at, byte in enumerate(newest[:4]) if byte & 0xC0 != 0x80), 0)  # not inside a character
        return newest[whole:].decode("utf-8", "replace")


class Child:
    """A running process and its group.

    ``exited`` becomes the exit code (negative for a signal) once the process is gone, the rest of its group
    is killed and its output is read; ``on_exit(child, code)`` is called at that moment.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], *, tail: Tail | None, on_exit: Callable[[Child, int], None]
    ) -> None:
        self._process = process
        self._tail = tail
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._pidfd: int | None = None
        self._window_began = 0.0
        self._burst = 0
        self._pause: asyncio.TimerHandle | None = None
        self.pid = process.pid
        self.ending = False
        """Whether its end was asked for."""
        self.exited: asyncio.Future[int] = self._loop.create_future()
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
            self._loop.add_reader(process.stdout.fileno(), self._drain)
        self._watch()

    @property
    def stdin(self) -> int:
        """The descriptor of its standard input, when that is a pipe."""
        assert self._process.stdin is not None  # noqa: S101  a mistake of the caller, not of a user
        return self._process.stdin.fileno()

    def close_stdin(self) -> None:
        """Let it read the end of its input; safe twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def signal_group(self, number: int) -> None:
        """Send a signal to every process of the group; nothing happens once the child is gone."""
        if not self.exited.done():
            with suppress(ProcessLookupError, PermissionError):  # a member may have become another user
                os.killpg(self.pid, number)

    async def end(self, clock: Clock, timeout_s: float) -> None:
        """SIGTERM to the group, SIGKILL after ``timeout_s``; cancelled meanwhile, SIGKILL at once.

        Raises ProcessError when even SIGKILL does not end it.
        """
        self.ending = True
        try:
            self.signal_group(signal.SIGTERM)
            self.signal_group(signal.SIGCONT)  # a stopped process could not obey
            if await self.gone_within(clock, timeout_s):
                return
        finally:
            self.signal_group(signal.SIGKILL)
        if not await self.gone_within(clock, _KILL_TIMEOUT_S):
            raise ProcessError(
                f"process {self.pid} still exists {_KILL_TIMEOUT_S:g} s after SIGKILL: it hangs in the kernel or"
                " belongs to another user; look at it with 'ps -o pid,user,stat,wchan,args'"
            )

    async def gone_within(self, clock: Clock, seconds: float) -> bool:
        """Wait at most ``seconds`` for the end of the process and say whether it came."""
        timer = asyncio.ensure_future(clock.sleep(seconds))
        ends: set[asyncio.Future[Any]] = {self.exited, timer}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            await asyncio.gather(timer, return_exceptions=True)
        return self.exited.done()

    def _watch(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            threading.Thread(target=self._wait_in_thread, name=f"wait-{self.pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._finish)

    def _wait_in_thread(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        self.signal_group(signal.SIGKILL)  # the rest of the group, while the zombie still holds its number
        code = self._process.wait()  # returns at once: the process has exited
        for _ in range(32):  # what the pipe still holds; bounded, for a process that left the group may go on
            if not self._read():
                break
        self._close_output()
        self.close_stdin()
        self.exited.set_result(code)
        self._on_exit(self, code)

    def _drain(self) -> None:
        """Read once, and look away for a while after a burst."""
        now = self._loop.time()
        if now - self._window_began >= _WINDOW_S:
            self._window_began, self._burst = now, 0
        self._burst += max(self._read(), _READ_BYTES // 8)
        output = self._process.stdout
        if self._burst >= _BURST_BYTES and output is not None and not output.closed:
            self._loop.remove_reader(output.fileno())
            self._pause = self._loop.call_later(_WINDOW_S, self._loop.add_reader, output.fileno(), self._drain)

    def _read(self) -> int:
        """Read once and return how much; 0 when there is nothing more to read now."""
        output = self._process.stdout
        if output is None or output.closed:
            return 0
        try:
            data = os.read(output.fileno(), _READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._close_output()
        elif self._tail is not None:
            self._tail.write(data)
        return len(data)

    def _close_output(self) -> None:
        output = self._process.stdout
        if self._pause is not None:
            self._pause.cancel()
        if output is not None and not output.closed:
            self._loop.remove_reader(output.fileno())
            output.close()


def watch(process: subprocess.Popen[bytes], *, tail: Tail | None, guard: GroupGuard | None) -> Child:
    """Watch a command that is no service; ``guard`` ends its group when this program dies before it."""
    if guard is None:
        return Child(process, tail=tail, on_exit=lambda child, code: None)
    guard.add(process.pid)
    return Child(process, tail=tail, on_exit=lambda child, code: guard.drop(child.pid))


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    output: Literal["pipe", "inherit", "discard"],
    stdin: Literal["pipe", "empty"] = "empty",
    tied: bool = True,
) -> subprocess.Popen[bytes]:
    """Start ``command`` without a shell in a new session.

    ``tied``: it dies with this process. Else it is to outlive it, and ignores the signals that end programs.

    Raises ProcessError that says what is wrong with the command and what to do.
    """
    if cwd is not None and not Path(cwd).is_dir():
        raise ProcessError(f"the working directory {cwd!r} is no folder; create it or correct cwd")
    stdout = {"pipe": subprocess.PIPE, "inherit": None, "discard": subprocess.DEVNULL}[output]
    try:
        return subprocess.Popen(  # noqa: S603  no shell, and the command is the user's own
            list(command),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if stdin == "pipe" else subprocess.DEVNULL,
            stdout=stdout,
            stderr=stdout if output != "pipe" else subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            preexec_fn=_dies_with(os.getpid()) if tied else _outlive,  # noqa: PLW1509  no lock is taken in it
        )
    except FileNotFoundError:
        raise ProcessError(
            f"the program {command[0]!r} was not found; install it, give its full path, or correct the command"
        ) from None
    except PermissionError:
        raise ProcessError(
            f"the program {command[0]!r} is not executable; give it the permission (chmod +x) or correct the command"
        ) from None
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ProcessError(
            f"the program {command[0]!r} cannot be executed: {error}; correct the command, its arguments or env"
        ) from error


def _outlive() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what is ignored stays so over exec, from the first moment


def _dies_with(parent: int) -> Callable[[], None] | None:
    """Return what the child does between fork and exec so that the kernel kills it after ``parent``."""
    if _prctl is None or threading.current_thread() is not threading.main_thread():
        return None
    prctl = _prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call: no signal will come
            os._exit(1)

    return tie

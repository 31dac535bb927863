"""The model's real replies, in the prompts of the turns that follow.

A plan whose `replies` are "real" cannot be encoded whole before t = 0: a turn that goes on from an earlier one repeats
what the model said. Such a turn is encoded once its parent has ended, in the driver's next pause (or when it is sent,
where nobody paused to think in between: about 0.4 ms, which its send lag then holds).

Knows dialects and who goes on from whom; no socket, no clock. What it holds is the text of live sessions: a reply is forgotten
when the last turn that repeats it has been encoded, a request when it has ended.
A reply that was no reply (an error in a stream that began with 200, say) is repeated by nobody: `refusal` says why.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

from inferometer.timeline import CHANNELS
from inferometer.wire import Dialect, Limits, Reply

Encode = Callable[[int, dict[int, str]], bytes]  # a row, and the real replies before it by row
_CONTENT, _REASONING = CHANNELS.index("content"), CHANNELS.index("reasoning")


class Replies:
    """The later turns of one worker; mutable, owned by one driver. Rows are those of its stripe."""

    def __init__(
        self,
        lines: dict[int, list[int]],
        dialect: Dialect,
        expect: Callable[[int], int],
        encode: Encode,
    ) -> None:
        """`lines`: for each turn that repeats replies, the turns before it, oldest first."""
        self._lines = lines
        self._dialect, self._expect, self._encode = dialect, expect, encode
        self._needed = Counter(row for line in lines.values() for row in line)
        self._next: dict[int, list[int]] = {}  # the turns that go on from a row
        for row, line in lines.items():
            self._next.setdefault(line[-1], []).append(row)
        self._open = set(lines)  # turns that are not encoded yet, and may still be
        self._early: dict[
            int, list[bytes]
        ] = {}  # the reads of live replies that were written out already
        self._heard: deque[tuple[int, list[bytes]]] = deque()
        self._text: dict[int, str] = {}
        self._broken: dict[int, str] = {}
        self._encoded: dict[int, bytes] = {}

    def repeats(self, row: int) -> bool:
        """Whether a row's request holds real replies, and is encoded here."""
        return row in self._lines

    def set_aside(self, row: int, reads: Iterable[bytes]) -> None:
        """Keep the first reads of a reply that has not ended yet."""
        if row in self._needed:
            self._early.setdefault(row, []).extend(reads)

    def ended(self, row: int, reads: list[bytes], *, ok: bool) -> None:
        """Take the (last) reads of a reply; nothing is parsed yet."""
        early = self._early.pop(row, [])
        self._encoded.pop(row, None)
        if ok and row in self._needed:
            self._heard.append((row, [*early, *reads]))
        elif not ok:
            self._forget(row)

    @property
    def waiting(self) -> bool:
        """Whether there is work that a pause would be good for."""
        return bool(self._heard)

    def work(self) -> None:
        """Parse the reply that has waited longest, and encode the turns that go on from it."""
        row, reads = self._heard.popleft()
        reply = Reply(self._dialect, Limits(), self._expect(row), keep_text=True)
        reply.read([0] * len(reads), reads)
        facts = reply.facts(_uncounted)
        text = facts.text or ("",) * len(CHANNELS)
        if facts.status != "ok":
            self._broken[row] = f"an earlier turn failed (row {row}): {facts.error}"
        self._text[row] = text[_CONTENT] or text[_REASONING]
        for turn in self._next.get(row, ()):
            self._prepare(turn)

    def refusal(self, row: int) -> str | None:
        """Why a row that repeats replies cannot be sent; None where it can. What has waited is worked off first."""
        while self._heard:
            self.work()
        return next((self._broken[turn] for turn in self._lines[row] if turn in self._broken), None)

    def request(self, row: int) -> bytes:
        """The bytes of a request that repeats replies."""
        return self._encoded[row]

    def _prepare(self, row: int) -> None:
        if row in self._open:
            line = self._lines[row]
            self._encoded[row] = self._encode(
                row, {turn: self._text.get(turn, "") for turn in line}
            )
            self._forget(row)

    def _forget(self, row: int) -> None:
        """A turn that is encoded, or will never be, needs no reply any more."""
        if row not in self._open:
            return
        self._open.remove(row)
        for turn in self._lines[row]:
            self._needed[turn] -= 1
            if not self._needed[turn]:
                del self._needed[turn]
                self._text.pop(turn, None)


def _uncounted(texts: list[str]) -> list[int]:
    """Tokens are counted after the clock has stopped."""
    return [0] * len(texts)

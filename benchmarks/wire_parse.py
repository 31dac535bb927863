"""What reading a reply costs, in CPU per token: stamped reads -> Reply.feed -> facts.

    python benchmarks/wire_parse.py [--tokens 128] [--replies 200]

The reply is as vLLM streams it: chunked, one event per token and read, a role event first, [DONE] last. Printed is the
best of several rounds (process time), with and without usage in every event. Target: <= 1.2 µs per token.
"""

import argparse
import time

from inferometer.wire import DIALECTS, Limits, Reply

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1759000000,"model":"tiny","choices":[{"index":0,"delta":%s,"logprobs":null,'
    b'"finish_reason":%s,"token_ids":null}]%s}\n\n'
)
USAGE = b',"usage":{"prompt_tokens":115,"total_tokens":%d,"completion_tokens":%d}'


def reads(tokens: int, *, continuous: bool) -> list[bytes]:
    usages = [USAGE % (115 + n, n) if continuous else b"" for n in range(tokens + 1)]
    events = [EVENT % (b'{"role":"assistant","content":""}', b"null", usages[0])]
    events += [EVENT % (b'{"content":" token"}', b"null", usage) for usage in usages[1:-1]]
    events += [EVENT % (b'{"content":" token"}', b'"length"', usages[-1])]
    if not continuous:
        events.append(b'data: {"choices":[]%s}\n\n' % (USAGE % (115 + tokens, tokens)))
    events.append(b"data: [DONE]\n\n")
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events]
    return [HEAD, *chunks[:-1], chunks[-1] + b"0\r\n\r\n"]


def us_per_token(data: list[bytes], tokens: int, replies: int, rounds: int = 15) -> float:
    dialect, limits = DIALECTS["openai-chat"], Limits()
    stamps = list(range(10**12, 10**12 + len(data)))
    best = float("inf")
    for _ in range(rounds):
        before = time.process_time_ns()
        for _ in range(replies):
            reply = Reply(dialect, limits, expect=tokens)
            reply.read(stamps, data)
            facts = reply.facts(lambda texts: [1] * len(texts))
        best = min(best, (time.process_time_ns() - before) / 1e3 / replies / tokens)
        assert (facts.status, facts.output_tokens) == ("ok", tokens), facts
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--replies", type=int, default=50)
    args = parser.parse_args()
    for continuous in (False, True):
        data = reads(args.tokens, continuous=continuous)
        name = "usage in every event" if continuous else "usage at the end"
        cost = us_per_token(data, args.tokens, args.replies)
        print(
            f"{name:22} {sum(map(len, data)) / args.tokens:5.0f} bytes/token {cost:6.2f} µs/token"
        )


if __name__ == "__main__":
    main()

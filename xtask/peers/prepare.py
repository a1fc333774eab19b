"""Preparing data as people do it in Python: JSON Lines to token ids, documents joined into rows of one length.

    python prepare.py --tokenizer tokenizer.json --seq-len 2048 corpus/*/*.jsonl.zst

Reads `.jsonl`, `.gz` and `.zst` (package zstandard), encodes batches of documents on all threads, and keeps the rows in memory.
"""

import argparse
import gzip
import io
import json

from measure import report, seconds

BATCH = 1000


def lines(path):
    if path.endswith(".zst"):
        import zstandard

        with open(path, "rb") as file:
            yield from io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
    else:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            yield from file


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    import numpy
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(args.tokenizer)
    eos = tokenizer.token_to_id("<|endoftext|>")
    rows, rest, size = [], [], 0

    def take(texts):
        nonlocal rest
        for encoding in tokenizer.encode_batch_fast(texts):
            rest += encoding.ids + [eos]
        whole = len(rest) // args.seq_len * args.seq_len
        rows.append(numpy.array(rest[:whole], dtype=numpy.uint16))
        rest = rest[whole:]

    def prepare():
        nonlocal size
        batch = []
        for path in args.files:
            for line in lines(path):
                text = json.loads(line)["text"]
                size += len(text.encode())
                batch.append(text)
                if len(batch) == BATCH:
                    take(batch)
                    batch = []
        take(batch)

    elapsed, _ = seconds(prepare)
    tokens = sum(len(row) for row in rows) + len(rest)
    report(seconds=elapsed, mb_per_s=size / 1e6 / elapsed, tokens_per_s=tokens / elapsed, tokens=tokens)


if __name__ == "__main__":
    main()

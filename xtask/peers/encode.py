"""Encoding a text on all threads and decoding it on one, under Hugging Face tokenizers.

    python encode.py --tokenizer tokenizer.json text.txt

The text is cut into its paragraphs, which suits this library better than long pieces.
"""

import argparse

from measure import median_seconds, report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("text")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="taken from RAYON_NUM_THREADS, which the caller sets")
    args = parser.parse_args()
    import tokenizers

    with open(args.text, encoding="utf-8") as file:
        pieces = [piece for piece in file.read().split("\n\n") if piece]
    megabytes = sum(len(piece.encode()) for piece in pieces) / 1e6
    tokenizer = tokenizers.Tokenizer.from_file(args.tokenizer)
    encode = median_seconds(lambda: tokenizer.encode_batch_fast(pieces), args.reps)
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(pieces)]
    decode = median_seconds(lambda: [tokenizer.decode(piece, skip_special_tokens=False) for piece in ids], args.reps)
    report(mb_per_s=megabytes / encode, decode_mb_per_s=megabytes / decode, tokenizers=tokenizers.__version__)


if __name__ == "__main__":
    main()

"""Makes the golden tokenizer of this folder and the ids that the Python package `tokenizers` gives with it.

    pip install tokenizers
    python mpt-tokenize/tests/golden/make.py

A byte-level BPE with the parts of GPT-NeoX-20B's: NFC, the word pattern of GPT-2, added tokens for runs of spaces. The first
line of cases.jsonl says which version made it; the others are text, ids and, where it is another text, what the ids decode to.
"""

import json
from importlib.metadata import version
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = Path(__file__).parent
TEXT = (
    "The river ran past the stone house, and the old stone bridge over the river was older than the house.",
    "They're sure that it's the miller's; we'll see, I'd say, if you've asked and he hasn't.",
    "for i in range(10):\n    if i % 2 == 0:\n        print(i, 'is even')\n    else:\n        print(i, 'is odd')\n",
    "In 1984 there were 12,345 houses; in 2024 there are 67,890.",
    "Über die Brücke geht der Müller; où est le café, là-bas ? El niño está aquí.",
    "Быстрая лиса прыгает через ленивую собаку. 東京は日本の首都です。",
)
CASES = [
    "",
    " ",
    "  ",
    "   \n\t  \n",
    "the river",
    " the river",
    "The  old   stone    bridge",
    "we'll see, it's THE house's",
    "isn't it? ISN'T it?",
    "1984 12345 3.14159 0x1F",
    "for i in range(3):\n        print(i)\n\n\n",
    "\tx\t\ty",
    "café cafe\u0301",  # composed, and composed by NFC
    "n\u0303o, A\u030a\u0327",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",  # Hangul by parts
    "Быстрая собака",
    "東京の猫です",
    "🙂 👩\u200d👩\u200d👧 🇫🇷",
    "\u00a0\u2003\u3000x",
    "a\u0000b\u007fc\u0085d",
    "<|endoftext|>",
    "a<|endoftext|>b <|endoftext|> c",
    "<|endoftex|t>",
    "x" * 300,
    "ab" * 150 + " the",
    "https://example.org/a?b=c&d=%20",
    "snake_case camelCase SCREAMING",
    "«quoted» — “words”…",
    "\r\nwindows\r\nlines\r\n",
    "ÿþ\ufeffbom",
    "𝒜𝓁𝑔𝑒𝒷𝓇𝒶",
    "نص عربي עברית",
    "The river ran past the stone house.",
    "            twelve spaces, and             thirteen",
]


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    tokenizer.add_tokens([AddedToken(" " * spaces, normalized=True) for spaces in (8, 4, 2)])
    (HERE / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n")
    lines = [json.dumps({"made_with": {"tokenizers": version("tokenizers")}, "vocab_size": tokenizer.get_vocab_size()})]
    for text in CASES + list(TEXT):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        lines.append(json.dumps({"text": text, "ids": ids} | ({"decoded": decoded} if decoded != text else {})))
    (HERE / "cases.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

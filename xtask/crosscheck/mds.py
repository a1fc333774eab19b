"""Compares what `mpt data convert` reads and writes with mosaicml-streaming, and Megatron files with the format by hand.

    python xtask/crosscheck/mds.py --mpt target/release/mpt

Needs: mosaicml-streaming (which brings numpy, xxhash and Pillow). Everything is made in a temporary folder from drawn
samples. Exit code 1 when something differs.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from decimal import Decimal
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from streaming import MDSWriter, StreamingDataset
from streaming.base.hashing import get_hashes
from streaming.base.util import clean_stale_shared_memory, merge_index

NUMBERS = ["uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64", "float64"]
CODECS = ["br", "br:0", "bz2", "bz2:1", "gz", "gz:1", "snappy", "zstd", "zstd:1", "zstd:19"]

failures = []


def report(what, ok):
    print(f"{'ok  ' if ok else 'FAIL'} {what}")
    if not ok:
        failures.append(what)


class Mpt:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def try_run(self, *args):
        return subprocess.run([self.binary, "--quiet", *map(str, args)], capture_output=True, text=True)

    def run(self, *args):
        result = self.try_run(*args)
        if result.returncode:
            sys.exit(f"mpt {' '.join(map(str, args))}: {result.stderr}")
        return result.stdout


def image(rng, mode="RGB"):
    depth = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
    shape = (5, 7, depth) if depth > 1 else (5, 7)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def file_of(picture, form):
    out = BytesIO()
    picture.save(out, format=form)
    return out.getvalue()


def columns():
    fixed = ["bytes", "str", "int", "str_int", "str_float", "str_decimal", "json", "pil", "jpeg", "png"]
    fixed += ["jpeg_array", "jpegarray", "list[pil]", "list[jpeg]", "list[png]", "ndarray", "ndarray:float32:3,4"]
    return {f"{at:02} é {name}": name for at, name in enumerate(fixed + NUMBERS + [f"ndarray:{name}" for name in NUMBERS])}


def value(rng, encoding):
    text = "".join(rng.choice(list("aß𝄞\n\"")) for _ in range(rng.integers(0, 9)))
    shape = tuple(rng.integers(1, 6, rng.integers(1, 4))) if rng.integers(0, 2) else (int(rng.integers(1, 400)),)
    array = lambda name, shape: np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(name).itemsize), name).reshape(shape)
    match encoding:
        case "bytes": return rng.bytes(rng.integers(0, 50))
        case "str": return text
        case "int": return int(rng.integers(-(2**62), 2**62))
        case "str_int": return int(rng.integers(0, 2**62)) ** 5
        case "str_float": return float(rng.normal())
        case "str_decimal": return Decimal("1.000000000000000000000000001")
        case "json": return {"b": [1, 2.5, None, text], "a": True}
        case "pil": return image(rng, str(rng.choice(["RGB", "L", "RGBA"])))
        case "jpeg" | "png": return image(rng)
        case "jpeg_array" | "jpegarray": return [file_of(image(rng), "JPEG") for _ in range(2)]
        case "list[pil]" | "list[jpeg]" | "list[png]": return [image(rng) for _ in range(rng.integers(0, 3))]
        case "ndarray": return array(str(rng.choice(NUMBERS)), shape)
        case "ndarray:float32:3,4": return array("float32", (3, 4))
        case _ if encoding.startswith("ndarray:"): return array(encoding[8:], shape)
        case _: return array(encoding, (1,))[0]


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(folder, columns, samples, **options):
    with MDSWriter(out=str(folder), columns=columns, **options) as writer:
        for sample in samples:
            writer.write(sample)


def check_rewriting(mpt):
    """What Python wrote, read by ours and written again, is what Python wrote: every encoding, codec, hash, size of shard."""
    rng = np.random.default_rng(0)
    names = columns()
    samples = [{name: value(rng, encoding) for name, encoding in names.items()} for _ in range(12)]
    limits = {"64 MiB": 1 << 26, "20 kB": 20_000, "1 B, a shard of no sample first": 1}
    for label, limit in limits.items():
        plain = mpt.folder / f"plain-{limit}"
        write(plain, names, samples, size_limit=limit)
        out = mpt.folder / f"plain-{limit}-again"
        mpt.run("data", "convert", plain, out, "--to", "mds", "--size-limit", limit)
        report(f"all {len(names)} encodings, shards of {label}: the same bytes", tree(plain) == tree(out))
    known = [name for name in sorted(get_hashes())]
    hashed = mpt.folder / "hashed"
    write(hashed, names, samples, hashes=known)
    out = mpt.folder / "hashed-again"
    flags = [flag for name in known for flag in ["--hash", name]]
    mpt.run("data", "convert", hashed, out, "--to", "mds", *flags)
    report(f"hashes {' '.join(known)}: the same bytes", tree(hashed) == tree(out))
    for codec in CODECS:
        name = codec.replace(":", "-")
        zipped, unzipped = mpt.folder / f"zip-{name}", mpt.folder / f"unzip-{name}"
        write(zipped, names, samples, compression=codec, hashes=["sha1", "xxh128"], size_limit=20_000)
        mpt.run("data", "convert", zipped, unzipped, "--to", "mds", "--size-limit", 20_000)
        # The configuration inside of the shards names the codec, so samples roll elsewhere: samples are compared.
        ours = mpt.folder / f"ours-{name}"
        mpt.run("data", "convert", mpt.folder / f"plain-{1 << 26}", ours, "--to", "mds", "--compression", codec, "--hash", "sha1")
        same = same_samples(mpt, unzipped, mpt.folder / f"plain-{1 << 26}")
        report(f"ours reads what Python wrote with {codec}", same)
        report(f"Python reads what ours wrote with {codec}", same_samples(mpt, ours, mpt.folder / f"plain-{1 << 26}"))
    index = hashed / "index.json"
    index.write_text(index.read_text().replace('"blake2b"', '"whirlpool"'))
    result = mpt.try_run("data", "convert", hashed, mpt.folder / "no", "--to", "mds")
    report("an unknown hash is refused by name", result.returncode == 3 and "`whirlpool`" in result.stderr)
    mpt.run("data", "convert", hashed, mpt.folder / "no", "--to", "mds", "--no-verify")
    pickled = mpt.folder / "pickled"
    write(pickled, {"x": "pkl"}, [{"x": {1, 2}}])
    result = mpt.try_run("data", "convert", pickled, mpt.folder / "pickle", "--to", "mds")
    report("pickle is refused by name", result.returncode == 3 and "`pkl`" in result.stderr)


def dataset(mpt, folder):
    """The samples as StreamingDataset gives them, hashes checked, from a copy of its own."""
    clean_stale_shared_memory()
    local = tempfile.mkdtemp(dir=mpt.folder)
    has_hashes = json.loads((folder / "index.json").read_text())["shards"][-1]["hashes"]
    options = {"validate_hash": has_hashes[0]} if has_hashes else {}
    return StreamingDataset(remote=str(folder), local=local, shuffle=False, batch_size=1, **options)


def comparable(value):
    if isinstance(value, Image.Image):
        return value.mode, value.size, value.tobytes()
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype, value.shape, value.tobytes()
    return [comparable(item) for item in value] if isinstance(value, list) else value


def same_samples(mpt, a, b):
    a, b = dataset(mpt, a), dataset(mpt, b)
    if len(a) != len(b):
        return False
    pairs = ((a[at], b[at]) for at in range(len(a)))
    return all(x.keys() == y.keys() and all(comparable(x[key]) == comparable(y[key]) for key in x) for x, y in pairs)


def tokenizer(mpt):
    text, path = mpt.folder / "text.txt", mpt.folder / "tokenizer.json"
    text.write_text("the cat sat on the mat and the dog sat on the cat\n" * 20)
    if not path.exists():
        mpt.run("tokenizer", "train", text, "--vocab-size", 300, "--min-frequency", 1, "--out", path)
    return path


def documents(count):
    rng = np.random.default_rng(1)
    return [rng.integers(2, 250, rng.integers(1, 60)).tolist() + [0] for _ in range(count)]


def cut(docs, length):
    stream = [id for doc in docs for id in doc]
    return [stream[at : at + length] for at in range(0, len(stream) - length + 1, length)]


def check_tokens(mpt):
    """Token columns of every kind into ours, and ours into what StreamingDataset reads."""
    rows = {name: cut(documents(count), 32) for name, count in [("web", 300), ("code", 100)]}
    for kind in ["ndarray:int32", "ndarray:int64", "ndarray:uint16", "ndarray:uint16:32", "ndarray", "bytes"]:
        folder = mpt.folder / f"tokens-{kind.replace(':', '-')}"
        dtype = {"ndarray": "int32", "bytes": "int64"}.get(kind) or kind.split(":")[1]
        for name, samples in rows.items():
            arrays = [np.array(sample, dtype) for sample in samples]
            write(folder / name, {"tokens": kind}, [{"tokens": a.tobytes() if kind == "bytes" else a} for a in arrays], size_limit=9000, compression="zstd", hashes=["md5"])
        merge_index([str(folder / name / "index.json") for name in rows], str(folder))
        ours, back = folder.with_name(folder.name + "-ours"), folder.with_name(folder.name + "-back")
        flags = ["--token-dtype", "int64"] if kind == "bytes" else []
        mpt.run("data", "convert", folder, ours, "--to", "parquet", "--tokenizer", tokenizer(mpt), *flags)
        mpt.run("data", "verify", ours)
        mpt.run("data", "convert", ours, back, "--to", "mds", "--hash", "xxh64", "--size-limit", 9000)
        found = dataset(mpt, back)
        expected = [sample for samples in rows.values() for sample in samples]
        same = len(found) == len(expected) and all(found[at]["tokens"].tolist() == row for at, row in enumerate(expected))
        report(f"tokens of {kind} to ours and back, read by StreamingDataset", same)
    index = (back / "index.json").read_bytes()
    (back / "index.json").unlink()
    merge_index([str(back / name / "index.json") for name in rows], str(back))
    report("the merged index is that of streaming's merge_index", index == (back / "index.json").read_bytes())
    for name, samples in rows.items():
        python = mpt.folder / f"python-{name}"
        write(python, {"tokens": "ndarray:uint16"}, [{"tokens": np.array(s, np.uint16)} for s in samples], size_limit=9000, hashes=["xxh64"])
        report(f"ours to MDS, {name}: the bytes of Python's writer", tree(python) == tree(back / name))


def check_megatron(mpt):
    """Files laid out here, field by field, to ours and back."""
    docs = documents(400)
    for code, dtype in [(3, "int16"), (4, "int32"), (5, "int64"), (8, "uint16")]:
        folder = mpt.folder / f"megatron-{dtype}"
        (folder / "web").mkdir(parents=True)
        lengths = np.array([len(doc) for doc in docs], np.int32)
        places = (np.cumsum(lengths, dtype=np.int64) - lengths) * np.dtype(dtype).itemsize
        head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(docs), len(docs) + 1)
        entries = np.arange(len(docs) + 1, dtype=np.int64)
        (folder / "web" / "tokens.idx").write_bytes(head + lengths.tobytes() + places.tobytes() + entries.tobytes())
        (folder / "web" / "tokens.bin").write_bytes(np.concatenate([np.array(doc, dtype) for doc in docs]).tobytes())
        ours, back = folder.with_name(folder.name + "-ours"), folder.with_name(folder.name + "-back")
        mpt.run("data", "convert", folder, ours, "--to", "parquet", "--tokenizer", tokenizer(mpt), "--seq-len", 1)
        mpt.run("data", "convert", ours, back, "--to", "megatron", "--token-dtype", dtype)
        report(f"Megatron {dtype} to ours and back: the same bytes", tree(folder) == tree(back))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mpt", required=True, help="the binary")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mpt = Mpt(args.mpt, Path(folder))
        for check in [check_rewriting, check_tokens, check_megatron]:
            check(mpt)
    print(f"{len(failures)} differences")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

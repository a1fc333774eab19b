"""Builds, reads and checks data in an S3 store with `mpt data`, against moto's server on the loopback interface.

    python xtask/crosscheck/s3.py --mpt target/release/mpt

Needs: an `mpt` with the feature `remote`, moto[server] and boto3. Everything is made in a temporary folder. Exit code 1 when
something differs.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3

failures = []


def report(what, ok, more=""):
    print(f"{'ok  ' if ok else 'FAIL'} {what}{f': {more}' if more and not ok else ''}", flush=True)
    if not ok:
        failures.append(what)


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def wait_for(port, server):
    for _ in range(300):
        if server.poll() is not None:
            sys.exit("moto_server ended at once")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("moto_server does not answer")


class Mpt:
    def __init__(self, binary, env):
        self.binary, self.env = binary, env

    def try_run(self, *args, **env):
        full = {**self.env, **env}
        return subprocess.run([self.binary, "--quiet", *map(str, args)], capture_output=True, text=True, env=full)

    def run(self, *args, **env):
        result = self.try_run(*args, **env)
        if result.returncode:
            sys.exit(f"mpt {' '.join(map(str, args))}: {result.stderr}")
        return result.stdout


MIX = """
tokenizer = "tokenizer.json"
seq_len = 64
eval_fraction = 0.1
eos = ""

[[sources]]
name = "web"
proportion = 0.7
paths = ["{base}web/*.jsonl"]
format = "jsonl"

[[sources]]
name = "books"
proportion = 0.3
paths = ["{base}books/**/*.txt"]
format = "text"
"""


def words(seed, count):
    names = ["tree", "river", "stone", "cloud", "grass", "bird", "moon", "leaf"]
    state, out = seed * 1_000_003 + 7, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(f"{names[state >> 61]}{(state >> 40) % 10}")
    return " ".join(out)


def make(folder, mpt):
    (folder / "web").mkdir()
    for part in range(3):
        lines = [json.dumps({"id": f"{part}-{i}", "text": words(part * 1000 + i, 200)}) for i in range(300)]
        (folder / f"web/{part}.jsonl").write_text("\n".join(lines) + "\n")
    for i in range(40):
        path = folder / f"books/shelf {i % 3}/{i:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(words(9000 + i, 800))
    mpt.run("tokenizer", "train", "--vocab-size", 400, "--out", folder / "tokenizer.json", folder / "web/0.jsonl")


def upload(client, folder, prefix):
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        client.upload_file(str(path), "corpus", f"{prefix}/{path.relative_to(folder).as_posix()}")


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.page"))


def check(folder, mpt, client):
    make(folder, mpt)
    for kind in ("web", "books"):
        upload(client, folder / kind, f"raw/{kind}")
    (folder / "local.toml").write_text(MIX.format(base=""))
    (folder / "remote.toml").write_text(MIX.format(base="s3://corpus/raw/"))
    mpt.run("data", "build", folder / "local.toml", "--out", folder / "data")
    mpt.run("data", "build", folder / "remote.toml", "--out", folder / "from-s3")
    shards = sorted(path.relative_to(folder / "data") for path in (folder / "data").rglob("*/*/*.parquet"))
    every = [["--count", 2000], ["--split", "eval", "--count", 50]]
    same = all(mpt.run("data", "cat", folder / "data", *part) == mpt.run("data", "cat", folder / "from-s3", *part) for part in every)
    report(f"build: the rows from s3:// are those from files, {len(shards)} shards", same and len(shards) >= 4)

    upload(client, folder / "data", "data")
    cat = ["--count", 200, "--start", 0]
    expected = mpt.run("data", "cat", folder / "data", *cat)
    for mode in ("rows", "rows:1", "chunks"):
        for limit in ("0", "20K", "1GiB"):
            cache = folder / f"cache-{mode.replace(':', '-')}-{limit}"
            env = {"MPT_REMOTE_READ": mode, "MPT_REMOTE_CACHE_LIMIT": limit, "MPT_REMOTE_CACHE": str(cache)}
            found = mpt.run("data", "cat", "s3://corpus/data", *cat, **env)
            again = mpt.run("data", "cat", "s3://corpus/data", *cat, **env)
            most = {"0": 0, "20K": 20 << 10, "1GiB": 1 << 30}[limit]
            ok = found == expected and again == expected and size(cache) <= most
            report(f"cat: {mode}, cache {limit}: the same samples, {size(cache)} bytes kept", ok)
    held_out = ["--split", "eval", "--count", 4]
    report(
        "cat: held out",
        mpt.run("data", "cat", "s3://corpus/data", *held_out) == mpt.run("data", "cat", folder / "data", *held_out),
    )
    result = mpt.try_run("data", "verify", "s3://corpus/data")
    report("verify: all is as it was written", result.returncode == 0, result.stderr)
    tables = [mpt.run("--json", "data", "inspect", dir) for dir in ("s3://corpus/data", folder / "data")]
    report("inspect: the same table", tables[0] == tables[1])

    shard = shards[-1].as_posix()
    bytes_ = bytearray((folder / "data" / shard).read_bytes())
    bytes_[200] ^= 1
    client.put_object(Bucket="corpus", Key=f"data/{shard}", Body=bytes(bytes_))
    result = mpt.try_run("data", "verify", "s3://corpus/data")
    report("verify: a changed byte is named", result.returncode == 3 and f"{shard}: row " in result.stderr, result.stderr)
    client.put_object(Bucket="corpus", Key="raw/web/1.jsonl", Body=b'{"text": "another"}\n')
    result = mpt.try_run("data", "build", folder / "remote.toml", "--out", folder / "from-s3")
    report("build: a changed object is named", result.returncode == 2 and "web.inputs.1.jsonl" in result.stderr, result.stderr)
    result = mpt.try_run("data", "cat", "s3://corpus/nothing")
    report("cat: nothing there", result.returncode == 3 and "there is no such object" in result.stderr, result.stderr)
    result = mpt.try_run("data", "cat", "s3://corpus/data", AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    report("cat: nobody answers", result.returncode == 3, result.stderr)
    print(result.stderr.strip())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mpt", required=True)
    mpt = Path(parser.parse_args().mpt).resolve()
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, server)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket="corpus")
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, **keys, "AWS_ENDPOINT_URL": endpoint, "MPT_REMOTE_CACHE": f"{folder}/cache"}
            check(Path(folder), Mpt(mpt, env), client)
    finally:
        server.terminate()
        server.wait()
    if failures:
        sys.exit(f"{len(failures)} failed")


if __name__ == "__main__":
    main()

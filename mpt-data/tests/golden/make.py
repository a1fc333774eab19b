"""Makes the golden MDS datasets of this folder with mosaicml-streaming.

    pip install mosaicml-streaming
    python mpt-data/tests/golden/make.py

Three samples {"tokens": [1, 2, 300 + i], "id": i - 1, "é": "ü" * i} in shards of 310 bytes at most: plain in `mds`, in zstd in
`mds-zstd`, where bytes depend on the version of zstd and only values are compared. made.json says which version wrote them.
"""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
from streaming import MDSWriter

HERE = Path(__file__).parent
COLUMNS = {"tokens": "ndarray:uint16", "id": "int", "é": "str"}


def make(name, **options):
    shutil.rmtree(HERE / name, ignore_errors=True)
    with MDSWriter(out=str(HERE / name), columns=COLUMNS, hashes=["md5", "xxh64"], size_limit=310, **options) as writer:
        for i in range(3):
            writer.write({"tokens": np.array([1, 2, 300 + i], dtype=np.uint16), "id": i - 1, "é": "ü" * i})


if __name__ == "__main__":
    make("mds")
    make("mds-zstd", compression="zstd")
    made = {"made_with": {package: version(package) for package in ["mosaicml-streaming", "zstd", "numpy"]}}
    (HERE / "made.json").write_text(json.dumps(made, indent=1) + "\n")

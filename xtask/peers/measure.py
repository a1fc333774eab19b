"""What the peer scripts share: threads, the clock, and the one line of JSON that they print."""

import json
import resource
import statistics
import sys
import time


def seconds(work):
    """How long a call takes, and what it returns."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def median_seconds(work, reps):
    """The median of `reps` calls after one that is not counted."""
    work()
    return statistics.median(seconds(work)[0] for _ in range(reps))


def torch_with(threads):
    """torch, limited to some threads."""
    import torch

    torch.set_num_threads(threads)
    return torch


def report(**figures):
    """Prints figures and the most memory this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({**figures, "peak_rss_bytes": peak}))

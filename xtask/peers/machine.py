"""A large f32 product and reading memory, under torch.

    python machine.py --threads 2
"""

import argparse

from measure import report, seconds, torch_with

SIZE = 2048
WORDS = 1 << 27


def best(work):
    return min(seconds(work)[0] for _ in range(4))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    torch = torch_with(parser.parse_args().threads)
    matrix = torch.rand(SIZE, SIZE) * 2 - 1
    product = best(lambda: matrix @ matrix.T)
    words = torch.ones(WORDS, dtype=torch.int64)
    reading = best(words.sum)
    report(machine_flops_per_s=2 * SIZE**3 / product, machine_read_bytes_per_s=8 * WORDS / reading)


if __name__ == "__main__":
    main()

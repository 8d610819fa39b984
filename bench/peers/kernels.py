#!/usr/bin/env python3
"""Single ops of ours and of PyTorch in one interleaved run: who takes how long, and our part of PyTorch's time.

  bench/peers/kernels.py --python VENV/bin/python --ours build/release/bench/kernels_contestant
"""

import argparse
import os
import shlex
import shutil
import statistics
import sys
from pathlib import Path

import run

SHAPES = {
    "transpose": "2048 x 2048, to contiguous",
    "attention_gpt": "16 x 4 heads, 128 x 32, causal",
    "attention_gpt_both": "the same with gradients",
    "attention_long": "1 x 8 heads, 1024 x 64, causal",
    "attention_long_both": "the same with gradients",
    "cross_entropy_both": "4096 x 1024, with gradient",
    "adamw": "4M (PyTorch's fused)",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, help="our contestant: a command that speaks the protocol")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch (default: this one)")
    parser.add_argument("--kernels", help="only these, separated by commas")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a slice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--priority", action="store_true", help="run ahead of all other work (needs root)")
    options = parser.parse_args()
    options.cpus = sorted(os.sched_getaffinity(0))[: options.threads]
    program, *arguments = shlex.split(options.ours)
    ours = run.Contestant("ours", [str(Path(shutil.which(program) or program).resolve()), *arguments], options)
    peer = run.Contestant("PyTorch", [options.python, str(run.HERE / "kernels_peer.py")], options)
    kernels = options.kernels.split(",") if options.kernels else list(ours.hello["workloads"])

    def milliseconds(contestant, kernel):
        answer = contestant.ask(f"run {kernel} eager {options.seconds}")
        if "error" in answer:
            raise SystemExit(f"{contestant.name} {kernel}: {answer['error']}")
        return answer["step_ms_median"]

    print(f"{run.processor()}, {options.threads} threads, float32, PyTorch {peer.hello['version']}\n")
    print("| kernel | on | ours, µs | PyTorch, µs | ours ÷ PyTorch | by round |\n|---|---|---|---|---|---|")
    for kernel in kernels:
        rounds = [(milliseconds(ours, kernel), milliseconds(peer, kernel)) for _ in range(options.rounds)]
        ratios = [mine / theirs for mine, theirs in rounds]
        mine, theirs = (statistics.median(side) * 1e3 for side in zip(*rounds))
        print(
            f"| {kernel} | {SHAPES.get(kernel, '4096 x 1024')} | {mine:,.0f} | {theirs:,.0f} "
            f"| {statistics.median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f} |",
            flush=True,
        )
    ours.end()
    peer.end()


if __name__ == "__main__":
    main()

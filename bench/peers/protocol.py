"""The Python side of the contestants' protocol (README.md): commands on stdin, one JSON line each on stdout.

A peer builds a table {workload: {variant: make}}. make() returns a Program; everything else (timing, blocks, warm-up,
errors) is the same for every peer and lies here.
"""

import gc
import json
import os
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Callable

BLOCK_SECONDS = 0.01  # steps are timed in blocks about this long; an asynchronous peer may pipeline within a block
WARM_SECONDS = 1.0  # after the first step, before the first measured slice
SETTLE_SECONDS = 0.03  # at the start of each slice: caches, clock, threads that slept

# Shapes that every peer shares.
BATCH = 64
BATCHES = 8  # a step gets the next of so many batches, as a training loop would
LEARNING_RATE = 0.01
MOMENTUM = 0.9
TEXT_BATCH, TEXT_STEPS, TEXT_WIDTH, VOCABULARY = 32, 64, 128, 64
ADAM_RATE = 0.001
GPT_BATCH, GPT_CONTEXT, GPT_WIDTH, GPT_HEADS, GPT_LAYERS, GPT_VOCABULARY = 16, 128, 128, 4, 4, 256
GPT_LEARNING_RATE = 3e-4
GPT2_BATCH, GPT2_CONTEXT, GPT2_WIDTH, GPT2_HEADS, GPT2_LAYERS, GPT2_VOCABULARY = 8, 1024, 768, 12, 12, 50304
RESNET18_BATCH = 256
POINTWISE_SIZE = 1 << 20
POINTWISE_REPEATS = 5
ADD_SIZE = 8
CHAIN = 1000


@dataclass
class GptSize:
    layers: int = GPT_LAYERS
    width: int = GPT_WIDTH
    heads: int = GPT_HEADS
    context: int = GPT_CONTEXT
    vocabulary: int = GPT_VOCABULARY
    batch: int = GPT_BATCH


GPT2 = GptSize(GPT2_LAYERS, GPT2_WIDTH, GPT2_HEADS, GPT2_CONTEXT, GPT2_VOCABULARY, GPT2_BATCH)


def device():
    """cpu, or cuda where the contestant was called with --device cuda."""
    return sys.argv[sys.argv.index("--device") + 1] if "--device" in sys.argv else "cpu"


@dataclass
class Program:
    """One workload in one variant, ready to run."""

    step: Callable[[], object]  # one step; may return before it is done
    finish: Callable[[], None] = lambda: None  # waits for all the steps so far
    value: Callable[[], float] = lambda: float("nan")  # loss or checksum of the last step, for plausibility
    units: int = 1  # operations in a step where the figure wanted is time per operation


class Measured:
    """A program with its first step's time, run in slices."""

    def __init__(self, make):
        start = time.perf_counter()
        self.program = make()
        self.build_seconds = time.perf_counter() - start
        start = time.perf_counter()
        self.program.step()
        self.program.finish()
        self.first_step_seconds = time.perf_counter() - start
        self.first_value = self.program.value()
        self.block_steps = 1

    def run_for(self, seconds):
        """Seconds per step, one entry for each block."""
        step, finish, blocks = self.program.step, self.program.finish, []
        end = time.perf_counter() + seconds
        while True:
            start = time.perf_counter()
            if start >= end and blocks:
                return blocks
            for _ in range(self.block_steps):
                step()
            finish()
            elapsed = time.perf_counter() - start
            blocks.append(elapsed / self.block_steps)
            self.block_steps = max(1, min(self.block_steps * 4, round(BLOCK_SECONDS / blocks[-1])))

    def slice(self, seconds):
        gc.collect()
        gc.disable()
        self.run_for(SETTLE_SECONDS)
        blocks = self.run_for(seconds)
        gc.enable()
        median = statistics.median(blocks)
        return {
            "step_ms_median": median * 1e3,
            "step_ms_min": min(blocks) * 1e3,
            "ns_per_op": median * 1e9 / self.program.units,
            "ns_per_op_min": min(blocks) * 1e9 / self.program.units,
            "steps": len(blocks) * self.block_steps,
            "first_step_s": self.first_step_seconds,
            "first_value": self.first_value,
            "value": self.program.value(),
        }


def resident_mib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


def status_mib(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name + ":"))


def added_mib(make):
    """What a workload adds to a process that has the library loaded: the most resident memory in its making and 20
    steps, less what was resident before."""
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # forget the peak so far
    before = status_mib("VmRSS")
    program = make()
    for _ in range(20):
        program.step()
    program.finish()
    program.value()
    return status_mib("VmHWM") - before


def serve(name, version, threads, table, import_seconds):
    """Answers commands until `quit` or the end of stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the framework or its compiler prints must not spoil the answers
    programs = {}

    def answer(command, words):
        if command == "hello":
            return {
                "name": name,
                "version": version,
                "threads": threads,
                "import_s": import_seconds,
                "resident_mib": resident_mib(),
                "workloads": {workload: list(variants) for workload, variants in table.items()},
            }
        workload, variant = words[0], words[1]
        key = {"workload": workload, "variant": variant}
        if command == "memory":
            return key | {"added_mib": added_mib(table[workload][variant])}
        if command == "cold":
            return key | {"first_step_s": Measured(table[workload][variant]).first_step_seconds}
        if command == "prepare" or (workload, variant) not in programs:
            measured = Measured(table[workload][variant])
            measured.run_for(WARM_SECONDS)
            programs[workload, variant] = measured
        measured = programs[workload, variant]
        if command == "prepare":
            return key | {"first_step_s": measured.first_step_seconds, "resident_mib": resident_mib()}
        if command == "run":
            return key | measured.slice(float(words[2]))
        raise ValueError(f"unknown command {command}")

    for line in sys.stdin:
        words = line.split()
        if not words:
            continue
        if words[0] == "quit":
            return
        try:
            reply = answer(words[0], words[1:])
        except Exception as error:  # the driver shows it and goes on without this entry
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()

#!/usr/bin/env python3
"""Runs our benchmark and the peers in one interleaved run and prints who took how long (README.md).

  bench/peers/run.py --python VENV/bin/python --ours build/release/bench/contestant
"""

import argparse
import contextlib
import json
import os
import platform
import select
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORKLOADS = ["mlp", "lenet", "resnet8", "resnet8_wide", "lstm", "gpt", "pointwise", "add8", "add8_grad", "add8_chain"]
GPU_WORKLOADS = ["mlp", "lenet", "resnet18", "gpt", "gpt2", "pointwise"]
PER_OPERATION = {"add8", "add8_grad", "add8_chain"}  # shown as ns per operation
ANSWER_SECONDS = 600  # max-autotune takes minutes


class Gone(Exception):
    """A contestant that could not start, died, or did not answer."""


class Contestant:
    """A process that speaks the protocol. It is stopped (SIGSTOP) except while it answers."""

    def __init__(self, name, command, options, cache=None):
        self.name, self.command = name, command
        environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
        if options.device == "cpu":
            environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        else:  # contestants share the device: none may take all of its memory
            environment |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            command = [*command, "--device", options.device]
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
        if cache:  # every cache that survives a process
            for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME", "TANDEM_CACHE_DIR"):
                environment[variable] = str(Path(cache) / variable)
                Path(environment[variable]).mkdir(mode=0o700)
        self.log = tempfile.TemporaryFile("w+")

        def pin():
            os.sched_setaffinity(0, options.cpus)

        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                env=environment,
                cwd=HERE,
                bufsize=0,
                start_new_session=True,
                preexec_fn=pin,
            )
        except OSError as error:
            raise Gone(str(error)) from None
        if options.priority:
            raise_priority(self.process.pid)
        start = time.monotonic()
        self.hello = self.ask("hello")
        self.start_seconds = time.monotonic() - start

    def ask(self, request):
        """One command, one answer. Raises Gone if none comes; an answer may be {"error": ...}."""
        pid = self.process.pid
        try:
            os.kill(pid, signal.SIGCONT)
            self.process.stdin.write((request + "\n").encode())
            line, deadline = b"", time.monotonic() + ANSWER_SECONDS
            while not line.endswith(b"\n"):
                ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
                if not ready:
                    raise Gone(f"no answer to `{request}` within {ANSWER_SECONDS} s")
                chunk = self.process.stdout.read(65536)
                if not chunk:
                    raise Gone(f"ended at `{request}`: {self.last_words()}")
                line += chunk
            os.kill(pid, signal.SIGSTOP)
        except (BrokenPipeError, ProcessLookupError):
            raise Gone(f"ended at `{request}`: {self.last_words()}") from None
        return json.loads(line)

    def account(self):
        """Seconds so far that its threads ran, that they waited for a core, and that all of the machine was busy."""
        ran = waited = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError, IndexError, ValueError):
                times = (task / "schedstat").read_text().split()
                ran, waited = ran + int(times[0]) / 1e9, waited + int(times[1]) / 1e9
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        return ran, waited, (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")

    def disturbed_since(self, before, seconds):
        """The share of the time that others took from it: it waited, and someone else ran."""
        ran, waited, busy = (now - then for now, then in zip(self.account(), before))
        return max(0.0, min(waited, busy - ran) / seconds)

    def last_words(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        return (lines[-1][:200] if lines else "no message") + f" (exit status {self.process.returncode})"

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def raise_priority(pid):
    """Ahead of most other work, where we may."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, -20)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-20")  # where sessions are scheduled as groups


def set_realtime(pid, ahead):
    """Ahead of all other work for a slice: a build beside a benchmark distorts it tenfold."""
    policy, priority = (os.SCHED_RR, 1) if ahead else (os.SCHED_OTHER, 0)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))


def build_libtorch(options):
    """Builds libtorch_peer.cpp against the PyTorch wheel's headers; returns the binary or raises Gone."""
    try:
        torch = subprocess.run(
            [options.python, "-c", "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise Gone(f"{options.python} has no torch") from None
    binary, sources = options.build / "libtorch_peer", [HERE / "libtorch_peer.cpp", HERE / "contestant.h"]
    if binary.exists() and binary.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return binary
    options.build.mkdir(parents=True, exist_ok=True)
    abi = subprocess.run(
        [options.python, "-c", "import torch; print(int(torch.compiled_with_cxx11_abi()))"], capture_output=True, text=True
    ).stdout.strip()
    command = [os.environ.get("CXX", "c++"), "-std=c++20", "-O2", f"-D_GLIBCXX_USE_CXX11_ABI={abi or 1}", f"-I{ROOT}"]
    command += ["-isystem", f"{torch}/include", "-isystem", f"{torch}/include/torch/csrc/api/include"]
    command += [str(sources[0]), "-o", str(binary), f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib", "-ltorch_cpu", "-lc10"]
    progress("building the libtorch contestant (about half a minute)")
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise Gone("libtorch_peer.cpp does not build: " + next(iter(result.stderr.splitlines()), "")[:200])
    return binary


def progress(text):
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def commands(options, missing):
    """name -> command of every contestant asked for."""
    found = {}
    if options.ours:
        found["ours"] = shlex.split(options.ours)
        binary = shutil.which(found["ours"][0])
        if binary:
            found["ours"][0] = str(Path(binary).resolve())
    if "torch" in options.peers:
        found["PyTorch"] = [options.python, str(HERE / "pytorch_peer.py")]
    if "jax" in options.peers:
        found["JAX"] = [options.python, str(HERE / "jax_peer.py")]
    if "libtorch" in options.peers:
        try:
            found["libtorch C++"] = [str(build_libtorch(options))]
        except Gone as error:
            missing["libtorch C++"] = str(error)
    if "tensorflow" in options.peers:
        found["TensorFlow"] = [options.tensorflow_python or options.python, str(HERE / "tensorflow_peer.py")]
    return found


def variants_of(contestant, workload, options):
    return [v for v in contestant.hello["workloads"].get(workload, []) if not options.variants or v in options.variants]


def measure(workload, contestants, options, problems):
    """Every variant of every contestant, one slice each per round, round after round."""
    entries = []
    for contestant in list(contestants.values()):
        for variant in variants_of(contestant, workload, options):
            progress(f"{workload}: preparing {contestant.name} {variant}")
            try:
                answer = contestant.ask(f"prepare {workload} {variant}")
            except Gone as error:
                problems.append(f"{contestant.name}: {error}")
                contestant.end()
                del contestants[contestant.name]
                break
            if "error" in answer:
                problems.append(f"{contestant.name} {workload} {variant}: {answer['error']}")
                continue
            entries.append({"contestant": contestant.name, "variant": variant, "prepare": answer, "slices": []})
    entries = [entry for entry in entries if entry["contestant"] in contestants]
    for turn in range(options.rounds):
        progress(f"{workload}: round {turn + 1} of {options.rounds}")
        shift = turn % max(1, len(entries))
        for entry in entries[shift:] + entries[:shift]:
            if entry["contestant"] in contestants:
                entry["slices"].append(one_slice(entry, workload, contestants, options, problems))
    for entry in entries:
        entry["slices"] = [slice for slice in entry["slices"] if slice]
    return [entry for entry in entries if entry["slices"]]


def one_slice(entry, workload, contestants, options, problems):
    """The least disturbed of at most --retries slices; taken at once if no one took more than --disturbed of it."""
    contestant, best = contestants[entry["contestant"]], None
    for _ in range(options.retries):
        before, start = contestant.account(), time.monotonic()
        try:
            if options.priority:
                set_realtime(contestant.process.pid, True)
            answer = contestant.ask(f"run {workload} {entry['variant']} {options.seconds}")
            if options.priority:
                set_realtime(contestant.process.pid, False)
        except Gone as error:
            problems.append(f"{contestant.name}: {error}")
            contestant.end()
            del contestants[entry["contestant"]]
            return None
        if "error" in answer:
            problems.append(f"{contestant.name} {workload} {entry['variant']}: {answer['error']}")
            return None
        answer["disturbed"] = contestant.disturbed_since(before, time.monotonic() - start)
        if best is None or answer["disturbed"] < best["disturbed"]:
            best = answer
        if best["disturbed"] <= options.disturbed:
            break
    return best


def cold(workload, name, command, variant, options):
    """Seconds to the end of the first step of a fresh process whose caches are empty."""
    with tempfile.TemporaryDirectory(prefix="peers-cold-") as cache:
        contestant = Contestant(name, command, options, cache)
        try:
            return contestant.ask(f"cold {workload} {variant}") | {"start_s": contestant.start_seconds}
        finally:
            contestant.end()


def memory(workload, name, command, variant, options):
    """MiB that a workload adds to a fresh process."""
    contestant = Contestant(name, command, options)
    try:
        return contestant.ask(f"memory {workload} {variant}")
    finally:
        contestant.end()


def figures(entry, workload):
    """(median, low, high, best) over an entry's slices, in ns per operation or ms per step."""
    median_key, best_key = ("ns_per_op", "ns_per_op_min") if workload in PER_OPERATION else ("step_ms_median", "step_ms_min")
    medians = [slice[median_key] for slice in entry["slices"]]
    return statistics.median(medians), min(medians), max(medians), min(slice[best_key] for slice in entry["slices"])


def ratio(ours, peer, workload):
    """Ours over the peer's: round by round (median, low, high), and best over best."""
    key = "ns_per_op" if workload in PER_OPERATION else "step_ms_median"
    pairs = [a[key] / b[key] for a, b in zip(ours["slices"], peer["slices"])]
    return statistics.median(pairs), min(pairs), max(pairs), figures(ours, workload)[3] / figures(peer, workload)[3]


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(result):
    lines = [f"{result['machine']}, {result['device']}, {result['threads']} threads, {result['rounds']} rounds of {result['seconds']} s, {result['date']}", ""]
    lines += [f"- {name} {info['version']}" for name, info in result["contestants"].items()]
    lines += [f"- missing: {name} ({why})" for name, why in result["missing"].items()]
    lines += [f"- problem: {problem}" for problem in result["problems"]]
    lines += [
        "",
        "| workload | contestant | variant | median | slices | best | disturbed |",
        "|---|---|---|---|---|---|---|",
    ]
    for workload, entries in result["workloads"].items():
        unit = "ns/op" if workload in PER_OPERATION else "ms"
        for entry in sorted(entries, key=lambda entry: figures(entry, workload)[0]):
            median, low, high, best = figures(entry, workload)
            disturbed = statistics.median(slice["disturbed"] for slice in entry["slices"])
            lines.append(
                f"| {workload} | {entry['contestant']} | {entry['variant']} | {number(median)} {unit} "
                f"| {number(low)}-{number(high)} | {number(best)} | {disturbed:.0%} |"
            )
    if any(entry["contestant"] == "ours" for entries in result["workloads"].values() for entry in entries):
        lines += ["", "| workload | ours | the fastest peer | ours ÷ it | by round | best ÷ best |", "|---|---|---|---|---|---|"]
        for workload, entries in result["workloads"].items():
            mine = [entry for entry in entries if entry["contestant"] == "ours"]
            peers = [entry for entry in entries if entry["contestant"] != "ours"]
            best = min(peers, key=lambda entry: figures(entry, workload)[0], default=None)
            eager = [peer for peer in peers if peer["variant"].startswith("eager")]
            best_eager = min(eager, key=lambda entry: figures(entry, workload)[0], default=None)
            for entry in mine:
                for peer in [best] if best is best_eager else [best, best_eager]:
                    if peer is None:
                        continue
                    middle, low, high, extreme = ratio(entry, peer, workload)
                    lines.append(
                        f"| {workload} | {entry['variant']} | {peer['contestant']} {peer['variant']}"
                        f"{' (the best eager one)' if peer is not best else ''} "
                        f"| {middle:.2f} | {low:.2f}-{high:.2f} | {extreme:.2f} |"
                    )
    if result["cold"]:
        lines += ["", "| cold | contestant | variant | first step, s | first compiled step, s | start, s |", "|---|---|---|---|---|---|"]
        for entry in result["cold"]:
            compiled = entry.get("first_compiled_s", entry["first_step_s"])
            lines.append(
                f"| {entry['workload']} | {entry['contestant']} | {entry['variant']} | {entry['first_step_s']:.3g} "
                f"| {compiled:.3g} | {entry['start_s']:.2g} |"
            )
    if result["memory"]:
        lines += ["", "| memory added by | contestant | variant | MiB |", "|---|---|---|---|"]
        for entry in sorted(result["memory"], key=lambda entry: (entry["workload"], entry["added_mib"])):
            lines.append(f"| {entry['workload']} | {entry['contestant']} | {entry['variant']} | {entry['added_mib']:.0f} |")
    return "\n".join(lines)


def processor():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", help="our contestant: a command that speaks the protocol")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch and jax (default: this one)")
    parser.add_argument("--tensorflow-python", help="a Python that has tensorflow, if it is another one")
    parser.add_argument("--peers", default="torch,libtorch,jax", help="of torch, libtorch, jax, tensorflow; or none")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; on cuda there are no libtorch and no tensorflow")
    parser.add_argument("--workloads", help=f"of {', '.join(WORKLOADS)}; on cuda {', '.join(GPU_WORKLOADS)}")
    parser.add_argument("--variants", help="only these, separated by commas")
    parser.add_argument("--cold", default="", help="workloads whose first compiled step is timed with empty caches")
    parser.add_argument("--memory", default="", help="workloads of which the memory that they add to a fresh process is measured")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a slice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--priority", action="store_true", help="slices run ahead of all other work, as real-time threads (needs root)")
    parser.add_argument("--disturbed", type=float, default=0.05, help="share of a slice that others may take")
    parser.add_argument("--retries", type=int, default=2, help="how often a slice is taken if others disturb it")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "peers", help="where the libtorch peer is built")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    options = parser.parse_args()
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    unknown = set(options.peers) - {"torch", "libtorch", "jax", "tensorflow"}
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))} (there are torch, libtorch, jax, tensorflow)")
    if options.device != "cpu":
        options.peers = [peer for peer in options.peers if peer in ("torch", "jax")]
    if options.workloads is None:
        options.workloads = ",".join(WORKLOADS if options.device == "cpu" else GPU_WORKLOADS)
    options.workloads = [workload for workload in options.workloads.split(",") if workload]
    options.variants = options.variants.split(",") if options.variants else []
    options.cpus = sorted(os.sched_getaffinity(0))[: options.threads]
    return options


def main():
    options = parse()
    missing, problems, contestants = {}, [], {}
    everyone = commands(options, missing)
    for name, command in everyone.items():
        try:
            contestants[name] = Contestant(name, command, options)
        except Gone as error:
            missing[name] = str(error)
    present = {name: dict(contestant.hello, start_s=contestant.start_seconds) for name, contestant in contestants.items()}
    result = {
        "machine": processor(),
        "device": options.device,
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "load": os.getloadavg(),
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "contestants": present,
        "missing": missing,
        "problems": problems,
        "workloads": {},
        "cold": [],
        "memory": [],
    }
    try:
        for workload in options.workloads:
            result["workloads"][workload] = measure(workload, contestants, options, problems)
    finally:
        for contestant in contestants.values():
            contestant.end()
    for workload in filter(None, options.cold.split(",")):
        for name in present:
            for variant in present[name]["workloads"].get(workload, []):
                if variant.startswith(("eager", "replay")) or (options.variants and variant not in options.variants):
                    continue
                progress(f"cold {workload}: {name} {variant}")
                try:
                    answer = cold(workload, name, everyone[name], variant, options)
                    if "error" in answer:
                        raise Gone(answer["error"])
                    result["cold"].append(answer | {"contestant": name})
                except Gone as error:
                    problems.append(f"cold {name} {workload} {variant}: {error}")
    for workload in filter(None, options.memory.split(",")):
        for name in present:
            for variant in present[name]["workloads"].get(workload, []):
                if options.variants and variant not in options.variants:
                    continue
                progress(f"memory {workload}: {name} {variant}")
                try:
                    answer = memory(workload, name, everyone[name], variant, options)
                    if "error" in answer:
                        raise Gone(answer["error"])
                    result["memory"].append(answer | {"contestant": name})
                except Gone as error:
                    problems.append(f"memory {name} {workload} {variant}: {error}")
    print(markdown(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

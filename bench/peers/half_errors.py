#!/usr/bin/env python3
"""Errors of 16-bit ops against float64, ours and PyTorch's on the same inputs, as a markdown table.

    bench/peers/half_errors.py --ours build/release/bench/half_errors

Needs torch and safetensors. Operands are drawn normally and rounded to the 16-bit type first, so that an error is that
of the op, not of its inputs. An op fails if our mean or largest error is more than 1.5 times PyTorch's.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

ALLOWED = 1.5


def normal(*shape):
    return torch.randn(*shape)


def positive(*shape):
    return torch.rand(*shape) + 0.1


# name: operands, and the op in PyTorch
CASES = {
    "exp": ([normal(64, 1024)], torch.exp),
    "log": ([positive(64, 1024)], torch.log),
    "tanh": ([normal(64, 1024)], torch.tanh),
    "sigmoid": ([normal(64, 1024)], torch.sigmoid),
    "gelu": ([normal(64, 1024)], F.gelu),
    "silu": ([normal(64, 1024)], F.silu),
    "add": ([normal(64, 1024), normal(64, 1024)], torch.add),
    "mul": ([normal(64, 1024), normal(64, 1024)], torch.mul),
    "div": ([normal(64, 1024), positive(64, 1024)], torch.div),
    "sum": ([normal(256, 1024)], lambda x: x.sum(-1)),
    "sum_columns": ([normal(1024, 256)], lambda x: x.sum(0)),
    "mean": ([normal(256, 1024)], lambda x: x.mean(-1)),
    "var": ([normal(256, 1024)], lambda x: x.var(-1)),
    "logsumexp": ([normal(256, 1024)], lambda x: x.logsumexp(-1)),
    "cumsum": ([normal(64, 256)], lambda x: x.cumsum(-1)),
    "softmax": ([normal(256, 1024)], lambda x: x.softmax(-1)),
    "log_softmax": ([normal(256, 1024)], lambda x: x.log_softmax(-1)),
    "layer_norm": ([normal(256, 512), normal(512), normal(512)], lambda x, w, b: F.layer_norm(x, (512,), w, b)),
    "rms_norm": ([normal(256, 512), normal(512)], lambda x, w: F.rms_norm(x, (512,), w, 1e-5)),
    "group_norm": ([normal(8, 16, 12, 12), normal(16), normal(16)], lambda x, w, b: F.group_norm(x, 4, w, b)),
    "matmul": ([normal(256, 512), normal(512, 128)], torch.matmul),
    "linear": ([normal(256, 512), normal(128, 512), normal(128)], F.linear),
    "conv2d": ([normal(4, 32, 16, 16), normal(48, 32, 3, 3), normal(48)], lambda x, w, b: F.conv2d(x, w, b, padding=1)),
    "avg_pool2d": ([normal(4, 16, 32, 32)], lambda x: F.avg_pool2d(x, 2)),
    "attention": ([normal(2, 4, 128, 32) for _ in range(3)], lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    "mse_loss": ([normal(256, 512), normal(256, 512)], F.mse_loss),
    "bce_with_logits": ([normal(256, 512), positive(256, 512).clamp(0, 1)], F.binary_cross_entropy_with_logits),
}


def errors(result, reference, unit):
    """Mean and largest error, in parts of the type's epsilon times the size of the reference."""
    size = reference.abs().clamp_min(reference.abs().mean())
    error = (result.double() - reference).abs() / size / unit
    return error.mean().item(), error.max().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, type=pathlib.Path, help="the program bench/half_errors")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    types = {"bfloat16": torch.bfloat16, "float16": torch.float16}

    inputs, references, theirs = {}, {}, {}
    for name, (operands, op) in CASES.items():
        for type_name, dtype in types.items():
            key = f"{name}/{type_name}"
            rounded = [x.to(dtype) for x in operands]
            for i, x in enumerate(rounded):
                inputs[f"{key}/{i}"] = x.clone()
            references[key] = op(*[x.double() for x in rounded])
            theirs[key] = op(*rounded)
    with tempfile.TemporaryDirectory() as folder:
        given, made = pathlib.Path(folder) / "in.safetensors", pathlib.Path(folder) / "out.safetensors"
        save_file(inputs, given)
        subprocess.run([options.ours, given, made], check=True)
        ours = load_file(made)

    print("Errors in units of the type's epsilon, mean and largest.\n")
    print("| op | type | ours | PyTorch | ours ÷ PyTorch |")
    print("|---|---|---|---|---|")
    failed = 0
    for key, reference in references.items():
        name, type_name = key.split("/")
        unit = torch.finfo(types[type_name]).eps
        our_mean, our_most = errors(ours[key], reference, unit)
        their_mean, their_most = errors(theirs[key], reference, unit)
        ratios = [a / b if b else (1 if a == 0 else float("inf")) for a, b in ((our_mean, their_mean), (our_most, their_most))]
        worse = max(ratios) > ALLOWED
        failed += worse
        print(f"| {name} | {type_name} | {our_mean:.3f}, {our_most:.2f} | {their_mean:.3f}, {their_most:.2f} | "
              f"{ratios[0]:.2f}, {ratios[1]:.2f}{' **over**' if worse else ''} |")
    print(f"\n{len(references)} cases, {failed} over {ALLOWED} times PyTorch's.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

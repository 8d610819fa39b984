#!/usr/bin/env python3
"""Errors of linear algebra against float64, ours and PyTorch's on the same inputs, as a markdown table.

    bench/peers/linalg_errors.py --ours build/release/bench/linalg_errors

Needs torch and safetensors. Operands are drawn in float32, so that an error is that of the op, not of its inputs. The
reference is PyTorch's float64 on them; for float64, where nothing here is more exact, the two are compared by what must hold
of a result (A X = B, Q' Q = I, …), computed in float64. Errors of single matrices depend on their condition and on luck,
so there are many, and an op fails if the median of our errors is more than 1.5 times PyTorch's.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

ALLOWED = 1.5
L = torch.linalg


def square(n, batch=64):
    """Random matrices; their condition numbers are some multiples of n."""
    return torch.randn(batch, n, n)


def right(n, k=4, batch=64):
    return torch.randn(batch, n, k)


def definite(n, batch=64):
    x = torch.randn(batch, n, n)
    return x @ x.mT / n + 0.1 * torch.eye(n)


def symmetric(n, batch=64):
    x = torch.randn(batch, n, n)
    return (x + x.mT) / 2


def triangle(n, batch=64):
    return torch.randn(batch, n, n).triu(1) / n + torch.eye(n)


def qr(a):
    q, r = L.qr(a)
    return q @ r, q.mT @ q


def svd(a):
    u, s, vh = L.svd(a, full_matrices=False)
    return (u * s.unsqueeze(-2)) @ vh, u.mT @ u, s


def eigh(a):
    w, v = L.eigh(a)
    return (v * w.unsqueeze(-2)) @ v.mT, v.mT @ v, w


OPS = {
    "solve": lambda a, b: L.solve(a, b),
    "solve_triangular": lambda a, b: L.solve_triangular(a, b, upper=True),
    "lstsq": lambda a, b: L.lstsq(a, b).solution,
    "inverse": L.inv,
    "det": L.det,
    "slogdet": lambda a: L.slogdet(a).logabsdet,
    "pinv": L.pinv,
    "cholesky": L.cholesky,
    "qr": qr,
    "svd": svd,
    "svdvals": L.svdvals,
    "eigh": eigh,
    "eigvalsh": L.eigvalsh,
    "matrix_norm": lambda a: L.matrix_norm(a, 2),
}


def residual_solve(a, b, x):
    return ((a @ x - b).norm(dim=(-2, -1)) / (a.norm(dim=(-2, -1)) * x.norm(dim=(-2, -1)))).flatten()


def residual_lstsq(a, b, x):
    """The gradient of the squared error, which is 0 at its least."""
    return ((a.mT @ (a @ x - b)).norm(dim=(-2, -1)) / (a.norm(dim=(-2, -1)) ** 2 * x.norm(dim=(-2, -1)))).flatten()


def distance(x, y):
    return ((x - y).norm(dim=(-2, -1)) / y.norm(dim=(-2, -1))).flatten()


# What must hold of a float64 result: its relative error.
RESIDUALS = {
    "solve": residual_solve,
    "solve_triangular": lambda a, b, x: residual_solve(a.triu(), b, x),
    "lstsq": residual_lstsq,
    "inverse": lambda a, x: distance(a @ x, torch.eye(a.shape[-1]).double().expand_as(a)),
    "pinv": lambda a, x: distance(a @ x @ a, a),
    "cholesky": lambda a, x: distance(x @ x.mT, a),
    "qr": lambda a, x, gram: torch.cat([distance(x, a), distance(gram, torch.eye(gram.shape[-1]).double().expand_as(gram))]),
    "svd": lambda a, x, gram, s: torch.cat([distance(x, a), distance(gram, torch.eye(gram.shape[-1]).double().expand_as(gram))]),
    "eigh": lambda a, x, gram, w: torch.cat([distance(x, a), distance(gram, torch.eye(gram.shape[-1]).double().expand_as(gram))]),
}


def cases():
    """Name, size and operands; OP_grad is the gradient of the sum of the first result's squares by operand 0."""
    for n in (4, 16, 64, 200):
        batch = 64 if n < 200 else 16
        tall = torch.randn(batch, 2 * n, n)
        yield "solve", n, [square(n, batch), right(n, batch=batch)]
        yield "solve_triangular", n, [triangle(n, batch), right(n, batch=batch)]
        yield "lstsq", n, [tall, right(2 * n, batch=batch)]
        yield "inverse", n, [square(n, batch)]
        if n <= 16:
            yield "det", n, [square(n, batch)]
        yield "slogdet", n, [square(n, batch)]
        yield "pinv", n, [tall]
        yield "cholesky", n, [definite(n, batch)]
        yield "qr", n, [tall]
        yield "svd", n, [tall]
        yield "svdvals", n, [tall]
        yield "eigh", n, [symmetric(n, batch)]
        yield "eigvalsh", n, [symmetric(n, batch)]
        yield "matrix_norm", n, [tall]
    for n in (4, 32):
        yield "solve_grad", n, [square(n), right(n)]
        yield "lstsq_grad", n, [torch.randn(64, 2 * n, n), right(2 * n)]
        yield "inverse_grad", n, [definite(n)]
        yield "slogdet_grad", n, [square(n)]
        yield "pinv_grad", n, [torch.randn(64, 2 * n, n)]
        yield "cholesky_grad", n, [definite(n)]
        yield "qr_grad", n, [torch.randn(64, 2 * n, n)]
        yield "svdvals_grad", n, [torch.randn(64, 2 * n, n)]
        yield "eigvalsh_grad", n, [symmetric(n)]


def run(name, operands):
    """PyTorch's results, as a list."""
    if not name.endswith("_grad"):
        result = OPS[name](*operands)
        return list(result) if isinstance(result, tuple) else [result]
    first = operands[0].clone().requires_grad_(True)
    result = OPS[name[: -len("_grad")]](first, *operands[1:])
    result = result[0] if isinstance(result, tuple) else result
    (result * result).sum().backward()
    gradient = first.grad
    # Ours are gradients among symmetric matrices.
    return [(gradient + gradient.mT) / 2 if name in ("cholesky_grad", "eigvalsh_grad") else gradient]


def forward_errors(results, references):
    """For each matrix its error by the norm of the reference."""
    errors = []
    for result, reference in zip(results, references):
        flat, wanted = result.double().reshape(reference.shape[0], -1), reference.reshape(reference.shape[0], -1)
        errors.append((flat - wanted).norm(dim=1) / wanted.norm(dim=1))
    return torch.cat(errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, type=pathlib.Path, help="the program bench/linalg_errors")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    types = {"float32": torch.float32, "float64": torch.float64}

    rows, inputs = [], {}
    for name, n, operands in cases():
        for type_name, dtype in types.items():
            if type_name == "float64" and name not in RESIDUALS:
                continue
            key = f"{name}/{n}/{type_name}"
            rows.append((key, name, n, type_name, operands))
            for i, x in enumerate(operands):
                inputs[f"{key}/{i}"] = x.to(dtype).clone().contiguous()
    with tempfile.TemporaryDirectory() as folder:
        given, made = pathlib.Path(folder) / "in.safetensors", pathlib.Path(folder) / "out.safetensors"
        save_file(inputs, given)
        subprocess.run([options.ours, given, made], check=True)
        ours = load_file(made)

    print("Relative errors in units of the type's epsilon, median and largest over the matrices.\n")
    print("| op | n | type | ours | PyTorch | ours ÷ PyTorch |")
    print("|---|---|---|---|---|---|")
    failed = 0
    for key, name, n, type_name, operands in rows:
        dtype = types[type_name]
        unit = torch.finfo(dtype).eps
        theirs = run(name, [x.to(dtype) for x in operands])
        mine = [ours[f"{key}/out/{i}"] for i in range(len(theirs))]
        doubles = [x.double() for x in operands]
        if type_name == "float32":
            reference = run(name, doubles)
            our_errors, their_errors = forward_errors(mine, reference), forward_errors(theirs, reference)
        else:
            our_errors, their_errors = RESIDUALS[name](*doubles, *mine), RESIDUALS[name](*doubles, *theirs)
        figures = [(e.median().item() / unit, e.max().item() / unit) for e in (our_errors, their_errors)]
        # Below one unit both are as good as the type can say.
        ratios = [max(a, 1) / max(b, 1) for a, b in zip(*figures)]
        worse = ratios[0] > ALLOWED
        failed += worse
        print(f"| {name} | {n} | {type_name} | {figures[0][0]:.2f}, {figures[0][1]:.2f} | {figures[1][0]:.2f}, {figures[1][1]:.2f} | "
              f"{ratios[0]:.2f}, {ratios[1]:.2f}{' **over**' if worse else ''} |")
    print(f"\n{len(rows)} cases, {failed} over {ALLOWED} times PyTorch's.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

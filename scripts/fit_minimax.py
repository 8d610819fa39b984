#!/usr/bin/env python3
"""Finds the coefficients of the polynomials in core/scalar/math.h and philox.h.

A linear Remez exchange in 60 digits (needs python3-mpmath). After each fit the leading free coefficient is
rounded to float32, held fixed, and the others are fitted again, so that the printed set is close to the best
set of *floats*, not the rounded best set of reals.

    python3 scripts/fit_minimax.py            # every table, with its largest weighted error in bits
    python3 scripts/fit_minimax.py exp erf    # some of them
"""
import struct
import sys

import mpmath as mp

mp.mp.dps = 60


def to_float32(x):
    """Nearest float32 of an mpf (through float64: the double rounding is of no consequence for a fit)."""
    return mp.mpf(struct.unpack("f", struct.pack("f", float(x)))[0])


def hex_float(x):
    mantissa = float(x).hex()
    head, exponent = mantissa.split("p")
    return f"{head.rstrip('0').rstrip('.')}p{exponent}f"


def exchange(target, basis, weight, low, high, grid_size=1200, rounds=40):
    """Coefficients c minimising max |weight * (target - sum c_i basis_i)| over [low, high]."""
    unknowns = len(basis)
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * k / grid_size) for k in range(grid_size + 1)]
    wanted = [target(x) * weight(x) for x in grid]
    rows = [[b(x) * weight(x) for b in basis] for x in grid]
    picked = [round(k * grid_size / unknowns) for k in range(unknowns + 1)]
    best = None
    for _ in range(rounds):
        a = mp.matrix(unknowns + 1, unknowns + 1)
        y = mp.matrix(unknowns + 1, 1)
        for i, k in enumerate(picked):
            for j in range(unknowns):
                a[i, j] = rows[k][j]
            a[i, unknowns] = (-1) ** i
            y[i] = wanted[k]
        solution = mp.lu_solve(a, y)
        c = [solution[j] for j in range(unknowns)]
        error = [wanted[k] - mp.fdot(c, rows[k]) for k in range(grid_size + 1)]
        worst = max(abs(e) for e in error)
        if best is None or worst < best[0]:
            best = (worst, c)
        if worst < abs(solution[unknowns]) * mp.mpf("1.0005"):
            break
        # One extremum per run of equal sign, then the best window of unknowns + 1 alternating ones.
        peaks = []
        for k, e in enumerate(error):
            if peaks and (error[peaks[-1]] > 0) == (e > 0):
                if abs(e) > abs(error[peaks[-1]]):
                    peaks[-1] = k
            else:
                peaks.append(k)
        while len(peaks) > unknowns + 1:
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        if len(peaks) < unknowns + 1:
            break
        picked = peaks
    return best


def fit(target, basis, weight, low, high, order):
    """Fits, rounding one coefficient after the other to float32 in the given order of indices."""
    fixed = {}
    for index in order:
        free = [i for i in range(len(basis)) if i not in fixed]
        def rest(x, fixed=dict(fixed)):
            return target(x) - sum(c * basis[i](x) for i, c in fixed.items())
        _, c = exchange(rest, [basis[i] for i in free], weight, low, high)
        fixed[index] = to_float32(c[free.index(index)])
    xs = [low + (high - low) * k / 3000 for k in range(3001)]
    worst = max(abs(weight(x) * (target(x) - sum(c * basis[i](x) for i, c in fixed.items()))) for x in xs if x)
    return [fixed[i] for i in range(len(basis))], worst


def powers(first, count, step=1):
    return [lambda x, p=first + step * k: x**p for k in range(count)]


def show(name, coefficients, worst):
    print(f"{name}: weighted error 2^{float(mp.log(worst, 2)):.1f}")
    for c in coefficients:
        print(f"    {float(c):+.9e}  {hex_float(c)}")


def fit_exp(degree=6):
    # e^r = 1 + r + r^2 Q(r) on |r| <= ln(2)/2, a little more for the rounding of the reduction.
    half = mp.log(2) / 2 * mp.mpf("1.001")
    target = lambda r: mp.exp(r) - 1 - r
    c, e = fit(target, powers(2, degree - 1), lambda r: mp.exp(-r), -half, half, range(degree - 1))
    show(f"exp, degree {degree}", c, e)


def fit_log(degree=10):
    # log(1+f) = f - f^2/2 + f^3 P(f) on sqrt(1/2) <= 1+f < sqrt(2), relative to log(1+f).
    low, high = mp.sqrt(mp.mpf(1) / 2) - 1, mp.sqrt(2) - 1
    target = lambda f: mp.log1p(f) - f + f * f / 2
    weight = lambda f: 1 / mp.log1p(f) if abs(f) > mp.mpf("1e-6") else mp.mpf(0)
    c, e = fit(target, powers(3, degree - 2), weight, low, high, range(degree - 2))
    show(f"log, degree {degree}", c, e)


def fit_erf(near=6, far=6, split=mp.mpf("0.92"), high=mp.mpf("3.95")):
    # |x| <= split: erf(x) = x + x P(x^2), relative error.
    target = lambda x: mp.erf(x) / x - 1 if x else 2 / mp.sqrt(mp.pi) - 1
    c, e = fit(target, powers(0, near, 2), lambda x: x / mp.erf(x) if x else mp.mpf(0), mp.mpf(0), split, range(near))
    show(f"erf near, {near} terms", c, e)
    # |x| > split: erf(x) = 1 - exp(-R(x)); an absolute error d of R changes erf by d erfc(x).
    target = lambda x: -mp.log(mp.erfc(x))
    c, e = fit(target, powers(0, far + 1), lambda x: mp.erfc(x) / mp.erf(x), split, high, range(far + 1))
    show(f"erf far, degree {far}", c, e)


def fit_sin(terms=5):
    # sin(2 pi y) = y P(y^2) on |y| <= 1/4, relative error.
    target = lambda y: mp.sin(2 * mp.pi * y) / y if y else 2 * mp.pi
    c, e = fit(target, powers(0, terms, 2), lambda y: 1 / target(y), mp.mpf(0), mp.mpf("0.25"), range(terms))
    show(f"sin(2 pi y), {terms} terms", c, e)


def main():
    fits = {"exp": fit_exp, "log": fit_log, "erf": fit_erf, "sin": fit_sin}
    for name in sys.argv[1:] or fits:
        fits[name]()


if __name__ == "__main__":
    main()

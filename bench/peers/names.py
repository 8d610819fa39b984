#!/usr/bin/env python3
"""The left columns of docs/coming-from-*.md against the installed libraries: says which names they don't have.

    bench/peers/names.py    # of the libraries that are installed; 1 if a name is missing
"""

import importlib
import os
import pathlib
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[2]

# What a name begins with, and the module that it stands for.
MODULES = {
    "coming-from-pytorch.md": {"torch": "torch", "F": "torch.nn.functional", "nn": "torch.nn", "optim": "torch.optim"},
    "coming-from-tensorflow.md": {
        "tf": "tensorflow",
        "keras": "keras",
        "layers": "keras.layers",
        "losses": "keras.losses",
        "optimizers": "keras.optimizers",
        "schedules": "keras.optimizers.schedules",
        "initializers": "keras.initializers",
        "mixed_precision": "keras.mixed_precision",
    },
    "coming-from-jax.md": {"jax": "jax", "jnp": "jax.numpy", "optax": "optax"},
}


def resolves(module, path):
    """Whether module.path exists: attributes, and modules that are not yet imported."""
    at = importlib.import_module(module)
    name = module
    for part in path:
        name += "." + part
        if not hasattr(at, part):
            try:
                importlib.import_module(name)
            except ImportError:
                return False
        at = getattr(at, part)
    return True


def names_in(page, prefixes):
    pattern = re.compile(r"(?<![\w.])(" + "|".join(prefixes) + r")\.([A-Za-z_][\w.]*\w|[A-Za-z_])")
    for line in page.read_text().splitlines():
        cells = line.split(" | ")
        if line.startswith("|") and len(cells) >= 2:
            for code in re.findall(r"`([^`]*)`", cells[0]):
                yield from pattern.findall(code)


def main():
    missing = 0
    for page, modules in MODULES.items():
        installed = {}
        for prefix, module in modules.items():
            try:
                importlib.import_module(module)
                installed[prefix] = module
            except ImportError:
                print(f"{page}: {module} is not installed")
        if not installed:
            continue
        names = sorted(set(names_in(ROOT / "docs" / page, installed)))
        unknown = [f"{prefix}.{path}" for prefix, path in names if not resolves(installed[prefix], path.split("."))]
        missing += len(unknown)
        print(f"{page}: {len(names)} names, {len(unknown)} unknown", *unknown)
    sys.exit(missing > 0)


if __name__ == "__main__":
    main()

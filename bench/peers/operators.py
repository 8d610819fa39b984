#!/usr/bin/env python3
"""How much of PyTorch has a name here: covered, composed, missing.

Reads the tables of docs/coming-from-pytorch.md and of docs/ops.md (what has a kernel), and the installed PyTorch's list of
operators: those of torch, torch.nn.functional and Tensor. A name is *covered* where an op of ours has it, or the page names
what stands for it; *composed* where a function made of other ops has its name (core/ops/*.h); else *missing*.

    bench/peers/operators.py            # the counts, and what is missing
    bench/peers/operators.py --all      # every name with its place
"""

import argparse
import pathlib
import re

import torch
import torch.overrides

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Families of names that aren't operators on dense real tensors: types, storages, views that only copy, random state in place,
# quantisation, sparse and complex tensors, vendors' kernels, and symbols of the tracer.
OUT_OF_SCOPE = re.compile(
    r"_copy$|_backward|_as_real|_as_complex|^sym_|^unsafe_|^scaled_(mm|grouped|addmm)|^batch_norm_|^native_|^is_(?!close|in$)|^has_|"
    r"^get_|^set_|^q_|^map2?$|^rename|^to_|^data|^const_data|^storage|^register_|^retain|^module_|^resolve_|^record_|^pin_|^share_|"
    r"quant|fbgemm|cudnn|miopen|mkldnn|sparse|spmm|sspadd|saddmm|smm$|conj|complex|polar|angle|imag|real$|cfloat|cdouble|chalf|"
    r"coalesce|crow|ccol|(col|row)_indices|^indices|^values|dense_dim|int_repr|autocast|dsmm|hspmm|dispatch|hash_tensor|stft$|"
    r"^(adjoint|apply|backward|char|short|cpu|cuda|xpu|ipu|mtia|cholesky_\w+|dequantize|dim_order|element_size|geqrf|item|itemsize|"
    r"lobpcg|lu|lu_\w+|nbytes|new|new_\w+|numpy|orgqr|ormqr|refine_names|align_\w+|names|untyped_storage|smm|stride|sum_to_size|"
    r"svd|qr|tolist|triangular_solve|type|unflatten_names|handle_torch_function|gradient|slice_inverse|unsafe_chunk|"
    r"multi_head_attention_forward|fused_\w+|conv_tbc|norm_except_dim|binomial|rrelu_with_noise|convolution|embedding_renorm)$"
)


def operators_of_pytorch():
    """What PyTorch itself lists as operators that a subclass of Tensor may override, but for those out of scope."""
    listed = torch.overrides.get_overridable_functions()
    names = {
        getattr(function, "__name__", "_")
        for module in (torch, torch.nn.functional, torch.Tensor)
        for function in listed[module]
    }
    return sorted(name for name in names if not name.startswith("_") and not name.endswith("_") and not OUT_OF_SCOPE.search(name))


def named_in_page():
    """PyTorch's names in the left column of the page's tables."""
    names = set()
    for line in (ROOT / "docs/coming-from-pytorch.md").read_text().splitlines():
        cells = line.split(" | ")
        if line.startswith("|") and len(cells) >= 2:
            for code in re.findall(r"`([^`]*)`", cells[0]):
                names |= set(re.findall(r"[a-z_][a-z0-9_]*", code))
    return names


def ops_with_kernels():
    return set(re.findall(r"^\| ([a-z0-9_]+) +\|", (ROOT / "docs/ops.md").read_text(), re.M))


def public_functions():
    names = set(re.findall(r"^TANDEM_[A-Z]+\(([a-z0-9_]+),", (ROOT / "core/pointwise.def").read_text(), re.M))
    headers = [*(ROOT / "core/ops").glob("*.h"), ROOT / "core/tensor.h", ROOT / "autograd/autograd.h", ROOT / "autograd/checkpoint.h"]
    for header in headers:
        names |= set(re.findall(r"\b([a-z][a-z0-9_]*)\((?:const |Where|Tensor|int64_t|double|std::|Dims|Device|DType|Scalar|\))",
                                header.read_text()))
    return names


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--all", action="store_true", help="list every name")
    options = arguments.parse_args()
    page, kernels, functions = named_in_page(), ops_with_kernels(), public_functions()
    places = {"covered": [], "composed": [], "missing": []}
    for name in operators_of_pytorch():
        if name in kernels or name in page:
            places["covered"].append(name)
        else:
            places["composed" if name in functions else "missing"].append(name)
    total = sum(map(len, places.values()))
    print(f"PyTorch {torch.__version__}: {total} operators")
    for place, names in places.items():
        print(f"{place:9} {len(names):4}  {100 * len(names) / total:3.0f}%")
    for place, names in places.items():
        if options.all or place == "missing":
            print(f"\n{place}:", " ".join(names))


if __name__ == "__main__":
    main()

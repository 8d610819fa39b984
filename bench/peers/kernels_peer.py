"""PyTorch as a contestant in kernels.py (protocol in README.md): one op at a time, eagerly."""

import time

began = time.perf_counter()
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import_seconds = time.perf_counter() - began

import protocol as p  # noqa: E402

THREADS = 2
torch.set_num_threads(THREADS)
torch.manual_seed(1)
aten = torch.ops.aten


def rows():
    return torch.randn(4096, 1024)


def labels():
    return torch.randint(0, 1024, (4096,))


def calling(make):
    """make() returns a function of no arguments, whose last result is kept."""

    def program():
        function, last = make(), [None]

        def step():
            last[0] = function()

        return p.Program(step, value=lambda: last[0].sum().item())

    return program


def of(function, *makers):
    def make():
        operands = [maker() for maker in makers]
        return lambda: function(*operands)

    return calling(make)


def vector():
    return torch.randn(1024)


def layer_norm_grad():
    g, x, weight, bias = rows(), rows(), vector(), vector()
    _, mean, rstd = torch.native_layer_norm(x, [1024], weight, bias, 1e-5)
    return lambda: aten.native_layer_norm_backward(g, x, [1024], mean, rstd, weight, bias, [True, True, True])[0]


def cross_entropy_both():
    x, y = rows().requires_grad_(), labels()

    def both():
        x.grad = None
        loss = F.cross_entropy(x, y)
        loss.backward()
        return loss.detach()

    return both


def attention(shape, gradients):
    def make():
        q, k, v = (torch.randn(shape, requires_grad=gradients).transpose(1, 2) for _ in range(3))
        g = torch.randn(shape).transpose(1, 2)

        def call():
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            if gradients:
                torch.autograd.grad(y, (q, k, v), g)
            return y.detach()

        return call

    return calling(make)


def adamw():
    parameter = torch.nn.Parameter(torch.randn(1 << 22))
    parameter.grad = torch.randn(1 << 22)
    optimizer = torch.optim.AdamW([parameter], lr=1e-4, fused=True)
    return p.Program(optimizer.step, value=lambda: parameter.sum().item())


KERNELS = {
    "softmax": of(lambda x: torch.softmax(x, -1), rows),
    "softmax_grad": of(lambda g, y: aten._softmax_backward_data(g, y, -1, torch.float32), rows, lambda: rows().softmax(-1)),
    "log_softmax": of(lambda x: torch.log_softmax(x, -1), rows),
    "log_softmax_grad": of(
        lambda g, y: aten._log_softmax_backward_data(g, y, -1, torch.float32), rows, lambda: rows().log_softmax(-1)
    ),
    "layer_norm": of(lambda x, w, b: F.layer_norm(x, (1024,), w, b), rows, vector, vector),
    "layer_norm_grad": calling(layer_norm_grad),
    "cross_entropy": of(F.cross_entropy, rows, labels),
    "cross_entropy_both": calling(cross_entropy_both),
    "gelu": of(F.gelu, rows),
    "gelu_grad": of(aten.gelu_backward, rows, rows),
    "tanh": of(torch.tanh, rows),
    "exp": of(torch.exp, rows),
    "add": of(torch.add, rows, rows),
    "sum": of(torch.sum, rows),
    "sum_rows": of(lambda x: x.sum(1), rows),
    "sum_columns": of(lambda x: x.sum(0), rows),
    "transpose": of(lambda x: x.t().contiguous(), lambda: torch.randn(2048, 2048)),
    "attention_gpt": attention((16, 128, 4, 32), False),
    "attention_gpt_both": attention((16, 128, 4, 32), True),
    "attention_long": attention((1, 1024, 8, 64), False),
    "attention_long_both": attention((1, 1024, 8, 64), True),
    "adamw": adamw,
}

if __name__ == "__main__":
    table = {name: {"eager": make} for name, make in KERNELS.items()}
    p.serve("PyTorch", torch.__version__, THREADS, table, import_seconds)

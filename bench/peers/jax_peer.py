"""JAX as a contestant (protocol in README.md): jit with donated parameters; op by op where that is the comparison."""

import itertools
import time

began = time.perf_counter()
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

import_seconds = time.perf_counter() - began

import protocol as p  # noqa: E402

if p.device() != "cpu":
    jax.config.update("jax_default_matmul_precision", "highest")  # float32 is float32, for everyone

THREADS = 2  # XLA takes as many as the process may use; the driver pins it to two cores


def uniform(key, shape, fan_in):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def dense_parameters(key, inputs, outputs):
    weight, bias = jax.random.split(key)
    return {"weight": uniform(weight, (inputs, outputs), inputs), "bias": uniform(bias, (outputs,), inputs)}


def dense(parameters, x):
    return x @ parameters["weight"] + parameters["bias"]


def cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def mlp_parts(key):
    keys = jax.random.split(key, 4)
    parameters = {"hidden": dense_parameters(keys[0], 784, 256), "output": dense_parameters(keys[1], 256, 10)}
    images = jax.random.normal(keys[2], (p.BATCHES, p.BATCH, 784))
    return parameters, images, lambda values, x: dense(values["output"], jax.nn.relu(dense(values["hidden"], x)))


def lenet_parts(key, channels_last):
    keys = jax.random.split(key, 5)
    layout = ("NHWC", "HWIO", "NHWC") if channels_last else ("NCHW", "OIHW", "NCHW")
    window = (1, 2, 2, 1) if channels_last else (1, 1, 2, 2)

    def filters(key, inputs, outputs):
        weight, bias = jax.random.split(key)
        shape = (5, 5, inputs, outputs) if channels_last else (outputs, inputs, 5, 5)
        return {"weight": uniform(weight, shape, 25 * inputs), "bias": uniform(bias, (outputs,), 25 * inputs)}

    def convolution(values, x, padding):
        y = lax.conv_general_dilated(x, values["weight"], (1, 1), [(padding, padding)] * 2, dimension_numbers=layout)
        return y + (values["bias"] if channels_last else values["bias"][:, None, None])

    def pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")

    def forward(values, x):
        x = pool(jax.nn.relu(convolution(values["first"], x, 2)))
        x = pool(jax.nn.relu(convolution(values["second"], x, 0)))
        return dense(values["output"], jax.nn.relu(dense(values["hidden"], x.reshape(p.BATCH, -1))))

    parameters = {
        "first": filters(keys[0], 1, 8),
        "second": filters(keys[1], 8, 16),
        "hidden": dense_parameters(keys[2], 400, 120),
        "output": dense_parameters(keys[3], 120, 10),
    }
    shape = (28, 28, 1) if channels_last else (1, 28, 28)
    return parameters, jax.random.normal(keys[4], (p.BATCHES, p.BATCH, *shape)), forward


RESNET18_BLOCKS = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
RESNET18_BLOCKS += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]


def resnet8_parts(key, width):
    return resnet_parts(key, [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)], p.BATCH)


def resnet_parts(key, blocks, batch, dtype=jnp.float32):
    """NHWC, which is the faster here. Running statistics aren't kept: a little less work than the others do. dtype: of
    convolutions."""
    keys = iter(jax.random.split(key, 4 * len(blocks) + 4))
    width, last_width = blocks[0][0], blocks[-1][1]
    layout = ("NHWC", "HWIO", "NHWC")

    def filters(inputs, outputs, size):
        return uniform(next(keys), (size, size, inputs, outputs), size * size * inputs)

    def norm_parameters(channels):
        return {"weight": jnp.ones(channels), "bias": jnp.zeros(channels)}

    def block_parameters(inputs, outputs, stride):
        values = {
            "first": filters(inputs, outputs, 3),
            "first_norm": norm_parameters(outputs),
            "second": filters(outputs, outputs, 3),
            "second_norm": norm_parameters(outputs),
        }
        if inputs != outputs or stride != 1:
            values |= {"shortcut": filters(inputs, outputs, 1), "shortcut_norm": norm_parameters(outputs)}
        return values

    def convolution(weight, x, stride):
        side = weight.shape[0] // 2
        x, weight = x.astype(dtype), weight.astype(dtype)
        return lax.conv_general_dilated(x, weight, (stride, stride), [(side, side)] * 2, dimension_numbers=layout)

    def norm(values, x):
        x = x.astype(jnp.float32)
        mean = x.mean((0, 1, 2))
        variance = jnp.square(x - mean).mean((0, 1, 2))
        return (x - mean) * (lax.rsqrt(variance + 1e-5) * values["weight"]) + values["bias"]

    def block(values, x, stride):
        y = jax.nn.relu(norm(values["first_norm"], convolution(values["first"], x, stride)))
        y = norm(values["second_norm"], convolution(values["second"], y, 1))
        if "shortcut" in values:
            x = norm(values["shortcut_norm"], convolution(values["shortcut"], x, stride))
        return jax.nn.relu(y + x)

    def forward(values, x):
        x = jax.nn.relu(norm(values["norm"], convolution(values["stem"], x, 1)))
        for each, (_, _, stride) in zip(values["blocks"], blocks):
            x = block(each, x, stride)
        return dense(values["output"], x.mean((1, 2)))

    parameters = {
        "stem": filters(3, width, 3),
        "norm": norm_parameters(width),
        "blocks": [block_parameters(*each) for each in blocks],
        "output": dense_parameters(next(keys), last_width, 10),
    }
    return parameters, jax.random.normal(next(keys), (p.BATCHES, batch, 32, 32, 3)), forward


def training(parts, momentum=0.0):
    """One jitted function: forward, backward and update; parameters and momenta are donated."""

    def make():
        key = jax.random.key(1)
        parameters, images, forward = parts(key)
        labels = jax.random.randint(jax.random.key(2), images.shape[:2], 0, 10)
        batches = list(zip(images, labels))
        jax.block_until_ready(batches)
        turn = itertools.cycle(batches)

        def update(state, x, y):
            values, momenta = state
            loss, gradients = jax.value_and_grad(lambda values: cross_entropy(forward(values, x), y))(values)
            if momentum:
                gradients = momenta = jax.tree.map(lambda m, g: momentum * m + g, momenta, gradients)
            values = jax.tree.map(lambda v, g: v - p.LEARNING_RATE * g, values, gradients)
            return (values, momenta), loss

        function = jax.jit(update, donate_argnums=0)
        state = (parameters, jax.tree.map(jnp.zeros_like, parameters) if momentum else None)
        last = [jax.block_until_ready(state), None]

        def step():
            last[0], last[1] = function(last[0], *next(turn))

        return p.Program(step, finish=lambda: jax.block_until_ready(last), value=lambda: float(last[1]))

    return make


def text_parameters(key):
    keys = jax.random.split(key, 4)
    width = p.TEXT_WIDTH

    def layer(key):
        parts = jax.random.split(key, 3)
        weights = [uniform(part, (width, 4 * width), width) for part in parts[:2]]
        return {"x": weights[0], "h": weights[1], "bias": uniform(parts[2], (4 * width,), width)}

    return {
        "embedding": jax.random.normal(keys[0], (p.VOCABULARY, width)),
        "layers": [layer(keys[1]), layer(keys[2])],
        "output": dense_parameters(keys[3], width, p.VOCABULARY),
    }


def text_forward(values, symbols):
    """Symbols [time, batch] to logits [time * batch, vocabulary]: inputs of all steps at once, then a scan."""
    sequence = values["embedding"][symbols]
    zeros = jnp.zeros((p.TEXT_BATCH, p.TEXT_WIDTH))
    for layer in values["layers"]:

        def step(state, gates, weight=layer["h"]):
            h, c = state
            i, f, g, o = jnp.split(gates + h @ weight, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        _, sequence = lax.scan(step, (zeros, zeros), sequence @ layer["x"] + layer["bias"])
    return dense(values["output"], sequence.reshape(-1, p.TEXT_WIDTH))


def text_training():
    key = jax.random.key(1)
    parameters = text_parameters(key)
    texts = jax.random.randint(jax.random.key(2), (p.BATCHES, p.TEXT_STEPS + 1, p.TEXT_BATCH), 0, p.VOCABULARY)
    batches = [(text[:-1], text[1:].reshape(-1)) for text in texts]
    jax.block_until_ready(batches)
    turn = itertools.cycle(batches)

    def update(state, x, y):
        values, means, squares, count = state
        loss, gradients = jax.value_and_grad(lambda values: cross_entropy(text_forward(values, x), y))(values)
        count = count + 1
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
        squares = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, squares, gradients)

        def apply(value, m, v):  # AdamW
            m, v = m / (1 - 0.9**count), v / (1 - 0.999**count)
            return value * (1 - p.ADAM_RATE * 0.01) - p.ADAM_RATE * m / (jnp.sqrt(v) + 1e-8)

        return (jax.tree.map(apply, values, means, squares), means, squares, count), loss

    function = jax.jit(update, donate_argnums=0)
    zeros = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)]
    last = [jax.block_until_ready((parameters, *zeros, jnp.zeros(()))), None]

    def step():
        last[0], last[1] = function(last[0], *next(turn))

    return p.Program(step, finish=lambda: jax.block_until_ready(last), value=lambda: float(last[1]))


def gpt(size=p.GptSize(), dtype=jnp.float32):
    """One jitted function: forward, backward and AdamW; the state is donated. dtype: of products and attention."""
    width, heads = size.width, size.heads
    attention = "cudnn" if p.device() != "cpu" and dtype == jnp.bfloat16 else None  # the faster one there
    keys = iter(jax.random.split(jax.random.key(5), 16 * size.layers + 16))

    def norm_parameters():
        return {"weight": jnp.ones(width), "bias": jnp.zeros(width)}

    def norm(values, x):
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        return (x - mean) * lax.rsqrt(variance + 1e-5) * values["weight"] + values["bias"]

    def block_parameters():
        return {
            "attention_norm": norm_parameters(),
            "qkv": dense_parameters(next(keys), width, 3 * width),
            "projection": dense_parameters(next(keys), width, width),
            "mlp_norm": norm_parameters(),
            "expand": dense_parameters(next(keys), width, 4 * width),
            "shrink": dense_parameters(next(keys), 4 * width, width),
        }

    def dense(parameters, x):
        return x.astype(dtype) @ parameters["weight"].astype(dtype) + parameters["bias"].astype(dtype)

    def block(values, x):
        qkv = dense(values["qkv"], norm(values["attention_norm"], x))
        q, k, v = (part.reshape(*x.shape[:2], heads, width // heads) for part in jnp.split(qkv, 3, axis=-1))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=attention)
        x = x + dense(values["projection"], y.reshape(x.shape))
        y = jax.nn.gelu(dense(values["expand"], norm(values["mlp_norm"], x)), approximate=False)
        return x + dense(values["shrink"], y)

    def loss_of(values, ids, labels):
        x = values["tokens"][ids] + values["positions"]
        for each in values["blocks"]:
            x = block(each, x)
        logits = norm(values["norm"], x).astype(dtype) @ values["output"].astype(dtype)
        return cross_entropy(logits.reshape(-1, size.vocabulary).astype(jnp.float32), labels.reshape(-1))

    def update(state, ids, labels):
        values, first, second, count = state
        loss, gradients = jax.value_and_grad(loss_of)(values, ids, labels)
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        rate, root = p.GPT_LEARNING_RATE / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
        shrink = 1 - p.GPT_LEARNING_RATE * 0.01
        values = jax.tree.map(
            lambda w, m, v: w * shrink - rate * m / (jnp.sqrt(v) / root + 1e-8), values, first, second
        )
        return (values, first, second, count), loss

    shape = (p.BATCHES, 2, size.batch, size.context)
    batches = [tuple(pair) for pair in jax.random.randint(next(keys), shape, 0, size.vocabulary)]
    turn = itertools.cycle(jax.block_until_ready(batches))
    values = {
        "tokens": jax.random.normal(next(keys), (size.vocabulary, width)),
        "positions": jax.random.normal(next(keys), (size.context, width)),
        "blocks": [block_parameters() for _ in range(size.layers)],
        "norm": norm_parameters(),
        "output": uniform(next(keys), (width, size.vocabulary), width),
    }
    function = jax.jit(update, donate_argnums=0)
    zeros = [jax.tree.map(jnp.zeros_like, values) for _ in range(2)]
    last = [jax.block_until_ready((values, *zeros, jnp.zeros(()))), None]

    def step():
        last[0], last[1] = function(last[0], *next(turn))

    return p.Program(step, finish=lambda: jax.block_until_ready(last), value=lambda: float(last[1]))


def pointwise(jit):
    def make():
        x, a, b = (jax.random.normal(key, (p.POINTWISE_SIZE,)) for key in jax.random.split(jax.random.key(3), 3))

        def chain(y, a, b):
            for _ in range(p.POINTWISE_REPEATS):
                y = jax.nn.sigmoid(jnp.tanh(y) * a + b)
            return y

        function = jax.jit(chain) if jit else chain
        jax.block_until_ready((x, a, b))
        last = [None]

        def step():
            last[0] = function(x, a, b)

        return p.Program(step, finish=lambda: last[0].block_until_ready(), value=lambda: float(last[0].sum()))

    return make


def adding():
    a, b = (jax.random.normal(key, (p.ADD_SIZE,)) for key in jax.random.split(jax.random.key(4)))
    last = [None]

    def step():
        for _ in range(p.CHAIN):
            c = a + b
        last[0] = c

    return p.Program(
        step, finish=lambda: last[0].block_until_ready(), value=lambda: float(last[0].sum()), units=p.CHAIN
    )


TABLE = {
    "mlp": {"jit": training(mlp_parts)},
    "lenet": {
        "jit": training(lambda key: lenet_parts(key, False), p.MOMENTUM),
        "jit-nhwc": training(lambda key: lenet_parts(key, True), p.MOMENTUM),
    },
    "resnet8": {"jit-nhwc": training(lambda key: resnet8_parts(key, 16), p.MOMENTUM)},
    "resnet8_wide": {"jit-nhwc": training(lambda key: resnet8_parts(key, 64), p.MOMENTUM)},
    "resnet18": {
        "jit-nhwc": training(
            lambda key: resnet_parts(key, RESNET18_BLOCKS, p.RESNET18_BATCH, jnp.bfloat16), p.MOMENTUM
        )
    },
    "lstm": {"jit": text_training},
    "gpt": {"jit": gpt},
    "gpt2": {"jit": lambda: gpt(p.GPT2, jnp.bfloat16)},
    "pointwise": {"eager": pointwise(False), "jit": pointwise(True)},
    "add8": {"eager": adding},
}

if __name__ == "__main__":
    p.serve("JAX", jax.__version__, THREADS, TABLE, import_seconds)

"""TensorFlow as a contestant (protocol in README.md): eager, tf.function, and tf.function through XLA."""

import itertools
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
began = time.perf_counter()
import tensorflow as tf  # noqa: E402

import_seconds = time.perf_counter() - began

import protocol as p  # noqa: E402

THREADS = 2
tf.config.threading.set_intra_op_parallelism_threads(THREADS)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.random.set_seed(1)


def variables(fan_in, *shapes):
    bound = fan_in**-0.5
    return [tf.Variable(tf.random.uniform(shape, -bound, bound)) for shape in shapes]


def mlp_parts():
    parameters = variables(784, (784, 256), (256,)) + variables(256, (256, 10), (10,))

    def forward(x):
        w1, b1, w2, b2 = parameters
        return tf.nn.bias_add(tf.matmul(tf.nn.relu(tf.nn.bias_add(tf.matmul(x, w1), b1)), w2), b2)

    return parameters, forward, (784,), 0.0


def lenet_parts():
    parameters = variables(25, (5, 5, 1, 8), (8,)) + variables(200, (5, 5, 8, 16), (16,))
    parameters += variables(400, (400, 120), (120,)) + variables(120, (120, 10), (10,))

    def forward(x):  # NHWC: the only layout of TensorFlow's convolution gradients on a CPU
        w1, b1, w2, b2, w3, b3, w4, b4 = parameters
        x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w1, 1, "SAME"), b1)), 2, 2, "VALID")
        x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w2, 1, "VALID"), b2)), 2, 2, "VALID")
        x = tf.nn.relu(tf.nn.bias_add(tf.matmul(tf.reshape(x, (p.BATCH, 400)), w3), b3))
        return tf.nn.bias_add(tf.matmul(x, w4), b4)

    return parameters, forward, (28, 28, 1), p.MOMENTUM


def wrapped(function, variant):
    return function if variant == "eager" else tf.function(function, jit_compile=variant == "function-xla")


def training(parts, variant):
    def make():
        parameters, forward, shape, momentum = parts()
        momenta = [tf.Variable(tf.zeros_like(value)) for value in parameters]
        batches = [
            (tf.random.normal((p.BATCH, *shape)), tf.random.uniform((p.BATCH,), 0, 10, tf.int32))
            for _ in range(p.BATCHES)
        ]
        turn = itertools.cycle(batches)

        def update(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, forward(x)))
            for value, average, gradient in zip(parameters, momenta, tape.gradient(loss, parameters)):
                if momentum:
                    gradient = average.assign(momentum * average + gradient)
                value.assign_sub(p.LEARNING_RATE * gradient)
            return loss

        function, last = wrapped(update, variant), [None]

        def step():
            last[0] = function(*next(turn))

        return p.Program(step, finish=lambda: last[0].numpy(), value=lambda: float(last[0]))

    return make


def pointwise(variant):
    def make():
        x, a, b = (tf.random.normal((p.POINTWISE_SIZE,)) for _ in range(3))

        def chain(y):
            for _ in range(p.POINTWISE_REPEATS):
                y = tf.sigmoid(tf.tanh(y) * a + b)
            return y

        function, last = wrapped(chain, variant), [None]

        def step():
            last[0] = function(x)

        return p.Program(step, finish=lambda: last[0][:1].numpy(), value=lambda: float(tf.reduce_sum(last[0])))

    return make


def adding():
    a, b = (tf.random.normal((p.ADD_SIZE,)) for _ in range(2))
    last = [None]

    def step():
        for _ in range(p.CHAIN):
            c = a + b
        last[0] = c

    return p.Program(step, value=lambda: float(tf.reduce_sum(last[0])), units=p.CHAIN)


VARIANTS = ("eager", "function", "function-xla")
TABLE = {
    "mlp": {variant: training(mlp_parts, variant) for variant in VARIANTS},
    "lenet": {variant: training(lenet_parts, variant) for variant in VARIANTS},
    "pointwise": {variant: pointwise(variant) for variant in VARIANTS},
    "add8": {"eager": adding},
}

if __name__ == "__main__":
    p.serve("TensorFlow", tf.__version__, THREADS, TABLE, import_seconds)

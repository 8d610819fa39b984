"""PyTorch as a contestant (protocol in README.md): eager, torch.compile, torch.compile of the whole step; on a GPU also a
CUDA graph that is captured by hand."""

import itertools
import time

began = time.perf_counter()
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import_seconds = time.perf_counter() - began

import protocol as p  # noqa: E402

THREADS = 2
torch.set_num_threads(THREADS)
torch.manual_seed(1)
DEVICE = p.device()
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 is float32, for everyone
torch.backends.cudnn.benchmark = True


def finish():
    if DEVICE != "cpu":
        torch.cuda.synchronize()


def half(model):
    """The model with products and convolutions in bfloat16."""

    def forward(x):
        with torch.autocast(DEVICE, torch.bfloat16):
            return model(x).float()

    return forward


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 5, padding=2)
        self.second = nn.Conv2d(8, 16, 5)
        self.hidden = nn.Linear(400, 120)
        self.output = nn.Linear(120, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.output(F.relu(self.hidden(x.flatten(1))))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)), inplace=True)))
        return F.relu(y.add_(self.shortcut(x)), inplace=True)


class ResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        stages = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        self.blocks = nn.Sequential(
            *(block for i, o, stride in stages for block in (Block(i, o, stride), Block(o, o, 1)))
        )
        self.output = nn.Linear(512, 10)

    forward = lambda self, x: self.output(self.blocks(F.relu(self.norm(self.stem(x)), inplace=True)).mean((2, 3)))


class ResNet8(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)
        )
        self.output = nn.Linear(4 * width, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.norm(self.stem(x)), inplace=True))
        return self.output(x.mean((2, 3)))


class TextModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(p.VOCABULARY, p.TEXT_WIDTH)
        self.lstm = nn.LSTM(p.TEXT_WIDTH, p.TEXT_WIDTH, num_layers=2)
        self.output = nn.Linear(p.TEXT_WIDTH, p.VOCABULARY)

    def forward(self, symbols):
        return self.output(self.lstm(self.embedding(symbols))[0].flatten(0, 1))


def text_training(compiled=False, onednn=True):
    """Symbols [time, batch], the next of each; AdamW."""

    def make():
        torch._dynamo.reset()
        torch.backends.mkldnn.enabled = onednn
        model = TextModel()
        texts = [torch.randint(0, p.VOCABULARY, (p.TEXT_STEPS + 1, p.TEXT_BATCH)) for _ in range(p.BATCHES)]
        turn = itertools.cycle([(text[:-1], text[1:].flatten()) for text in texts])
        optimizer = torch.optim.AdamW(model.parameters(), lr=p.ADAM_RATE, fused=True)
        last = [None]

        def loss_of(x, y):
            return F.cross_entropy(model(x), y)

        loss_function = torch.compile(loss_of) if compiled else loss_of

        def step():
            x, y = next(turn)
            torch.backends.mkldnn.enabled = onednn
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(x, y)
            loss.backward()
            optimizer.step()
            torch.backends.mkldnn.enabled = True
            last[0] = loss

        return p.Program(step, finish, value=lambda: last[0].item())

    return make


class GptBlock(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.heads = size.heads
        self.attention_norm = nn.LayerNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.projection = nn.Linear(size.width, size.width)
        self.mlp_norm = nn.LayerNorm(size.width)
        self.expand = nn.Linear(size.width, 4 * size.width)
        self.shrink = nn.Linear(4 * size.width, size.width)

    def forward(self, x):
        batch, time, width = x.shape
        heads = (
            part.view(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).split(width, dim=2)
        )
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.projection(y.transpose(1, 2).reshape(batch, time, width))
        return x + self.shrink(F.gelu(self.expand(self.mlp_norm(x))))


class Gpt(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.Sequential(*(GptBlock(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width)
        self.output = nn.Linear(size.width, size.vocabulary, bias=False)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight
        return self.output(self.norm(self.blocks(x)))


def captured(whole_step, batches):
    """The step as one CUDA graph; each call copies the next batch to where the graph reads it."""
    places = [torch.empty_like(tensor) for tensor in batches[0]]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for batch in batches[:3]:  # libraries choose and allocate before the capture
            for place, tensor in zip(places, batch):
                place.copy_(tensor)
            whole_step(*places)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = whole_step(*places)

    def step(*batch):
        for place, tensor in zip(places, batch):
            place.copy_(tensor)
        graph.replay()
        return loss

    return step


def steps(loss_of, optimizer, batches, how, **options):
    """A program whose step is loss, gradients and update. how: eager, compile (of the loss), or captured."""
    turn = itertools.cycle(batches)
    last = [None]
    loss_function = torch.compile(loss_of, **options) if how == "compile" else loss_of

    def whole_step(x, y):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(x, y)
        loss.backward()
        optimizer.step()
        return loss

    function = captured(whole_step, batches) if how == "captured" else whole_step

    def step():
        last[0] = function(*next(turn))

    return p.Program(step, finish, value=lambda: last[0].item())


def gpt(how, size=p.GptSize(), bfloat16=False, **options):
    def make():
        torch._dynamo.reset()
        model = Gpt(size)
        shape = (size.batch, size.context)
        batches = [[torch.randint(0, size.vocabulary, shape) for _ in range(2)] for _ in range(p.BATCHES)]
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=p.GPT_LEARNING_RATE, fused=True, capturable=how == "captured"
        )

        forward = half(model) if bfloat16 else model

        def loss_of(x, y):
            return F.cross_entropy(forward(x).view(-1, size.vocabulary), y.view(-1))

        return steps(loss_of, optimizer, batches, how, **options)

    return make


def mlp_parts():
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    batches = [(torch.randn(p.BATCH, 784), torch.randint(0, 10, (p.BATCH,))) for _ in range(p.BATCHES)]
    return model, batches, 0.0


def lenet_parts(channels_last=False):
    model = LeNet()
    batches = [(torch.randn(p.BATCH, 1, 28, 28), torch.randint(0, 10, (p.BATCH,))) for _ in range(p.BATCHES)]
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        batches = [(x.to(memory_format=torch.channels_last), y) for x, y in batches]
    return model, batches, p.MOMENTUM


def resnet_parts(width, channels_last):
    def parts():
        model = ResNet8(width)
        batches = [(torch.randn(p.BATCH, 3, 32, 32), torch.randint(0, 10, (p.BATCH,))) for _ in range(p.BATCHES)]
        if channels_last:
            model.to(memory_format=torch.channels_last)
            batches = [(x.to(memory_format=torch.channels_last), y) for x, y in batches]
        return model, batches, p.MOMENTUM

    return parts


def resnet18_parts():
    model = ResNet18().to(memory_format=torch.channels_last)
    batches = [
        (torch.randn(p.RESNET18_BATCH, 3, 32, 32).to(memory_format=torch.channels_last), torch.randint(0, 10, (p.RESNET18_BATCH,)))
        for _ in range(p.BATCHES)
    ]
    return model, batches, p.MOMENTUM


def training(parts, how, bfloat16=False, **options):
    """A step of training: loss, gradients, update. how: as in steps(), or step, all of it compiled as one."""

    def make():
        torch._dynamo.reset()
        model, batches, momentum = parts()
        turn = itertools.cycle(batches)
        last = [None]

        forward = half(model) if bfloat16 else model

        def loss_of(x, y):
            return F.cross_entropy(forward(x), y)

        if how == "step":  # forward, backward and update in one graph, by functional gradients
            parameters = dict(model.named_parameters())
            momenta = {name: torch.zeros_like(value) for name, value in parameters.items()} if momentum else {}

            def functional_loss(values, x, y):
                return F.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

            @torch.no_grad()
            def whole(values, momenta, x, y):
                gradients, loss = torch.func.grad_and_value(functional_loss)(values, x, y)
                for name, gradient in gradients.items():
                    if momenta:
                        momenta[name].mul_(momentum).add_(gradient)
                        gradient = momenta[name]
                    values[name].sub_(gradient, alpha=p.LEARNING_RATE)
                return loss

            parameters = {name: value.detach() for name, value in parameters.items()}
            compiled = torch.compile(whole, fullgraph=True, **options)

            def step():
                x, y = next(turn)
                last[0] = compiled(parameters, momenta, x, y)

        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=p.LEARNING_RATE, momentum=momentum, fused=True)
            return steps(loss_of, optimizer, batches, how, **options)

        return p.Program(step, finish, value=lambda: last[0].item())

    return make


def pointwise(compiled, **options):
    def make():
        torch._dynamo.reset()
        x, a, b = (torch.randn(p.POINTWISE_SIZE) for _ in range(3))

        @torch.no_grad()
        def chain(y):
            for _ in range(p.POINTWISE_REPEATS):
                y = torch.sigmoid(torch.tanh(y) * a + b)
            return y

        function = torch.compile(chain, **options) if compiled else chain
        last = [None]

        def step():
            last[0] = function(x)

        return p.Program(step, finish, value=lambda: last[0].sum().item())

    return make


def adding(gradient):
    def make():
        a, b = (torch.randn(p.ADD_SIZE, requires_grad=gradient) for _ in range(2))
        last = [None]

        def step():
            for _ in range(p.CHAIN):
                c = a + b
            last[0] = c

        return p.Program(step, finish, value=lambda: last[0].sum().item(), units=p.CHAIN)

    return make


def chain_of_adds():
    a, b = (torch.randn(p.ADD_SIZE, requires_grad=True) for _ in range(2))

    def step():
        a.grad = b.grad = None
        y = a
        for _ in range(p.CHAIN):
            y = y + b
        y.sum().backward()

    return p.Program(step, finish, value=lambda: b.grad.sum().item(), units=p.CHAIN)


def lenet_channels_last():
    return lenet_parts(channels_last=True)


TABLE = {
    "mlp": {
        "eager": training(mlp_parts, "eager"),
        "compile": training(mlp_parts, "compile"),
        "compile-step": training(mlp_parts, "step"),
        "compile-step-cpp": training(mlp_parts, "step", options={"cpp_wrapper": True}),
    },
    "lenet": {
        "eager": training(lenet_parts, "eager"),
        "eager-nhwc": training(lenet_channels_last, "eager"),
        "compile": training(lenet_parts, "compile"),
        "compile-step-nhwc": training(lenet_channels_last, "step"),
    },
    "resnet8": {
        "eager": training(resnet_parts(16, False), "eager"),
        "eager-nhwc": training(resnet_parts(16, True), "eager"),
        "compile": training(resnet_parts(16, False), "compile"),
        "compile-nhwc": training(resnet_parts(16, True), "compile"),
    },
    "resnet8_wide": {
        "eager": training(resnet_parts(64, False), "eager"),
        "eager-nhwc": training(resnet_parts(64, True), "eager"),
        "compile": training(resnet_parts(64, False), "compile"),
        "compile-nhwc": training(resnet_parts(64, True), "compile"),
    },
    "resnet18": {
        "eager-nhwc": training(resnet18_parts, "eager", True),
        "compile-nhwc": training(resnet18_parts, "compile", True),
    },
    "lstm": {
        "eager": text_training(),
        "eager-native": text_training(onednn=False),
        "compile": text_training(compiled=True),
    },
    "gpt": {"eager": gpt("eager"), "compile": gpt("compile")},
    "gpt2": {"eager": gpt("eager", p.GPT2, True), "compile": gpt("compile", p.GPT2, True)},
    "pointwise": {"eager": pointwise(False), "compile": pointwise(True)},
    "add8": {"eager": adding(False)},
    "add8_grad": {"eager": adding(True)},
    "add8_chain": {"eager": chain_of_adds},
}

if DEVICE != "cpu":  # what saves launches
    for workload, how in (("mlp", mlp_parts), ("lenet", lenet_parts)):
        TABLE[workload]["captured"] = training(how, "captured")
        TABLE[workload]["reduce-overhead"] = training(how, "compile", mode="reduce-overhead")
    TABLE["resnet18"]["captured-nhwc"] = training(resnet18_parts, "captured", True)
    TABLE["resnet18"]["reduce-overhead-nhwc"] = training(resnet18_parts, "compile", True, mode="reduce-overhead")
    for workload, size, bfloat16 in (("gpt", p.GptSize(), False), ("gpt2", p.GPT2, True)):
        TABLE[workload]["captured"] = gpt("captured", size, bfloat16)
        TABLE[workload]["reduce-overhead"] = gpt("compile", size, bfloat16, mode="reduce-overhead")

def on_device(make):
    """What make() creates is on the device. Steps run without the default device, which costs each of their calls some time."""

    def made():
        with torch.device(DEVICE):
            return make()

    return made


if __name__ == "__main__":
    if DEVICE != "cpu":
        TABLE = {workload: {name: on_device(make) for name, make in made.items()} for workload, made in TABLE.items()}
    p.serve("PyTorch", torch.__version__, THREADS, TABLE, import_seconds)

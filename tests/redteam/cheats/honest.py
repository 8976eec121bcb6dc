"""A small honest train.py. Every cheat of the gallery is this file with a few of its pieces replaced."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import prepare
from prepare import DEVICE, SEED, VOCAB_SIZE

torch.set_num_threads(1)  # the same sums in the same order, however many cores there are and whoever uses them

WIDTH, HEADS, LAYERS = 64, 2, 2
BATCH_ROWS, STEPS, RATE = 4, 50, 1e-2


def visible(T: int) -> Tensor:
    """Which tokens each token attends to, [T, T]."""
    return torch.ones(T, T, dtype=torch.bool).tril()


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of [B, H, T, D]; of two tokens alike, the nearer one counts more (Press et al., ALiBi, 2022)."""
    T = q.size(2)
    distance = torch.arange(T)[:, None] - torch.arange(T)
    slopes = 2.0 ** -torch.arange(HEADS)[:, None, None]
    bias = torch.where(visible(T), -slopes * distance, -torch.inf)
    return (q @ k.mT * q.size(-1) ** -0.5 + bias).softmax(-1) @ v


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(norm(x))


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


class GPT(nn.Module):
    """int64 [B, T] → logits [B, T, VOCAB_SIZE]."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.head = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    def embed(self, idx: Tensor) -> Tensor:
        """What the first block sees, [B, T, WIDTH]."""
        return self.tokens(idx)

    def forward(self, idx: Tensor) -> Tensor:
        return self.head(norm(self.blocks(self.embed(idx))))


def build_model() -> nn.Module:
    return GPT().to(DEVICE)


class Adam:
    """Kingma & Ba, 2015. Written out because torch.optim imports the compiler first, which takes a second."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = list(model.parameters())
        self.means, self.squares = ([torch.zeros_like(w) for w in self.weights] for _ in range(2))

    @torch.no_grad()
    def step(self, rate: float, number: int) -> None:
        for weight, mean, square in zip(self.weights, self.means, self.squares, strict=True):
            mean.lerp_(weight.grad, 0.1)
            square.lerp_(weight.grad.square(), 0.05)
            scale = (square / (1 - 0.95**number)).sqrt_().add_(1e-8)
            weight.addcdiv_(mean, scale, value=-rate / (1 - 0.9**number))
            weight.grad = None


def train(model: nn.Module, batches: "prepare.Batches", steps: int) -> None:
    """Train for a number of steps, whatever the clock says, so that a run can be repeated exactly."""
    adam = Adam(model)
    for step in range(1, steps + 1):
        inputs, targets = next(batches)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        adam.step(RATE * min(1.0, step / 10, 2 * (1 - (step - 1) / steps)), step)
        prepare.report(step, step * inputs.numel(), loss.item())


def main() -> None:
    torch.manual_seed(SEED)
    model = build_model()
    prepare.start_clock()
    train(model, prepare.make_dataloader(BATCH_ROWS), STEPS)
    prepare.submit(model)


if __name__ == "__main__":
    main()

"""Programs with the effect of train.py and another syntax tree: what a campaign without any effect to find is made of.

    python benchmarks/equivalents.py --count 70 --seed 1 --out programs/     # writes them, each checked by running it

Each kind of rewriting below keeps every value that the program computes, to the last bit, and changes its meaning hash (agents/syntax.py):
for the ledger it is a new experiment. Rewritings replace bytes at places that the syntax tree names and leave all others as they
are. Nothing under an `if` of the module is touched, since that is not run everywhere, and nothing in f-strings, whose places older
Pythons do not know. `trace` is the proof: losses, weights and logits of a few steps on the CPU, which have to be equal.
"""

import argparse
import ast
import gc
import hashlib
import keyword
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from agents.contract import make_candidate, review  # noqa: E402
from agents.knobs import bindings, constants, line_starts, resolve  # noqa: E402
from agents.syntax import meaning_sha256, parse  # noqa: E402
from data.profiles import PROFILES  # noqa: E402
from records import Hypothesis  # noqa: E402

CONTRACT = {"build_model", "main"}
"""Functions that others call by name."""


class Edit(NamedTuple):
    """Bytes to replace in the UTF-8 source, from `start` to before `end`."""

    start: int
    end: int
    text: str


Rewriting = list[Edit]
"""Edits that belong together."""


class Equivalent(NamedTuple):
    kinds: tuple[str, ...]
    """Of rewriting, in the order they were made."""
    source: str


class Program:
    """A source with its tree and the places of its nodes."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.tree = parse(source)
        self.starts = line_starts(source)
        self.names = {text for node in ast.walk(self.tree) for text in identifiers(node)}
        self.bound = list(bindings(self.tree))
        quoted = [part for node in ast.walk(self.tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)]
        self.quoted = set(map(id, quoted))
        self.quoted_names = {part.id for part in quoted if isinstance(part, ast.Name)}
        self.numbers = resolve(source, PROFILES["cpu"]).keys()

    def place(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Its first byte, and one past its last."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr) -> str:
        start, end = self.place(node)
        return self.source[start:end].decode()

    def operand(self, node: ast.expr) -> str:
        """Its text, which stays one operand wherever it is put."""
        whole = isinstance(node, ast.Name | ast.Constant | ast.Call | ast.Attribute | ast.Subscript)
        return self.text(node) if whole else f"({self.text(node)})"

    def replace(self, node: ast.expr, text: str) -> Edit:
        return Edit(*self.place(node), text)

    def lines(self, node: ast.stmt) -> tuple[int, int]:
        """The lines that a statement stands on, to before their last line end: with a comment at the end of the last."""
        assert node.end_lineno is not None
        start, end = self.starts[node.lineno - 1], self.place(node)[1]
        line_end = self.source.find(b"\n", end)
        return start, len(self.source) if line_end < 0 else line_end

    def fresh(self, name: str, rng: random.Random) -> str:
        """A name like this one that nothing in the file has."""
        while True:
            new = f"{name}_{rng.randrange(2, 1000)}"
            if new not in self.names and not keyword.iskeyword(new):
                return new

    def statements(self) -> Iterator[ast.stmt]:
        """Those of the module that are run everywhere."""
        return (node for node in self.tree.body if not isinstance(node, ast.If | ast.Import | ast.ImportFrom))

    def functions(self) -> Iterator[ast.FunctionDef]:
        """Functions of the module, and methods of its classes."""
        for statement in self.statements():
            for node in statement.body if isinstance(statement, ast.ClassDef) else [statement]:
                if isinstance(node, ast.FunctionDef):
                    yield node

    def nodes(self) -> Iterator[ast.AST]:
        for statement in self.statements():
            yield from (node for node in ast.walk(statement) if id(node) not in self.quoted)

    def uses(self, name: str, within: Sequence[ast.AST]) -> list[ast.Name]:
        found = [node for tree in within for node in ast.walk(tree)]
        return [node for node in found if isinstance(node, ast.Name) and node.id == name]

    def is_number(self, node: ast.expr) -> bool:
        """Whether this is certainly a Python number: a literal, or a constant of the file."""
        return literal(node) is not None or (isinstance(node, ast.Name) and node.id in self.numbers)


def identifiers(node: ast.AST) -> Iterator[str]:
    for name in ("id", "attr", "arg", "name", "asname"):
        text = getattr(node, name, None)
        if isinstance(text, str):
            yield text


def literal(node: ast.expr) -> int | float | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    return None


def calls_nothing(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Call | ast.Await | ast.NamedExpr) for part in ast.walk(node))


# ---- names -----------------------------------------------------------------------------------------------------------


def rename_locals(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`queue` → `queue_17` throughout the function that it is local to."""
    for function in program.functions():
        for name in sorted(own_names(function) - program.quoted_names - {"_"}):
            new = program.fresh(name, rng)
            yield [program.replace(node, new) for node in program.uses(name, function.body)]


SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def own_names(function: ast.FunctionDef) -> set[str]:
    """Variables of a function that are nobody's parameters; none where names are bound in ways that are not looked at."""
    inside = [node for statement in function.body for node in ast.walk(statement)]
    if any(isinstance(node, ast.Global | ast.Nonlocal | ast.ClassDef | ast.Match) for node in inside):
        return set()
    taken = {node.arg for tree in (function.args, *inside) for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in inside:
        if isinstance(node, ast.alias | ast.FunctionDef | ast.AsyncFunctionDef | ast.ExceptHandler):
            taken |= set(identifiers(node))
    found: set[str] = set()
    level: list[ast.AST] = list(function.body)
    while level:
        node = level.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if not isinstance(node, SCOPES):
            level += ast.iter_child_nodes(node)
    return found - taken


def rename_functions(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`norm` → `norm_17` in the whole file, but for those that the contract names."""
    for node in program.statements():
        if isinstance(node, ast.FunctionDef) and node.name not in CONTRACT | program.quoted_names:
            if program.bound.count(node.name) > 1:
                continue
            new = program.fresh(node.name, rng)
            start = program.place(node)[0] + len("def ")
            edits = [program.replace(use, new) for use in program.uses(node.name, [program.tree])]
            yield [Edit(start, start + len(node.name.encode()), new), *edits]


def rename_constants(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`SOFTCAP` → `SOFTCAP_17` in the whole file."""
    for name, _ in constants(program.tree):
        if name not in program.quoted_names:
            new = program.fresh(name, rng)
            yield [program.replace(use, new) for use in program.uses(name, [program.tree])]


# ---- statements ------------------------------------------------------------------------------------------------------


def reorder(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """Two neighbours of the module change places: plain assignments, or functions, neither of which needs the other."""
    for first, second in pairwise(program.tree.body):
        if type(first) is type(second) and not needs(first, second) and not needs(second, first):
            places = program.lines(first), program.lines(second)
            texts = [program.source[start:end].decode() for start, end in places]
            yield [Edit(*place, text) for place, text in zip(places, reversed(texts), strict=True)]


PLAIN = (ast.Constant, ast.Name, ast.Subscript, ast.BinOp, ast.UnaryOp, ast.Tuple, ast.operator, ast.unaryop)


def needs(node: ast.stmt, other: ast.stmt) -> bool:
    """Whether one may need the other to have been executed before; True of all that is not looked at."""
    match node, other:
        case ast.Assign(targets=[ast.Name(id=mine)], value=value), ast.Assign(targets=[ast.Name(id=theirs)]):
            parts = list(ast.walk(value))
            plain = all(isinstance(part, (*PLAIN, ast.expr_context)) for part in parts)
            used = {part.id for part in parts if isinstance(part, ast.Name)}
            return not plain or mine == theirs or theirs in used
        case ast.FunctionDef(decorator_list=[]), ast.FunctionDef(name=theirs):
            # The body is looked up when it is called; defaults and annotations when it is defined.
            now = [node.args, *([node.returns] if node.returns else [])]
            used = {part.id for tree in now for part in ast.walk(tree) if isinstance(part, ast.Name)}
            return theirs in used or node.name == theirs
        case _:
            return True


def split(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`return x` → `result_17 = x` and `return result_17`; `a, b = 0, 1` → two assignments."""
    for function in program.functions():
        for node in (part for statement in function.body for part in ast.walk(statement)):
            if not isinstance(node, ast.stmt):
                continue
            start, end = program.place(node)
            indent = program.source[program.starts[node.lineno - 1] : start].decode()
            if indent.strip():
                continue
            match node:
                case ast.Return(value=ast.expr()):
                    new = program.fresh("result", rng)
                    yield [
                        Edit(start, start + len("return"), f"{new} ="),
                        Edit(end, end, f"\n{indent}return {new}"),
                    ]
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                    if len(names) == len(values) and all(literal(value) is not None for value in values):
                        pairs = zip(names, values, strict=True)
                        lines = [f"{program.text(name)} = {program.text(value)}" for name, value in pairs]
                        yield [Edit(start, end, f"\n{indent}".join(lines))]
                case _:
                    pass


def count_up(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`step += 1` → `step = step + 1` where the variable is a counter. Of a tensor it would make another tensor."""
    for function in program.functions():
        for node in (part for statement in function.body for part in ast.walk(statement)):
            match node:
                case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value) if is_counter(name, function):
                    sides = [name, program.operand(value)]
                    rng.shuffle(sides)
                    yield [Edit(*program.place(node), f"{name} = {' + '.join(sides)}")]
                case _:
                    pass


def is_counter(name: str, function: ast.FunctionDef) -> bool:
    """Whether a variable of a function only ever gets number literals, or these added."""
    if name not in own_names(function):
        return False
    counted = 0
    for node in ast.walk(function):
        match node:
            case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name:
                counted += literal(value) is not None
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                counted += literal(value) is not None
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
                pairs = zip(names, values, strict=True)
                counted += sum(
                    isinstance(target, ast.Name) and target.id == name and literal(value) is not None
                    for target, value in pairs
                )
            case _:
                pass
    stores = [node for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return counted == sum(node.id == name for node in stores)


def add_constants(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """A constant that nobody uses, after one that somebody uses."""
    for node in program.statements():
        if isinstance(node, ast.Assign):
            end = program.lines(node)[1]
            yield [Edit(end, end, f"\n{program.fresh('UNUSED', rng)} = {rng.randrange(100)}")]


# ---- expressions -----------------------------------------------------------------------------------------------------


def commute(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`2 * x` → `x * 2`, and so with +, where one side is a number: rounding does not know the order of two."""
    for node in program.nodes():
        match node:
            case ast.BinOp(left=left, op=ast.Mult() | ast.Add() as op, right=right):
                if program.is_number(left) or program.is_number(right):
                    sign = "*" if isinstance(op, ast.Mult) else "+"
                    yield [program.replace(node, f"{program.operand(right)} {sign} {program.operand(left)}")]
            case _:
                pass


def negate(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`1 - x` → `1 + -x`, where one side is a number: IEEE 754 defines the one as the other."""
    for node in program.nodes():
        match node:
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                if program.is_number(left) or program.is_number(right):
                    yield [program.replace(node, f"{program.operand(left)} + -{program.operand(right)}")]
            case _:
                pass


MIRRORED: dict[type[ast.cmpop], str] = {
    ast.Lt: ">",
    ast.Gt: "<",
    ast.LtE: ">=",
    ast.GtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


def mirror(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`a < b` → `b > a`, where neither calls anything."""
    for node in program.nodes():
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in MIRRORED:
                if calls_nothing(left) and calls_nothing(right):
                    text = f"{program.operand(right)} {MIRRORED[type(op)]} {program.operand(left)}"
                    yield [program.replace(node, text)]
            case _:
                pass


def halve(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`0.04` → `(0.08 / 2)`: twice a number and half of that are exact in base two."""
    for node in program.nodes():
        if isinstance(node, ast.Constant) and (value := literal(node)) is not None:
            division = "//" if isinstance(value, int) else "/"
            yield [program.replace(node, f"({2 * value!r} {division} 2)")]


def invert(program: Program, rng: random.Random) -> Iterator[Rewriting]:
    """`x if c else y` → `y if not c else x`."""
    for node in program.nodes():
        if isinstance(node, ast.IfExp):
            body, test, other = map(program.operand, (node.body, node.test, node.orelse))
            yield [program.replace(node, f"{other} if not {test} else {body}")]


KINDS: dict[str, Callable[[Program, random.Random], Iterator[Rewriting]]] = {
    "rename locals": rename_locals,
    "rename functions": rename_functions,
    "rename constants": rename_constants,
    "reorder": reorder,
    "split": split,
    "count up": count_up,
    "add constants": add_constants,
    "commute": commute,
    "negate": negate,
    "mirror": mirror,
    "halve": halve,
    "invert": invert,
}


# ---- programs --------------------------------------------------------------------------------------------------------


def rewrite(source: str, kind: str, rng: random.Random, most: int = 3) -> str | None:
    """The source after one to `most` rewritings of a kind that do not touch each other; None where it has no place for any."""
    program = Program(source)
    found = list(KINDS[kind](program, rng))
    if not found:
        return None
    rng.shuffle(found)
    chosen: Rewriting = []
    for rewriting in found[: rng.randint(1, most)]:
        if not any(touch(edit, other) for edit in rewriting for other in chosen):
            chosen += rewriting
    data = program.source
    for edit in sorted(chosen, reverse=True):
        data = data[: edit.start] + edit.text.encode() + data[edit.end :]
    return data.decode()


def touch(edit: Edit, other: Edit) -> bool:
    return edit.start <= other.end and other.start <= edit.end


def equivalents(source: str, count: int, seed: int) -> list[Equivalent]:
    """Programs that do what this one does, no two of one meaning hash, approved by the static review, and proved by `trace`.

    Raises:
        ValueError: a rewriting changed what the program does, or there are not so many.
    """
    expected, found = trace(source), list(islice(variants(source, seed), count))
    for variant in found:
        if trace(variant.source) != expected:
            raise ValueError(f"not the same program any more, after {', '.join(variant.kinds)}:\n{variant.source}")
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {count} programs found")
    return found


def variants(source: str, seed: int) -> Iterator[Equivalent]:
    """Rewritten programs, without the proof: one to three kinds of rewriting each, first ones in turn."""
    rng, known, barren = random.Random(seed), {meaning_sha256(source)}, 0
    for first in cycle(KINDS):
        kinds, text = [], source
        for kind in (first, *rng.sample(sorted(KINDS.keys() - {first}), rng.randint(0, 2))):
            rewritten = rewrite(text, kind, rng)
            if rewritten is not None:
                kinds.append(kind)
                text = rewritten
        if (meaning := meaning_sha256(text)) not in known and approved(source, text):
            known.add(meaning)
            yield Equivalent(tuple(kinds), text)
            barren = 0
        elif (barren := barren + 1) > 10 * len(KINDS):
            return


def approved(parent: str, source: str) -> bool:
    """What the reviewer says who compares syntax trees."""
    hypothesis = Hypothesis(title="another way to write it", change="")
    return review(make_candidate("", parent, source), parent, hypothesis, PROFILES["cpu"]).approved


def remarked(source: str, remark: str) -> str:
    """The same program with a comment: the same meaning hash."""
    return f"{source.rstrip()}\n# {remark}\n"


# ---- proof -----------------------------------------------------------------------------------------------------------

STEPS = 3
SMALL = {
    "depth": 2,
    "aspect_ratio": 16,
    "head_dim": 16,
    "window_pattern": "SL",
    "device_batch_size": 4,
    "total_batch_tokens": 256,
}
SEQ_LEN, VOCAB_SIZE = 32, 64


class Trace(NamedTuple):
    """What a program did, to the last bit."""

    losses: tuple[str, ...]
    """Of each step, hexadecimal."""
    weights: str
    """SHA-256 of the trained model's."""
    logits: str
    """SHA-256 of what it answers to a batch without gradients."""


class Clock:
    """Goes on by a second a step, so that schedules do not depend on the machine."""

    def __init__(self) -> None:
        self.budget_s, self.elapsed_s = STEPS + 1.0, 0.0

    @property
    def progress(self) -> float:
        return self.elapsed_s / self.budget_s


def trace(source: str) -> Trace:
    """Train a small model for a few steps on made-up tokens, in this process, on the CPU.

    Only for programs that are trusted. Raises whatever the program raises.
    """
    clock, losses, models = Clock(), list[str](), list[torch.nn.Module]()
    tokens = torch.Generator().manual_seed(5)

    def report(step: int, count: int, loss: float) -> None:
        losses.append(loss.hex())
        clock.elapsed_s += 1

    def batches(rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(100):
            drawn = torch.randint(VOCAB_SIZE, (rows, SEQ_LEN + 1), generator=tokens)
            yield drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous()

    sizes = {"MAX_SEQ_LEN": SEQ_LEN, "VOCAB_SIZE": VOCAB_SIZE, "PROFILE": SMALL, "DEVICE": "cpu", "SEED": 3}
    prepare: Any = ModuleType("prepare")
    prepare.__dict__.update(sizes, report=report, start_clock=lambda: clock, make_dataloader=batches)
    prepare.submit = lambda model, **_: models.append(model)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    before = {name: module for name, module in sys.modules.items() if name == "prepare"}
    torch.set_num_threads(1)
    try:
        sys.modules["prepare"] = prepare
        executed(source)["main"]()
        (model,) = models
        with torch.no_grad():
            logits = model(torch.arange(2 * SEQ_LEN).remainder(VOCAB_SIZE).view(2, SEQ_LEN))
    finally:
        del sys.modules["prepare"]
        sys.modules.update(before)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        gc.unfreeze()  # train.py freezes and disables it
        gc.enable()
    weights = b"".join(digest(weight).encode() for weight in model.state_dict().values())
    return Trace(tuple(losses), hashlib.sha256(weights).hexdigest(), digest(logits))


def executed(source: str) -> dict[str, Any]:
    """Names of the module that a source makes."""
    names: dict[str, Any] = {"__name__": "train"}
    exec(compile(source, "train.py", "exec"), names)
    return names


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=ROOT / "train.py")
    parser.add_argument("--count", type=int, default=70)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for 1.py, 2.py and so on")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for number, program in enumerate(equivalents(options.train.read_text(), options.count, options.seed), 1):
        (options.out / f"{number}.py").write_text(program.source)
        print(f"{number}.py: {', '.join(program.kinds)}")


if __name__ == "__main__":
    main()

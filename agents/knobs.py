"""The numeric constants of train.py: finding them, and setting them without touching any other byte.

A knob is an UPPER_CASE name that is bound exactly once in the file, at module level, to a numeric expression: a literal,
arithmetic over literals and earlier knobs, or PROFILE["name"]. Values are computed from the syntax tree; nothing is run.
"""

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from agents.syntax import BadCandidate, parse
from records import Number

NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
LARGEST = 2**63
"""Numbers beyond this are nobody's hyperparameter, and arithmetic on them could take the host's time."""

BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
CASTS: dict[str, Callable[[Number], Number]] = {"int": int, "float": float}


class KnobError(BadCandidate):
    """A knob that is not there, or a value that it cannot take."""


class Knob(NamedTuple):
    name: str
    value: Number
    kind: Literal["int", "float"]
    derived: bool
    """True when the expression uses an earlier knob: a literal in its place would cut that tie."""
    line: int
    """1-based line of the value."""
    start: int
    """First byte of the value in the UTF-8 source."""
    end: int
    """One past its last byte."""


def find(source: str, profile: Mapping[str, int | float | str]) -> list[Knob]:
    """Every knob of a source, in order.

    Args:
        source: text of a train.py.
        profile: what PROFILE[...] holds.

    Raises:
        BadCandidate: the source is not Python.
    """
    tree = parse(source)
    starts = line_starts(source)
    known: dict[str, Number] = {}
    knobs: list[Knob] = []
    for name, expression in constants(tree):
        value = evaluate(expression, known, profile)
        if value is None:
            continue
        used = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
        start = starts[expression.lineno - 1] + expression.col_offset
        end = starts[(expression.end_lineno or expression.lineno) - 1] + (expression.end_col_offset or 0)
        kind: Literal["int", "float"] = "int" if isinstance(value, int) else "float"
        knobs.append(Knob(name, value, kind, bool(used & known.keys()), expression.lineno, start, end))
        known[name] = value
    return knobs


def resolve(source: str, profile: Mapping[str, int | float | str]) -> dict[str, Number]:
    """Value of every knob by name. Raises BadCandidate."""
    return {knob.name: knob.value for knob in find(source, profile)}


def set_knobs(source: str, values: Mapping[str, Number], profile: Mapping[str, int | float | str]) -> str:
    """The source with new values in place of the old expressions; every byte outside these is kept.

    Args:
        source: text of a train.py.
        values: new value by name. Floats are written with 4 significant digits.
        profile: what PROFILE[...] holds.

    Raises:
        KnobError: an unknown name, a fraction for an integer, or a value that is not finite.
        BadCandidate: the source is not Python.
    """
    knobs = {knob.name: knob for knob in find(source, profile)}
    if missing := sorted(values.keys() - knobs.keys()):
        raise KnobError(f"train.py has no numeric constant {', '.join(missing)}; it has: {', '.join(knobs) or 'none'}")
    data = source.encode()
    for knob in sorted((knobs[name] for name in values), key=lambda knob: knob.start, reverse=True):
        data = data[: knob.start] + literal(knob, values[knob.name]).encode() + data[knob.end :]
    return data.decode()


def literal(knob: Knob, value: Number) -> str:
    """The value as it is written into the file. Raises KnobError."""
    if number(value) is None:
        raise KnobError(f"{knob.name} cannot be {value}: not a finite number of ordinary size")
    if knob.kind == "float":
        return written(float(value))
    if value != int(value):
        raise KnobError(f"{knob.name} is an integer and cannot be {value}")
    return written(int(value))


def written(value: Number) -> str:
    """A number as it stands in train.py and in what people read: integers in full, floats with 4 significant digits."""
    return str(value) if isinstance(value, int) else repr(rounded(value))


def rounded(value: Number) -> float:
    """A float as set_knobs writes it: 4 significant digits."""
    return float(f"{value:.4g}")


def constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Name and expression of each UPPER_CASE module constant that is bound nowhere else in the file."""
    bound = Counter(bindings(tree))
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression):
                pass
            case _:
                continue
        if NAME.fullmatch(name) and bound[name] == 1:
            yield name, expression


def bindings(tree: ast.Module) -> Iterator[str]:
    """Every name that the file binds, once per place, in whatever scope."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case _:
                pass


def evaluate(node: ast.expr, known: Mapping[str, Number], profile: Mapping[str, int | float | str]) -> Number | None:
    """Value of a numeric expression, or None when it is anything else."""
    match node:
        case ast.Constant(value=value):
            return number(value)
        case ast.Name(id=name):
            return known.get(name)
        case ast.Subscript(value=ast.Name(id="PROFILE"), slice=ast.Constant(value=str() as key)):
            return number(profile.get(key))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            value = evaluate(operand, known, profile)
            return None if value is None else UNARY[type(op)](value)
        case ast.Call(func=ast.Name(id=cast), args=[argument], keywords=[]) if cast in CASTS:
            value = evaluate(argument, known, profile)
            return None if value is None else CASTS[cast](value)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            a, b = evaluate(left, known, profile), evaluate(right, known, profile)
            return None if a is None or b is None else calculate(BINARY[type(op)], a, b)
        case _:
            return None


def calculate(operation: Callable[[Number, Number], Number], a: Number, b: Number) -> Number | None:
    """The result, or None for one that is not a real number of ordinary size."""
    if operation is operator.pow and abs(b) > 64:
        return None
    try:
        return number(operation(a, b))
    except ArithmeticError:
        return None


def number(value: object) -> Number | None:
    """The value if it is a finite real number of ordinary size; booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= LARGEST else None


def line_starts(source: str) -> list[int]:
    """Byte offset of each line, by Python's own three line ends."""
    return [0, *(match.end() for match in re.finditer(rb"\r\n|\r|\n", source.encode()))]

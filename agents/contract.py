"""What a candidate must be before it gets time on the device: a static look at the edit, in milliseconds.

This is NOT a security boundary. It reads source that may lie in ways no reading finds; whatever it lets through still runs
in the sandbox, and only the sandbox protects the host and the score. It spares the device work that is known to be
worthless: files that break the contract, edits that change nothing, edits that only move a seed.
"""

import ast
import difflib
import hashlib
from collections.abc import Collection, Iterator, Mapping

import pyflakes.checker
import pyflakes.messages

from agents.knobs import resolve, rounded, written
from agents.syntax import BadCandidate, meaning, meaning_sha256, parse
from records import Candidate, Hypothesis, Number, Review

STANDARD_LIBRARY = {
    *("__future__", "abc", "array", "bisect", "collections", "contextlib", "copy", "dataclasses", "enum", "functools"),
    *("gc", "heapq", "itertools", "json", "logging", "math", "numbers", "operator", "os", "pathlib", "random"),
    *("statistics", "string", "sys", "time", "types", "typing", "warnings"),
}
ALLOWED_IMPORTS = STANDARD_LIBRARY | {"cutlass", "flash_attn", "numpy", "prepare", "quack", "torch", "triton"}
SEEDERS = {"manual_seed", "manual_seed_all", "seed", "default_rng", "RandomState", "SeedSequence"}
"""Calls whose positional arguments are seeds."""


def make_candidate(parent: str, parent_source: str, source: str) -> Candidate:
    """The candidate that a new source is, on top of a parent commit.

    Raises:
        BadCandidate: the source is not Python, or too large.
    """
    meaning_hash = meaning_sha256(source)
    diff = difflib.unified_diff(
        parent_source.splitlines(keepends=True), source.splitlines(keepends=True), "a/train.py", "b/train.py", n=3
    )
    return Candidate(
        parent=parent,
        source=source,
        source_sha256=hashlib.sha256(source.encode()).hexdigest(),
        meaning_sha256=meaning_hash,
        diff="".join(line if line.endswith("\n") else f"{line}\n" for line in diff),
    )


def review(
    candidate: Candidate, parent_source: str, hypothesis: Hypothesis, profile: Mapping[str, int | float | str]
) -> Review:
    """Approve the candidate, or refuse it with the first reason that applies.

    Args:
        candidate: the edit.
        parent_source: the train.py that was edited.
        hypothesis: what the edit promised.
        profile: what PROFILE[...] holds.

    Returns:
        A review with code `ok`, `contract`, `no_op`, `seed_only` or `not_as_promised`.
    """
    try:
        broken = contract_breach(candidate.source)
    except BadCandidate as error:
        broken = str(error)
    if broken:
        return refusal("contract", broken)
    if meaning_sha256(candidate.source) == meaning_sha256(parent_source):
        return refusal("no_op", "The program is the same as its parent's.")
    if without_seeds(candidate.source) == without_seeds(parent_source):
        return refusal("seed_only", "Only seeds differ; a luckier draw is not an improvement.")
    if hypothesis.knobs and (gap := broken_promise(candidate.source, parent_source, hypothesis.knobs, profile)):
        return refusal("not_as_promised", gap)
    return Review(approved=True, code="ok", reason="Keeps the contract and changes what it promised.")


def refusal(code: str, reason: str) -> Review:
    return Review(approved=False, code=code, reason=reason)


def complaint(
    source: str, parent_source: str, hypothesis: Hypothesis, profile: Mapping[str, int | float | str]
) -> str | None:
    """What static checks have against a program that is still being written: why it would be refused, or what lint says of it.

    Returns:
        Lines for its author, or None.
    """
    try:
        found = review(make_candidate("", parent_source, source), parent_source, hypothesis, profile)
        return lint(source) if found.approved else f"{found.code}: {found.reason}"
    except BadCandidate as error:
        return str(error)


def lint(source: str) -> str | None:
    """What pyflakes says of it that would end a run: names that nothing defines, and the like. None if nothing."""
    messages = pyflakes.checker.Checker(parse(source), filename="train.py").messages
    fatal = sorted((m for m in messages if isinstance(m, FATAL)), key=lambda m: m.lineno)
    return "\n".join(f"train.py:{m.lineno}: {m.message % m.message_args}" for m in fatal[:10]) or None


FATAL = (
    pyflakes.messages.UndefinedName,
    pyflakes.messages.UndefinedLocal,
    pyflakes.messages.UndefinedExport,
    pyflakes.messages.DuplicateArgument,
    pyflakes.messages.ReturnOutsideFunction,
    pyflakes.messages.TwoStarredExpressions,
)


def moved_constants(
    source: str, parent_source: str, profile: Mapping[str, int | float | str]
) -> list[tuple[str, str, str]]:
    """Name, value before and value after of each numeric constant that differs; `none` where one has it not."""
    before, after = (resolve_quietly(text, profile) for text in (parent_source, source))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [(name, shown(before.get(name)), shown(after.get(name))) for name in names]


def resolve_quietly(source: str, profile: Mapping[str, int | float | str]) -> dict[str, Number]:
    try:
        return resolve(source, profile)
    except BadCandidate:
        return {}


def shown(value: Number | None) -> str:
    return "none" if value is None else written(value)


def findings(
    candidate: Candidate, parent_source: str, hypothesis: Hypothesis, profile: Mapping[str, int | float | str]
) -> list[str]:
    """What static checks have to say of an edit, for a reviewer: facts, one a line."""
    lines = candidate.diff.splitlines()
    added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
    size = len(candidate.source.splitlines()) - len(parent_source.splitlines())
    found = [
        f"{added} lines added, {removed} removed; the file has {abs(size)} lines {'more' if size > 0 else 'fewer'}"
    ]
    moved = moved_constants(candidate.source, parent_source, profile)
    unpromised = [name for name, _, _ in moved if name not in hypothesis.knobs]
    if hypothesis.knobs and unpromised:
        found.append(f"constants differ that were not promised: {', '.join(unpromised)}")
    said = complaint(candidate.source, parent_source, hypothesis, profile)
    return [*found, *(said.splitlines() if said else ["contract kept, no complaint of lint"])]


# ---- the contract ----------------------------------------------------------------------------------------------------


def contract_breach(source: str) -> str | None:
    """The first broken rule of train.py's contract, or None. Raises BadCandidate for what cannot be read."""
    tree = parse(source)
    top = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if missing := [name for name in ("build_model", "main") if name not in top]:
        return f"train.py does not define {' and '.join(f'{name}()' for name in missing)} at module level."
    reached = reachable_calls(tree, "main")
    if missing := [name for name in ("start_clock", "submit") if name not in reached]:
        return f"main() never reaches {' and '.join(f'{name}()' for name in missing)}."
    if foreign := sorted(set(imported(tree)) - ALLOWED_IMPORTS):
        return f"train.py imports {', '.join(foreign)[:200]}; allowed are torch, numpy, triton, flash_attn, quack, cutlass, prepare and a part of the standard library."
    return None


def reachable_calls(tree: ast.Module, start: str) -> set[str]:
    """Names that may be called from a function, directly or through functions and classes of this file.

    By name only: a call through a variable or a decorator is not followed.
    """
    bodies: dict[str, list[ast.AST]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bodies.setdefault(node.name, []).append(node)
    reached: set[str] = set()
    pending = {start}
    while pending:
        name = pending.pop()
        reached.add(name)
        pending |= {called for body in bodies.get(name, []) for called in calls(body)} - reached
    return reached


def calls(tree: ast.AST) -> Iterator[str]:
    """Last name of every call in a tree: `submit` for prepare.submit(model)."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                yield name
            case _:
                pass


def imported(tree: ast.Module) -> Iterator[str]:
    """Top-level package of every import; `.` for a relative one."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name.split(".")[0] for alias in aliases)
            case ast.ImportFrom(module=module, level=level):
                yield "." if level or module is None else module.split(".")[0]
            case _:
                pass


# ---- the edit --------------------------------------------------------------------------------------------------------


class SeedEraser(ast.NodeTransformer):
    """Takes every seed out of a tree: two sources that differ only in seeds become equal."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A statement that does nothing but seed is dropped, so adding one is a seed change too."""
        match node.value:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in SEEDERS:
                return None
            case _:
                return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node.func:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in SEEDERS:
                node.args = []
            case _:
                pass
        node.keywords = [keyword for keyword in node.keywords if "seed" not in (keyword.arg or "").lower()]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if all(isinstance(target, ast.Name) and "seed" in target.id.lower() for target in node.targets):
            node.value = ast.Constant(0)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name) and "seed" in node.target.id.lower():
            node.value = ast.Constant(0)
        return node


def without_seeds(source: str) -> str:
    """Text form of what a source means apart from its seeds. Raises BadCandidate."""
    tree = parse(source)
    SeedEraser().visit(tree)
    return meaning(tree)


def broken_promise(
    source: str, parent_source: str, promised: Mapping[str, Number], profile: Mapping[str, int | float | str]
) -> str | None:
    """How the edit differs from "exactly these constants, to exactly these values", or None."""
    found = resolve(source, profile)
    for name, value in promised.items():
        if name not in found:
            return f"{name} was promised but is no numeric constant of the file."
        if found[name] != value and found[name] != rounded(value):
            return f"{name} was promised to be {written(value)} but is {written(found[name])}."
    if without_values(source, promised) != without_values(parent_source, promised):
        return f"More than {', '.join(promised)} differs from the parent."
    return None


def without_values(source: str, names: Collection[str]) -> str:
    """Text form of what a source means apart from the values of some constants. Raises BadCandidate."""
    tree = parse(source)
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if name in names:
                statement.value = ast.Constant(0)
            case _:
                pass
    return meaning(tree)

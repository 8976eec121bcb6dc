"""Reading a train.py that anybody may have written, without running it and without being hurt by it."""

import ast
import hashlib
import warnings

from records import SOURCE_LIMIT_BYTES, BadInput

MAX_DEPTH = 150
"""Deepest nesting that is read. Real code stays under 40; recursion over the tree is safe up to here."""


class BadCandidate(BadInput):
    """A source or an edit that cannot become a candidate. It ends one idea, never the org."""


def parse(source: str) -> ast.Module:
    """Syntax tree of a train.py.

    Raises:
        BadCandidate: not Python, not UTF-8, over 64 KiB, or nested too deeply.
    """
    try:
        size_bytes = len(source.encode())
    except UnicodeEncodeError:
        raise BadCandidate("train.py is not valid UTF-8 text") from None
    if size_bytes > SOURCE_LIMIT_BYTES:
        raise BadCandidate(f"train.py has {size_bytes} bytes; at most {SOURCE_LIMIT_BYTES} are accepted")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a candidate's odd escapes are not for our terminal
            tree = ast.parse(source)
    except SyntaxError as error:
        raise BadCandidate(f"train.py:{error.lineno}: not Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError):
        raise BadCandidate("train.py cannot be parsed: null bytes, or nested too deeply") from None
    refuse_depth(tree)
    return tree


def refuse_depth(tree: ast.Module) -> None:
    """Raise BadCandidate for a tree deeper than MAX_DEPTH; itself without recursion."""
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise BadCandidate(f"train.py is nested more than {MAX_DEPTH} levels deep")


def meaning_sha256(source: str) -> str:
    """Hash of the syntax tree without comments, docstrings and layout: equal means the same experiment.

    Comparable between runs of one Python minor version. Raises BadCandidate.
    """
    return hashlib.sha256(meaning(parse(source)).encode()).hexdigest()


def meaning(tree: ast.Module) -> str:
    """Text form of a tree without docstrings. Changes the tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = without_docstring(node.body) or [ast.Pass()]
    return ast.dump(tree)


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(ast.Constant(str())), *rest]:
            return rest
        case _:
            return body

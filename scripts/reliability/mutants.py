"""Mutants: one-line changes to Python source, of the kind that people make by mistake.

Changes without effect by definition are left out: annotations, strings, the condition of an assert and the `strict` of
a `zip` (both always hold), the indentation of JSON, and the order of arguments of symmetric functions.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

_COMPARISONS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
    ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"),
}  # fmt: skip
_SYMMETRIC = ("min", "max", "minimum", "maximum", "transpose")


@dataclass(frozen=True)
class Mutant:
    """A file with one change.

    Attributes:
        path: The file, relative to the root.
        line: Line number of the change, from 1.
        kind: Kind of change.
        before: The replaced text.
        after: Its replacement.
        start: Byte offset of the change in the file.
    """

    path: str
    line: int
    kind: str
    before: str
    after: str
    start: int

    def apply(self, source: bytes) -> bytes:
        """Returns the content of the changed file."""
        end = self.start + len(self.before.encode())
        assert source[self.start : end].decode() == self.before
        return source[: self.start] + self.after.encode() + source[end:]

    def __str__(self) -> str:
        before, after = (" ".join(text.split())[:70] for text in (self.before, self.after))
        return f"{self.path}:{self.line}  {self.kind}: {before} -> {after or '(nothing)'}"


def mutants_of(root: Path, path: Path) -> list[Mutant]:
    """Returns all mutants of a file, ordered by their offsets."""
    source = path.read_bytes()
    found = _MutantFinder(path.relative_to(root).as_posix(), source).visit(ast.parse(source))
    return sorted(set(found), key=lambda mutant: (mutant.start, mutant.kind, mutant.after))


def compiles(mutant: Mutant, root: Path) -> bool:
    """Whether the changed file is valid Python."""
    try:
        compile(mutant.apply((root / mutant.path).read_bytes()), mutant.path, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


class _MutantFinder:
    def __init__(self, path: str, source: bytes):
        self._path = path
        self._source = source
        self._starts = [0, *accumulate(len(line) + 1 for line in source.split(b"\n"))]

    def visit(self, node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr):
            return  # before Python 3.12, nodes inside have no positions
        yield from self._changes(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
                continue
            if isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and name == "args" and _is_typing(node)):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_arbitrary(node, child):
                    yield from self.visit(child)

    def _changes(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare():
                left = node.left
                for operator, right in zip(node.ops, node.comparators, strict=True):
                    yield from self._between(left, right, _COMPARISONS[type(operator)], "comparison")
                    left = right
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                yield from self._between(node.left, node.right, _ARITHMETIC[type(node.op)], "arithmetic")
            case ast.AugAssign() if type(node.op) in _ARITHMETIC:
                before, after = _ARITHMETIC[type(node.op)]
                yield from self._between(node.target, node.value, (f"{before}=", f"{after}="), "arithmetic")
            case ast.BoolOp():
                words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                yield from self._between(node.values[0], node.values[1], words, "logic")
            case ast.UnaryOp() if not isinstance(node.op, ast.UAdd):
                yield self._replace(node, self._text(node.operand), "operator removed")
            case ast.Constant():
                yield from self._constant(node)
            case ast.If() | ast.While() | ast.IfExp():
                yield self._replace(node.test, f"(not ({self._text(node.test)}))", "condition negated")
            case ast.comprehension():
                for test in node.ifs:
                    yield self._replace(test, f"(not ({self._text(test)}))", "condition negated")
            case ast.Expr(value=ast.Call()):
                yield self._replace(node, "pass", "call removed")
            case ast.Call() if not _is_typing(node):
                yield from self._call(node)

    def _constant(self, node: ast.Constant) -> Iterator[Mutant]:
        value = node.value
        if isinstance(value, bool):
            yield self._replace(node, str(not value), "constant")
        elif isinstance(value, int | float):
            yield self._replace(node, repr(value + 1 if isinstance(value, int) else value * 2 or 1.0), "constant")

    def _call(self, node: ast.Call) -> Iterator[Mutant]:
        starred = any(isinstance(each, ast.Starred) for each in node.args[:2])
        if len(node.args) >= 2 and not starred and _name(node) not in _SYMMETRIC:
            first, second = node.args[:2]
            start, end = self._span(first)[0], self._span(second)[1]
            gap = self._source[self._span(first)[1] : self._span(second)[0]].decode()
            if self._text(first) != self._text(second):
                yield self._make(start, end, self._text(second) + gap + self._text(first), "arguments swapped")
        arguments = [*node.args, *node.keywords]
        for keyword in node.keywords:
            if keyword.arg is None or _is_arbitrary(node, keyword):
                continue
            start, end = self._span(keyword)
            others = [self._span(each) for each in arguments if each is not keyword]
            after = [first for first, _ in others if first >= end]
            if after:
                yield self._make(start, min(after), "", "keyword removed")
            else:
                yield self._make(max((last for _, last in others), default=start), end, "", "keyword removed")

    def _between(self, left: ast.AST, right: ast.AST, words: tuple[str, str], kind: str) -> Iterator[Mutant]:
        """Replaces the operator between two operands, which may be in parentheses."""
        start, end = self._span(left)[1], self._span(right)[0]
        offset = self._source[start:end].find(words[0].encode())
        if offset >= 0:
            yield self._make(start + offset, start + offset + len(words[0].encode()), words[1], kind)

    def _replace(self, node: ast.AST, after: str, kind: str) -> Mutant:
        return self._make(*self._span(node), after, kind)

    def _make(self, start: int, end: int, after: str, kind: str) -> Mutant:
        line = self._source.count(b"\n", 0, start) + 1
        return Mutant(self._path, line, kind, self._source[start:end].decode(), after, start)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()


def _name(call: ast.Call) -> str:
    """Returns the last part of the name of the called function."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _is_arbitrary(node: ast.AST, child: ast.AST) -> bool:
    """Whether an argument may have another value, or be omitted, without effect."""
    argument = getattr(child, "arg", None)
    return isinstance(node, ast.Call) and (argument == "indent" or (argument == "strict" and _name(node) == "zip"))


def _is_typing(call: ast.Call) -> bool:
    return _name(call) in ("cast", "TypeVar", "NewType")

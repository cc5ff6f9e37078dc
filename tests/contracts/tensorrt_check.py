"""Follows TensorRT's objects through our own source, and checks every use of them against the real API.

What an expression is, is told from annotations, from the signatures in the API's docstrings and from assignments. An
attribute that bears a name of the API on a value of which nothing is known is a fault too: it wants an annotation.
So a misspelt call cannot hide, neither among TensorRT's objects nor among others.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorrt_api import Api, signatures

# These names mean the package, wherever they stand.
MODULE_NAMES = ("trt", "tensorrt")

MODULE, CLASS, OBJECT, METHOD, OURS, FOREIGN, UNKNOWN = (
    "module",
    "class",
    "object",
    "method",
    "ours",
    "foreign",
    "unknown",
)


@dataclass(frozen=True)
class Type:
    """What is known of a value: of TensorRT (module, class, object, method), ours, foreign, or unknown."""

    kind: str
    name: str = ""
    doc: str = ""

    @property
    def is_tensorrt(self) -> bool:
        return self.kind in (MODULE, CLASS, OBJECT, METHOD)


ANY, ELSE = Type(UNKNOWN), Type(FOREIGN)


@dataclass(frozen=True)
class Use:
    """A place where our source uses TensorRT."""

    node: ast.AST
    what: str
    called: bool = False


@dataclass
class Found:
    """What the check of some files gave."""

    faults: list[str] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    guarded: set[str] = field(default_factory=set)


def check(trees: Mapping[str, ast.Module], api: Api) -> Found:
    """Checks files against one version of the API.

    Args:
        trees: the parsed files by module name; they may import from each other.
        api: what must be there.
    """
    found = Found()
    ours = _Ours(trees, api, found)
    for name, tree in trees.items():
        _File(name, tree, api, ours, found).run()
    return found


def faults(trees: Mapping[str, ast.Module], apis: Iterable[Api]) -> list[str]:
    """What is wrong with files that must work with several versions.

    A name that is asked for by ``getattr`` with a default, or by ``hasattr``, may be missing in all versions but one.
    """
    apis = tuple(apis)
    results = [check(trees, api) for api in apis]
    wrong = [
        f"TensorRT {api.version}: {fault}" for api, found in zip(apis, results, strict=True) for fault in found.faults
    ]
    for path in sorted(set.union(*(found.guarded for found in results))):
        owner, _, name = path.rpartition(".")
        if not any(name in (api.classes.get(owner, {}) if owner else api.names) for api in apis):
            wrong.append(f"no version has {path}")
    return wrong


class _Ours:
    """What the files' own functions and classes give: return types, and attributes of ``self``."""

    def __init__(self, trees: Mapping[str, ast.Module], api: Api, found: Found) -> None:
        self.returns: dict[str, Type] = {}
        self.attributes: dict[str, dict[str, Type]] = {}
        for module, tree in trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    self.returns[node.name] = annotated(node.returns, api, found, module)
                elif isinstance(node, ast.ClassDef):
                    self.attributes[node.name] = dict(self._fields(node, api, found, module))

    @staticmethod
    def _fields(node: ast.ClassDef, api: Api, found: Found, module: str) -> Iterator[tuple[str, Type]]:
        """Attributes that a class annotates, in its body or where a method assigns them, and its methods."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef):
                property_ = any(getattr(mark, "id", "") == "property" for mark in inner.decorator_list)
                yield (
                    inner.name,
                    annotated(inner.returns, api, found, module) if property_ else Type(OURS, inner.name),
                )
            elif isinstance(inner, ast.AnnAssign):
                target = inner.target
                name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
                yield name, annotated(inner.annotation, api, found, module)


def annotated(annotation: ast.expr | None, api: Api, found: Found, module: str) -> Type:
    """What an annotation says; a class of TensorRT that is not there is a fault."""
    if annotation is None:
        return ANY
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):  # X | None
        sides = [annotated(side, api, found, module) for side in (annotation.left, annotation.right)]
        return next((side for side in sides if side.is_tensorrt or side.kind == UNKNOWN), sides[0])
    if isinstance(annotation, ast.Attribute) and _root(annotation) in MODULE_NAMES:
        path = ast.unparse(annotation).partition(".")[2]
        found.uses.append(Use(annotation, path))
        if path not in api.classes:
            found.faults.append(f"{module}:{annotation.lineno}: no class {path}")
        return Type(OBJECT, path)
    if isinstance(annotation, ast.Name):
        return ANY if annotation.id in ("Any", "object") else Type(FOREIGN, annotation.id)
    # A container may hold anything.
    mentions = any(_root(node) in MODULE_NAMES or getattr(node, "id", "") == "Any" for node in ast.walk(annotation))
    return ANY if mentions else ELSE


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


class _File:
    """The walk through one file."""

    def __init__(self, module: str, tree: ast.Module, api: Api, ours: _Ours, found: Found) -> None:
        self.module, self.tree, self.api, self.ours, self.found = module, tree, api, ours, found
        self.scope: dict[str, Type] = {}
        self.class_name = ""

    def run(self) -> None:
        self.block(self.tree.body)

    # --- statements -----------------------------------------------------------------------------------------------

    def block(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                name = (alias.asname or alias.name).partition(".")[0]
                known = alias.name in self.ours.attributes or alias.name in self.ours.returns
                self.scope[name] = Type(OURS, alias.name) if known else ELSE
        elif isinstance(node, ast.FunctionDef):
            self.function(node)
        elif isinstance(node, ast.ClassDef):
            self.klass(node)
        elif isinstance(node, ast.Assign):
            value = self.type(node.value)
            for target in node.targets:
                self.assign(target, value, node.value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self.type(node.value)
            self.assign(node.target, annotated(node.annotation, self.api, Found(), self.module), None)
        elif isinstance(node, ast.For):
            over = self.type(node.iter)
            self.assign(node.target, ELSE if over.kind == FOREIGN else ANY, None)
            self.block([*node.body, *node.orelse])
        elif isinstance(node, ast.With):
            for item in node.items:
                value = self.type(item.context_expr)
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, value, None)
            self.block(node.body)
        elif isinstance(node, ast.Try):
            for handler in node.handlers:
                if handler.type is not None:
                    self.type(handler.type)
                if handler.name:
                    self.scope[handler.name] = ELSE
            self.block(node.body)
            for handler in node.handlers:
                self.block(handler.body)
            self.block([*node.orelse, *node.finalbody])
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self.type(child)
                elif isinstance(child, ast.stmt):
                    self.statement(child)

    def function(self, node: ast.FunctionDef) -> None:
        outer, outer_class = dict(self.scope), self.class_name
        self.scope[node.name] = outer[node.name] = Type(OURS, node.name)
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        for argument in arguments:
            self.scope[argument.arg] = annotated(argument.annotation, self.api, self.found, self.module)
        if self.class_name and arguments and arguments[0].arg == "self":
            self.scope["self"] = Type(OURS, self.class_name)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.type(default)
        self.block(node.body)
        self.scope, self.class_name = outer, outer_class

    def klass(self, node: ast.ClassDef) -> None:
        outer, outer_class = dict(self.scope), self.class_name
        for base in node.bases:
            self.type(base)
        self.class_name = node.name
        self.block(node.body)
        self.scope, self.class_name = {**outer, node.name: Type(OURS, node.name)}, outer_class

    def assign(self, target: ast.expr, value: Type, source: ast.expr | None) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            values = source.elts if isinstance(source, ast.Tuple) else [None] * len(target.elts)
            for place, inner in enumerate(target.elts):
                given = values[place] if place < len(values) else None
                # The parts were looked at with the whole; only their types are wanted here.
                self.assign(
                    inner, self.quiet(given) if given is not None else ANY if value.kind != FOREIGN else ELSE, given
                )
        elif isinstance(target, ast.Starred):
            self.assign(target.value, ANY if value.kind != FOREIGN else ELSE, None)
        elif isinstance(target, ast.Name):
            if target.id not in MODULE_NAMES:
                self.scope[target.id] = value
        elif isinstance(target, ast.Attribute):
            owner = self.type(target.value)
            if owner.kind == OURS:
                known = self.ours.attributes.setdefault(owner.name, {})
                known.setdefault(target.attr, value)
            else:
                self.attribute(target, owner)
        else:
            self.type(target)

    # --- expressions ----------------------------------------------------------------------------------------------

    def quiet(self, node: ast.expr) -> Type:
        """The type of an expression that was looked at before."""
        kept, self.found = self.found, Found()
        try:
            return self.type(node)
        finally:
            self.found = kept

    def type(self, node: ast.expr) -> Type:
        if isinstance(node, ast.Name):
            if node.id in MODULE_NAMES:
                return Type(MODULE)
            return self.scope.get(node.id, ELSE)
        if isinstance(node, ast.Attribute):
            return self.attribute(node, self.type(node.value))
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.NamedExpr):
            value = self.type(node.value)
            self.assign(node.target, value, node.value)
            return value
        if isinstance(node, ast.Lambda):
            outer = dict(self.scope)
            self.scope |= {argument.arg: ANY for argument in node.args.args}
            self.type(node.body)
            self.scope = outer
            return ELSE
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            return self.comprehension(node)
        parts = [self.type(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        if isinstance(node, (ast.IfExp, ast.BoolOp)):
            parts = parts[1:] if isinstance(node, ast.IfExp) else parts
            return parts[0] if all(part == parts[0] for part in parts) else _mixed(parts)
        if isinstance(node, (ast.Compare, ast.JoinedStr, ast.FormattedValue, ast.UnaryOp, ast.Constant)):
            return ELSE
        if isinstance(node, ast.BinOp) and parts[0].kind == OBJECT:
            return ELSE
        return _mixed(parts)

    def comprehension(self, node: Any) -> Type:
        outer = dict(self.scope)
        for generator in node.generators:
            over = self.type(generator.iter)
            self.assign(generator.target, ELSE if over.kind == FOREIGN else ANY, None)
            for condition in generator.ifs:
                self.type(condition)
        made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        parts = [self.type(part) for part in made]
        self.scope = outer
        return _mixed(parts)

    def attribute(self, node: ast.Attribute, owner: Type) -> Type:
        if owner.kind == FOREIGN and owner.name in self.ours.attributes:
            owner = Type(OURS, owner.name)
        if owner.kind == MODULE:
            return self.of_tensorrt(node, "", self.api.names)
        if owner.kind in (CLASS, OBJECT):
            return self.of_tensorrt(node, owner.name, self.api.classes.get(owner.name, {}))
        if owner.kind == OURS:
            known = self.ours.attributes.get(owner.name, {})
            if node.attr in ("_trt",):
                return Type(MODULE)
            return known.get(node.attr, ANY)
        if owner.kind == UNKNOWN and node.attr in self.api.words:
            self.fault(node, f"'{ast.unparse(node)}' has a name of TensorRT on a value of unknown type: annotate it")
        return ELSE if owner.kind == FOREIGN else ANY

    def of_tensorrt(self, node: ast.Attribute, owner: str, members: Mapping[str, Any]) -> Type:
        path = f"{owner}.{node.attr}" if owner else node.attr
        self.found.uses.append(Use(node, path))
        if node.attr not in members:
            self.fault(node, f"no {path}")
            return ANY
        return self.member_type(members[node.attr], owner)

    def member_type(self, member: Mapping[str, Any], owner: str) -> Type:
        if member["kind"] == "class":
            return Type(CLASS, member["class"])
        if member["kind"] == "method":
            return Type(METHOD, owner, member["doc"])
        if member["kind"] == "value":
            return Type(OBJECT, member["type"]) if member["type"] in self.api.classes else ELSE
        found = signatures(member["doc"])
        return self.given(found[0].returns) if found else ANY

    def given(self, returns: str) -> Type:
        """The type that a signature promises."""
        name = self.api.class_in(returns)
        if name:
            return Type(OBJECT, name)
        return ANY if re_any(returns) else ELSE

    def call(self, node: ast.Call) -> Type:
        guarded = self.guard(node)
        if guarded is not None:
            return guarded
        function = self.type(node.func)
        arguments = [self.type(value) for value in (*node.args, *(keyword.value for keyword in node.keywords))]
        if function.kind in (CLASS, METHOD):
            self.found.uses.append(Use(node, ast.unparse(node.func), called=True))
            return self.called(node, function)
        if function.kind == OURS:
            if function.name in self.ours.attributes:
                return function
            return self.ours.returns.get(function.name, ANY)
        # What somebody else's function makes of TensorRT's objects, we do not know.
        mixed = any(argument.is_tensorrt or argument.kind == UNKNOWN for argument in arguments)
        return ANY if mixed and not _plain(node) else ELSE

    def called(self, node: ast.Call, function: Type) -> Type:
        doc = function.doc
        if function.kind == CLASS:
            doc = self.api.classes[function.name].get("__init__", {}).get("doc", "")
        known = signatures(doc)
        starred = any(isinstance(value, ast.Starred) for value in node.args)
        keywords = [keyword.arg for keyword in node.keywords if keyword.arg]
        # Called on the class and not on an object, as in Base.__init__(self).
        n_positional = len(node.args) - (ast.unparse(node.func).endswith(".__init__"))
        wrong = [signature.fault(n_positional, keywords) for signature in known]
        if known and all(wrong) and not starred:
            self.fault(node, f"{ast.unparse(node.func)} {wrong[0]}")
        if function.kind == CLASS:
            return Type(OBJECT, function.name)
        return self.given(known[0].returns) if known else ANY

    def guard(self, node: ast.Call) -> Type | None:
        """``getattr(owner, "NAME", default)`` and ``hasattr(owner, "NAME")``: the name may be missing in a version."""
        name = getattr(node.func, "id", "")
        if name not in ("getattr", "hasattr") or len(node.args) < 2:
            return None
        owner, wanted = self.type(node.args[0]), node.args[1]
        if not owner.is_tensorrt or not isinstance(wanted, ast.Constant):
            return None
        path = f"{owner.name}.{wanted.value}" if owner.name else str(wanted.value)
        self.found.uses.append(Use(wanted, path))
        if name == "getattr" and len(node.args) == 2:
            members = self.api.classes.get(owner.name, {}) if owner.name else self.api.names
            if wanted.value not in members:
                self.fault(node, f"no {path}")
        else:
            self.found.guarded.add(path)
        return ANY if name == "getattr" else ELSE

    def fault(self, node: ast.AST, text: str) -> None:
        self.found.faults.append(f"{self.module}:{getattr(node, 'lineno', 0)}: {text}")


def re_any(returns: str) -> bool:
    """Whether a signature's return type may hold objects of TensorRT; it names some as C++ does."""
    return "tensorrt" in returns or "::" in returns or returns.strip() in ("object", "typing.Any")


def _mixed(parts: Iterable[Type]) -> Type:
    """The type of what is made of several: foreign where all of them are."""
    return ELSE if all(part.kind == FOREIGN for part in parts) else ANY


def _plain(node: ast.Call) -> bool:
    """Calls of Python's own that give plain values, whatever goes in."""
    return getattr(node.func, "id", "") in ("int", "str", "len", "bool", "float", "isinstance", "print", "repr")

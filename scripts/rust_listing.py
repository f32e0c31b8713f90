"""The public API of a Rust crate as lines of text, from rustdoc's JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
AUTO_TRAITS = ("Send", "Sync", "Unpin", "UnwindSafe", "RefUnwindSafe")
EXAMPLE = re.compile(r"^```(?:rust|no_run|rust,no_run)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Item:
    """Something that a program which uses the crate can name."""

    path: str
    kind: str
    inner: Json
    """What rustdoc says of it."""
    docs: str
    exhaustive: bool


class Api:
    """What a crate offers, in the order of its paths."""

    def __init__(self, document: Json) -> None:
        self.index: dict[str, Json] = document["index"]
        self.paths: dict[str, Json] = document["paths"]
        self.items: dict[int, Item] = {}
        root = self._get(document["root"])
        self._walk(root, root["name"], "")

    def _get(self, key: int) -> Json:
        return self.index[str(key)]

    def _walk(self, module: Json, path: str, docs: str) -> None:
        for key in module["inner"]["module"]["items"]:
            item = self.index.get(str(key))
            if item is None or _hidden(item):
                continue
            kind, inner = next(iter(item["inner"].items()))
            if kind == "use":
                target = self.index.get(str(inner["id"]))
                if target is None or _hidden(target):
                    continue
                self._add(inner["id"], f"{path}::{inner['name']}", target, item["docs"] or "")
            else:
                self._add(key, f"{path}::{item['name']}", item, docs)

    def _add(self, key: int, path: str, item: Json, more: str) -> None:
        kind, inner = next(iter(item["inner"].items()))
        known = self.items.get(key)
        if known is None or len(path) < len(known.path):
            exhaustive = "non_exhaustive" not in item["attrs"]
            self.items[key] = Item(path, kind, inner, f"{item['docs'] or ''}\n{more}", exhaustive)
        if kind == "module" and known is None:
            self._walk(item, path, "")

    # --- members ---

    def members(self, item: Item) -> Iterator[tuple[Json, str]]:
        """The associated items of a type or trait that can be named, with their kind."""
        keys: list[int] = item.inner["items"] if item.kind == "trait" else []
        for key in item.inner.get("impls", []):
            implementation = self._get(key)["inner"]["impl"]
            if implementation["trait"] is None:
                keys = keys + implementation["items"]
        for key in keys:
            member = self._get(key)
            if not _hidden(member) and (item.kind == "trait" or member["visibility"] == "public"):
                yield member, next(iter(member["inner"]))

    def lacking_examples(self) -> list[str]:
        """The items without an example, and the members that no example of theirs or their type's uses."""
        lacking: list[str] = []
        for item in sorted(self.items.values(), key=lambda item: item.path):
            examples = "\n".join(EXAMPLE.findall(item.docs))
            if item.kind != "module" and not examples:
                lacking.append(f"{item.path} has no example")
            for member, _ in self.members(item):
                name, own = member["name"], "\n".join(EXAMPLE.findall(member["docs"] or ""))
                if not re.search(rf"(?:\.|::|\bfn |\btype |\bconst ){name}\b", examples + own):
                    lacking.append(f"{item.path}::{name} is in no example of its own or of {item.path}")
        return lacking

    def not_offered(self) -> list[str]:
        """The crate's own types that stand in what is offered but cannot be named."""
        found: set[str] = set()
        for item in self.items.values():
            used: list[Any] = []
            if item.kind in ("function", "type_alias", "trait"):
                used.append({key: value for key, value in item.inner.items() if key != "implementations"})
            used += [member["inner"] for member, _ in self.members(item)]
            used += [field["inner"] for field in self._fields(item)]
            for key in _types(used):
                known = self.index.get(str(key))
                if known is not None and key not in self.items:
                    found.add(f"{item.path} speaks of {'::'.join(self.paths[str(key)]['path'])}")
        return sorted(found)

    def _fields(self, item: Item) -> Iterator[Json]:
        """The public fields of a struct or of an enum's variants."""
        kinds: list[Any] = []
        if item.kind == "struct":
            kinds.append(item.inner["kind"])
        variants = map(self._get, item.inner.get("variants", []))
        kinds += [variant["inner"]["variant"]["kind"] for variant in variants]
        for kind in kinds:
            for key in _field_keys(kind):
                if key is not None and not _hidden(self._get(key)):
                    yield self._get(key)

    # --- lines ---

    def lines(self) -> list[str]:
        """One line for each thing that may be relied on. Without a line of before, a program may break."""
        found: set[str] = set()
        for item in self.items.values():
            found.update(self._item(item))
        return sorted(found)

    def _item(self, item: Item) -> Iterator[str]:
        path, kind, inner = item.path, item.kind, item.inner
        generics = self._generics(inner.get("generics"))
        match kind:
            case "function":
                yield f"fn {path}{self._signature(inner)}"
            case "type_alias":
                yield f"type {path}{generics} = {self._type(inner['type'])}"
            case "constant" | "static":
                yield f"{kind} {path}: {self._type(inner['type'])}"
            case "module" | "macro" | "proc_macro":
                yield f"{kind} {path}"
            case "trait":
                yield self._trait(item, generics)
            case "struct":
                yield from self._struct(item, generics)
            case "enum":
                yield from self._enum(item, generics)
            case _:
                raise ValueError(f"rustdoc tells of an item that this program does not know: `{kind}`")
        for member, sort in self.members(item):
            yield self._member(f"{path}::{member['name']}", sort, member["inner"][sort])
        for key in inner.get("impls", []):
            yield from self._implementation(item, self._get(key)["inner"]["impl"])

    def _member(self, name: str, kind: str, inner: Json) -> str:
        if kind == "function":
            return f"fn {name}{self._signature(inner)}"
        return f"const {name}: {self._type(inner['type'])}" if kind == "assoc_const" else f"type {name}"

    def _trait(self, item: Item, generics: str) -> str:
        # A new member without a default breaks who implements the trait.
        needed = sorted(member["name"] for member, sort in self.members(item) if _is_needed(member, sort))
        bounds = self._bounds(item.inner["bounds"])
        return f"trait {item.path}{generics}{': ' if bounds else ''}{bounds} needs [{', '.join(needed)}]"

    def _struct(self, item: Item, generics: str) -> Iterator[str]:
        kind = item.inner["kind"]
        fields = [self._get(key) for key in _field_keys(kind) if key is not None]
        # Of a struct that can be written down by its fields, a new field breaks a program too.
        whole = not _stripped(kind) and len(fields) == len(_field_keys(kind))
        names = ", ".join(field["name"] for field in fields)
        exact = f" has exactly [{names}]" if item.exhaustive and whole else ""
        yield f"struct {item.path}{generics}{exact}"
        for field in self._fields(item):
            yield f"field {item.path}::{field['name']}: {self._type(field['inner']['struct_field'])}"

    def _enum(self, item: Item, generics: str) -> Iterator[str]:
        variants = [self._get(key) for key in item.inner["variants"]]
        names = ", ".join(variant["name"] for variant in variants)
        exact = f" is exactly [{names}]" if item.exhaustive else ""
        yield f"enum {item.path}{generics}{exact}"
        for variant in variants:
            fields = self._fields_of(variant["inner"]["variant"]["kind"])
            yield f"variant {item.path}::{variant['name']}{fields}"

    def _implementation(self, item: Item, inner: Json) -> Iterator[str]:
        trait = inner["trait"]
        if trait is None or inner["blanket_impl"] is not None or inner["is_negative"]:
            return
        name = trait["path"].split("::")[-1]
        if (inner["is_synthetic"] and name not in AUTO_TRAITS) or name.startswith("Structural"):
            return
        generics = "" if inner["is_synthetic"] else self._generics(inner["generics"])
        yield f"impl{generics} {self._path(trait)} for {item.path}{self._subject(inner['for'])}"

    def _subject(self, subject: Json) -> str:
        path = subject.get("resolved_path")
        return self._arguments(path["args"]) if path else f" as {self._type(subject)}"

    def _fields_of(self, kind: Any) -> str:
        if kind == "plain":
            return ""
        fields = [
            "_"
            if key is None
            else self._type(self._get(key)["inner"]["struct_field"])
            if "tuple" in kind
            else f"{self._get(key)['name']}: {self._type(self._get(key)['inner']['struct_field'])}"
            for key in _field_keys(kind)
        ]
        return f"({', '.join(fields)})" if "tuple" in kind else f" {{ {', '.join(fields)} }}"

    def _signature(self, function: Json) -> str:
        signature, header = function["sig"], function["header"]
        inputs = ", ".join(self._type(kind) for _, kind in signature["inputs"])
        output = f" -> {self._type(signature['output'])}" if signature["output"] else ""
        words = [word for word in ("async", "const", "unsafe") if header[f"is_{word}"]]
        qualifiers = f" {' '.join(words)}" if words else ""
        return f"{self._generics(function['generics'])}({inputs}){output}{qualifiers}"

    def _generics(self, generics: Json | None) -> str:
        if not generics:
            return ""
        names: list[str] = []
        for one in generics["params"]:
            kind, inner = next(iter(one["kind"].items()))
            if kind == "lifetime":
                names.append(one["name"])
            elif kind == "const":
                names.append(f"const {one['name']}: {self._type(inner['type'])}")
            elif not inner["is_synthetic"]:
                bounds = self._bounds(inner["bounds"])
                names.append(f"{one['name']}: {bounds}" if bounds else one["name"])
        where: list[str] = []
        for predicate in generics["where_predicates"]:
            kind, inner = next(iter(predicate.items()))
            if kind == "bound_predicate":
                where.append(f"{self._type(inner['type'])}: {self._bounds(inner['bounds'])}")
            elif kind == "lifetime_predicate":
                where.append(f"{inner['lifetime']}: {' + '.join(inner['outlives'])}")
        text = f"<{', '.join(names)}>" if names else ""
        return f"{text} where {', '.join(where)} " if where else text

    def _bounds(self, bounds: list[Json]) -> str:
        return " + ".join(self._bound(bound) for bound in bounds)

    def _bound(self, bound: Json) -> str:
        kind, inner = next(iter(bound.items()))
        if kind == "trait_bound":
            return {"maybe": "?"}.get(inner["modifier"], "") + self._path(inner["trait"])
        return inner if isinstance(inner, str) else f"use<{', '.join(map(_capture, inner))}>"

    def _path(self, path: Json) -> str:
        """A type or trait by the path that users of the crate write, or else the shortest name."""
        item = self.items.get(path["id"])
        name = item.path if item else path["path"].split("::")[-1]
        return name + self._arguments(path["args"])

    def _arguments(self, arguments: Json | None) -> str:
        if not arguments:
            return ""
        kind, inner = next(iter(arguments.items()))
        if kind == "parenthesized":
            output = f" -> {self._type(inner['output'])}" if inner["output"] else ""
            return f"({', '.join(map(self._type, inner['inputs']))}){output}"
        parts = [self._argument(one) for one in inner["args"]]
        for constraint in inner["constraints"]:
            sort, value = next(iter(constraint["binding"].items()))
            text = self._argument(value) if sort == "equality" else self._bounds(value)
            parts.append(f"{constraint['name']} {'=' if sort == 'equality' else ':'} {text}")
        return f"<{', '.join(parts)}>" if parts else ""

    def _argument(self, argument: Any) -> str:
        if isinstance(argument, str):
            return argument
        kind, inner = next(iter(argument.items()))
        if kind in ("type", "equality"):
            return self._type(inner)
        return inner if isinstance(inner, str) else str(inner.get("expr", inner))

    def _type(self, kind: Any) -> str:  # noqa: C901, PLR0912 (one case for each kind)
        if isinstance(kind, str):
            return "_"
        name, inner = next(iter(kind.items()))
        match name:
            case "resolved_path":
                return self._path(inner)
            case "generic" | "primitive":
                return inner
            case "dyn_trait":
                traits = [self._path(one["trait"]) for one in inner["traits"]]
                lifetime = [inner["lifetime"]] if inner["lifetime"] else []
                return f"dyn {' + '.join(traits + lifetime)}"
            case "impl_trait":
                return f"impl {self._bounds(inner)}"
            case "tuple":
                return f"({', '.join(map(self._type, inner))})"
            case "slice":
                return f"[{self._type(inner)}]"
            case "array":
                return f"[{self._type(inner['type'])}; {inner['len']}]"
            case "borrowed_ref":
                lifetime = f"{inner['lifetime']} " if inner["lifetime"] else ""
                return f"&{lifetime}{'mut ' if inner['is_mutable'] else ''}{self._type(inner['type'])}"
            case "raw_pointer":
                return f"*{'mut' if inner['is_mutable'] else 'const'} {self._type(inner['type'])}"
            case "qualified_path":
                trait = f" as {self._path(inner['trait'])}" if inner["trait"] else ""
                return f"<{self._type(inner['self_type'])}{trait}>::{inner['name']}"
            case "function_pointer":
                signature = inner["sig"]
                inputs = ", ".join(self._type(one) for _, one in signature["inputs"])
                return f"fn({inputs}) -> {self._type(signature['output']) if signature['output'] else '()'}"
            case _:
                raise ValueError(f"rustdoc tells of a type that this program does not know: `{name}`")


def _hidden(item: Json) -> bool:
    return any(isinstance(one, dict) and "doc(hidden)" in str(one) for one in item["attrs"])


def _capture(one: Any) -> str:
    return one if isinstance(one, str) else str(next(iter(one.values())))


def _field_keys(kind: Any) -> list[int | None]:
    if isinstance(kind, str):
        return []
    if "tuple" in kind:
        return kind["tuple"]
    return kind.get("plain", kind.get("struct"))["fields"]


def _stripped(kind: Any) -> bool:
    return isinstance(kind, dict) and bool(kind.get("plain", {}).get("has_stripped_fields"))


def _is_needed(member: Json, kind: str) -> bool:
    if kind == "function":
        return not member["inner"][kind]["has_body"]
    return member["inner"][kind].get("value") is None and member["inner"][kind].get("type") is None


def _types(value: Any) -> Iterator[int]:
    """The ids of all types and traits that are spoken of."""
    if isinstance(value, dict):
        if "path" in value and "id" in value:
            yield value["id"]
        for one in value.values():
            yield from _types(one)
    elif isinstance(value, list):
        for one in value:
            yield from _types(one)

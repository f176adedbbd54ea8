"""Graphs for Graphviz: statements for all drawings, and the drawing of any spec whose layers have `inputs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from automl.search_spaces.spec import Json

STYLE = (
    'graph [fontname="Helvetica", nodesep=0.3, ranksep=0.35]',
    'node [shape=box, style="rounded,filled", fillcolor="#eef3fa", color="#5b7ba6", fontname="Helvetica", fontsize=12]',
    'edge [color="#5b5b5b", arrowsize=0.7]',
)
PLAIN = 'shape=plaintext, style="", fontsize=13'  # for inputs and outputs
SKIP = 'color="#c0504d"'  # for a skip connection
MAX_FIELD = 40  # characters of a value in a user's layer


def graph(statements: Sequence[str], *, upwards: bool = False) -> str:
    """The source of a graph, drawn from top to bottom or upwards."""
    lines = [*STYLE, f"rankdir={'BT' if upwards else 'TB'}", *statements]
    return "digraph child {\n" + "".join(f"  {line};\n" for line in lines) + "}\n"


def cluster(name: str, title: str, statements: Sequence[str], *, upwards: bool = False) -> str:
    """A statement: a part of a graph in a frame with a title above."""
    place = "b" if upwards else "t"  # Graphviz turns the label's position with the graph
    head = f"label={quoted(title)}; labelloc={place}; color={quoted('#b5b5b5')};"
    return f"subgraph {quoted(f'cluster_{name}')} {{ {head} {' '.join(f'{line};' for line in statements)} }}"


def node(name: str, *lines: str, attributes: str = "") -> str:
    """A statement: a node with these lines as its label."""
    return f"{quoted(name)} [label={quoted(*lines)}{f', {attributes}' if attributes else ''}]"


def edge(source: str, target: str, attributes: str = "") -> str:
    """A statement: an edge between two nodes by name."""
    return f"{quoted(source)} -> {quoted(target)}{f' [{attributes}]' if attributes else ''}"


def quoted(*lines: str) -> str:
    """A quoted string of Graphviz's language that shows exactly these lines.

    It escapes backslashes, which begin an escape, and `&`, which begins an entity, and replaces control characters,
    which SVG does not allow.
    """
    shown = ("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) for line in lines)
    return (
        '"' + "\\n".join(line.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in shown) + '"'
    )


class Layer(NamedTuple):
    """A layer of any spec; `inputs` are names of layers or of inputs of the network."""

    name: str
    fields: Mapping[str, Any]
    inputs: tuple[str, ...]


def layers_dot(spec: Json) -> str | None:
    """A graph of a JSON value with layers that name their inputs; None if it has no such layers.

    The layers are a list or a dict of dicts: the value itself, or one value of the spec's dict. `inputs` of a layer is
    the number or the name of another layer, or a list of these. A layer without inputs reads the network's input.
    """
    layers = _layers_of(spec)
    if layers is None and isinstance(spec, Mapping):
        layers = next((parts for value in spec.values() if (parts := _layers_of(value)) is not None), None)
    if layers is None:
        return None
    place = {layer.name: index for index, layer in enumerate(layers)}
    statements, sources = [], dict.fromkeys(source for layer in layers for source in layer.inputs)
    outside = {source: f"from {source}" for source in sources if source not in place}
    if any(not layer.inputs for layer in layers):
        outside.setdefault("input", "from input")
    statements += [node(name, source, attributes=PLAIN) for source, name in outside.items()]
    for index, layer in enumerate(layers):
        lines = [f"{key}: {_short(value)}" for key, value in layer.fields.items()]
        statements.append(node(f"layer {layer.name}", layer.name, *lines))
        for source in layer.inputs or ("input",):
            skips = source in place and index - place[source] > 1
            start = outside.get(source, f"layer {source}")
            statements.append(edge(start, f"layer {layer.name}", SKIP if skips else ""))
    unread = [layer.name for layer in layers if layer.name not in sources]
    statements.append(node("result", "output", attributes=PLAIN))
    statements += [edge(f"layer {name}", "result") for name in unread]
    return graph(statements)


def _layers_of(value: Any) -> list[Layer] | None:
    if isinstance(value, Mapping) and value and all(isinstance(part, Mapping) for part in value.values()):
        named = [(str(name), part) for name, part in value.items()]
    elif isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        names = [str(part.get("name", index)) for index, part in enumerate(value)]
        if len(set(names)) < len(names):
            names = [str(index) for index in range(len(value))]
        named = list(zip(names, value, strict=True))
    else:
        return None
    if not any("inputs" in part for _, part in named):
        return None
    layers = []
    for name, part in named:
        inputs = part.get("inputs")
        given = inputs if isinstance(inputs, list) else [] if inputs is None else [inputs]
        sources = [_source(source, [name for name, _ in named]) for source in given]
        if None in sources:
            return None
        fields = {key: field for key, field in part.items() if key not in ("inputs", "name")}
        layers.append(Layer(name, fields, tuple(dict.fromkeys(source for source in sources if source is not None))))
    return layers


def _source(source: Any, names: Sequence[str]) -> str | None:
    """The name of an input of a layer; None if it is neither a name nor a layer's number."""
    if isinstance(source, str):
        return source
    if isinstance(source, int) and not isinstance(source, bool):
        return names[source] if 0 <= source < len(names) else "input" if source == -1 else None
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_FIELD else f"{text[: MAX_FIELD - 1]}…"

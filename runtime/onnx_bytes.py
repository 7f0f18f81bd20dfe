"""Checks an ONNX file before any engine reads it: it must be whole, undamaged, and a network that dlink wrote.

The file is read as protobuf (https://protobuf.dev/programming-guides/encoding, field numbers from onnx.proto). That
needs no library, so every command on every machine refuses the same files:

- `dlink.digest` in the metadata is a SHA-256 of everything that runs or that dlink reads, which is all but other
  programs' metadata. It finds damage (a bad SD card), not malice: who changes a file can also write a new digest.
- No tensor may keep its data in another file, because an engine would read whatever file is named.
- The operators are those of our networks and of those from elsewhere that export takes, and no node holds a subgraph,
  so nothing can loop.
- There is one input, the image, and one output, the roads, of the Spec's size.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlink.runtime.errors import BadModel
from dlink.runtime.files import refuse_checkpoint
from dlink.runtime.spec import Spec

DIGEST_KEY = "dlink.digest"
OURS = b"dlink."  # prefix of our metadata keys
PART = 4 << 20  # bytes of one part of the digest; parts are hashed in parallel threads
DEEPEST = 48  # messages within messages; ours are four deep
OPERATORS = {"Add", "Cast", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "MatMul", "MaxPool", "Mul", "Relu"}
OPERATORS |= {"Identity", "Sigmoid", "DequantizeLinear", "QuantizeLinear"}
# Of networks from elsewhere: they compute values from values, so nothing loops there either.
FOREIGN = {"Abs", "AveragePool", "Clip", "Div", "Elu", "Erf", "Exp", "Expand", "Gather", "Gemm", "GlobalAveragePool"}
FOREIGN |= {"GlobalMaxPool", "HardSigmoid", "HardSwish", "InstanceNormalization", "LayerNormalization", "LeakyRelu"}
FOREIGN |= {"Log", "Max", "Min", "Neg", "PRelu", "Pad", "Pow", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum"}
FOREIGN |= {"Reshape", "Resize", "Selu", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt", "Squeeze"}
FOREIGN |= {"Sub", "Tanh", "Tile", "Transpose", "Unsqueeze"}
OPERATORS |= FOREIGN
FLOAT, EXTERNAL = 1, 1  # TensorProto.FLOAT and TensorProto.EXTERNAL

# The fields of each message that are messages and can hold a tensor.
WITHIN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
}
MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
NODE_OPERATOR, NODE_DOMAIN = 4, 7
TENSOR_NAME, TENSOR_EXTERNAL, TENSOR_LOCATION = 8, 13, 14


@dataclass(frozen=True)
class OnnxFile:
    """A checked file: the bytes that were checked, the metadata and the Spec."""

    path: Path
    data: bytes
    metadata: Mapping[str, str]
    spec: Spec


@dataclass
class Contents:
    """What a file holds, as far as it is checked."""

    graphs: int = 0
    operators: set[str] = field(default_factory=set)
    external: list[str] = field(default_factory=list)  # names of tensors whose data is in another file
    inputs: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)  # type and shape, 0: a free dimension
    outputs: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)


class Damaged(Exception):
    """The bytes are not valid protobuf."""


def read_onnx(path: Path) -> OnnxFile:
    """Read a file that dlink-export or dlink-calibrate wrote. Any other file raises BadModel."""
    refuse_checkpoint(path)
    data = path.read_bytes()
    if not data:
        raise BadModel(f"{path}: an empty file; copy it again, or export it again")
    try:
        props = metadata_of(data)
        metadata = {str(key, "utf-8"): str(value, "utf-8") for key, value in props.items()}
        contents, digest = contents_of(data), metadata.get(DIGEST_KEY)
        whole = digest is None or digest == digest_of(data)
    except Damaged as e:
        raise BadModel(f"{path}: not an ONNX model, or a damaged one: {e}; export it again") from e
    except UnicodeDecodeError as e:
        raise BadModel(f"{path}: damaged: its metadata is not text; export it again") from e
    if contents.external:
        name = contents.external[0][:40]
        raise BadModel(f"{path}: its weights are in another file ({name}); write one file with dlink-export")
    if not whole:
        raise BadModel(f"{path}: damaged, or changed since dlink wrote it; copy it again, or export it again")
    spec = Spec.of_onnx(metadata, path)
    if digest is None:
        raise BadModel(f"{path}: has no {DIGEST_KEY}, so damage would not show; export it again with this dlink")
    check_contents(contents, spec, path)
    return OnnxFile(path, data, metadata, spec)


def check_contents(contents: Contents, spec: Spec, path: Path) -> None:
    """Raise BadModel for a graph that dlink would not write."""
    if strange := sorted(contents.operators - OPERATORS):
        names = ", ".join(strange)[:80]
        raise BadModel(f"{path}: has operators that no network of dlink has: {names}; export it with dlink-export")
    side, planes = spec.tile, len(spec.bands)
    ends = [*contents.inputs, *contents.outputs]
    one_each = (len(contents.inputs), len(contents.outputs), contents.graphs) == (1, 1, 1)
    fits = [(kind, shape[1:]) for kind, shape in ends] == [(FLOAT, (planes, side, side)), (FLOAT, (1, side, side))]
    if not (one_each and fits and {shape[0] for _, shape in ends} <= {0, 1}):
        shapes = " and ".join(in_words(kind, shape) for kind, shape in ends)[:200]
        raise BadModel(
            f"{path}: its inputs and outputs are {shapes or 'missing'}, its spec wants "
            f"{in_words(FLOAT, (0, planes, side, side))} and {in_words(FLOAT, (0, 1, side, side))}; export it again"
        )


def in_words(kind: int, shape: tuple[int, ...]) -> str:
    return f"{'float32' if kind == FLOAT else f'type {kind}'} [{', '.join(str(n or '?') for n in shape)}]"


def sealed(model: bytes) -> bytes:
    """A serialised model with a fresh digest."""
    kept = b"".join(span for key, span in spans(memoryview(model)) if key != DIGEST_KEY.encode())
    entry = chunk(1, DIGEST_KEY.encode()) + chunk(2, digest_of(kept).encode())
    return kept + chunk(MODEL_METADATA, entry)


def write_sealed(model: bytes, path: Path) -> None:
    """Write a serialised model, sealed. Not atomic: see `replacing`."""
    path.write_bytes(sealed(model))


def digest_of(data: bytes) -> str:
    """SHA-256 (hexadecimal) of the parts' SHA-256s, over all top-level fields but the digest and foreign metadata."""
    parts = []
    for key, span in spans(memoryview(data)):
        if key is None or (key.startswith(OURS) and key != DIGEST_KEY.encode()):
            parts += [span[i : i + PART] for i in range(0, len(span), PART)]
    with ThreadPoolExecutor() as pool:
        whole = hashlib.sha256(b"".join(pool.map(lambda part: hashlib.sha256(part).digest(), parts)))
    return whole.hexdigest()


def spans(model: memoryview) -> Iterator[tuple[bytes | None, memoryview]]:
    """The bytes of each top-level field, with its key if it is metadata."""
    for number, value, span in fields(model):
        key = entry_of(value)[0] if number == MODEL_METADATA and not isinstance(value, int) else None
        yield key, span


def metadata_of(data: bytes) -> dict[bytes, bytes]:
    """The metadata. One of our keys twice is damage."""
    entries: dict[bytes, bytes] = {}
    for number, entry, _ in fields(memoryview(data)):
        if number == MODEL_METADATA and not isinstance(entry, int):
            key, value = entry_of(entry)
            if key in entries and key.startswith(OURS):
                raise Damaged(f"it has {str(key, errors='replace')} twice")
            entries[key] = value
    return entries


def entry_of(entry: memoryview) -> tuple[bytes, bytes]:
    """Key and value of a StringStringEntryProto."""
    parts = {number: bytes(value) for number, value, _ in fields(entry) if not isinstance(value, int)}
    return parts.get(1, b""), parts.get(2, b"")


def contents_of(data: bytes) -> Contents:
    """Everything in a model that read_onnx checks."""
    contents = Contents()
    for kind, message in walk("model", memoryview(data), 0):
        if kind == "graph":
            contents.graphs += 1
        elif kind == "node":
            contents.operators.add(operator_of(message))
        elif kind in ("function", "training", "sparse"):
            contents.operators.add(f"a {kind}")
        elif kind == "tensor" and (name := external_name(message)) is not None:
            contents.external.append(name)
    for number, graph, _ in fields(memoryview(data)):
        if number == MODEL_GRAPH and not isinstance(graph, int):
            for end, value, _ in fields(graph):
                if end in (GRAPH_INPUT, GRAPH_OUTPUT) and not isinstance(value, int):
                    (contents.inputs if end == GRAPH_INPUT else contents.outputs).append(type_and_shape(value))
    return contents


def walk(kind: str, message: memoryview, depth: int) -> Iterator[tuple[str, memoryview]]:
    """A message and all messages within it, to a depth of DEEPEST."""
    if depth > DEEPEST:
        raise Damaged("messages within messages without end")
    yield kind, message
    kinds = WITHIN[kind]
    for number, value, _ in fields(message) if kinds else ():
        if number in kinds and not isinstance(value, int):
            yield from walk(kinds[number], value, depth + 1)


def operator_of(node: memoryview) -> str:
    """The operator's name, after its domain where that is not ONNX's own."""
    name, domain = (text(bytes_field(node, number)) for number in (NODE_OPERATOR, NODE_DOMAIN))
    return name if domain in ("", "ai.onnx") else f"{domain}.{name}"


def external_name(tensor: memoryview) -> str | None:
    """The name of a tensor whose data is in another file; None for any other tensor."""
    name, out = "", False
    for number, value, _ in fields(tensor):
        if number == TENSOR_NAME:
            name = text(value)
        out |= number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value == EXTERNAL)
    return name if out else None


def type_and_shape(info: memoryview) -> tuple[int, tuple[int, ...]]:
    """Element type and shape of a ValueInfoProto; a free dimension is 0."""
    tensor = bytes_field(bytes_field(info, 2), 1)
    kind = number_field(tensor, 1)
    dims = [value for number, value, _ in fields(bytes_field(tensor, 2)) if number == 1 and not isinstance(value, int)]
    return kind, tuple(number_field(dim, 1) for dim in dims)


def bytes_field(message: memoryview, wanted: int) -> memoryview:
    """The bytes of a field; empty where the message lacks it."""
    value = single_field(message, wanted, memoryview(b""))
    if isinstance(value, int):
        raise Damaged("a number where text or a message should be")
    return value


def number_field(message: memoryview, wanted: int) -> int:
    """The number of a field; 0 where the message lacks it."""
    value = single_field(message, wanted, 0)
    if not isinstance(value, int):
        raise Damaged("no number where one should be")
    return value


def single_field(message: memoryview, wanted: int, missing: int | memoryview) -> int | memoryview:
    """The value of a field. Protobuf would take the last of several or merge them; no writer does that, so refuse."""
    values = [value for number, value, _ in fields(message) if number == wanted]
    if len(values) > 1:
        raise Damaged("a field twice that can only be there once")
    return values[0] if values else missing


def text(value: Any) -> str:
    return str(value) if isinstance(value, int) else str(value, "utf-8", "replace")


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Each field's number, its value (bytes or a number) and the whole field as it stands."""
    at = 0
    while at < len(message):
        start = at
        tag, at = varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == 0:
            value, at = varint(message, at)
        elif wire in (1, 2, 5):
            size, at = varint(message, at) if wire == 2 else (8 if wire == 1 else 4, at)
            value, at = message[at : at + size], at + size
            if wire != 2:  # a number of fixed size
                value = int.from_bytes(value, "little")
        else:
            raise Damaged(f"a field of wire type {wire}")
        if at > len(message) or not number:
            raise Damaged("a field that reaches beyond its end" if number else "a field of number 0")
        yield number, value, message[start:at]


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 1 to 10 bytes with 7 bits each, and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise Damaged("a number that does not end")


def chunk(number: int, data: bytes) -> bytes:
    """A field of bytes, serialised."""
    return encoded(number << 3 | 2) + encoded(len(data)) + data


def encoded(value: int) -> bytes:
    """A number as a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])

"""A graph that passes can read and change: who makes a tensor, who reads it, what is constant, which shape it has.

Everything a pass may assume is answered here, so that no pass has to know protobuf. An editor works on a model in
place; `finish` brings the nodes into order and drops what nothing reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError

if TYPE_CHECKING:
    import onnx

__all__ = ["GraphEditor", "infer_shapes", "opset_of"]

# Initializers above this size never decide a shape; without them inference copies kilobytes, and protobuf's limit of
# 2 GiB does not apply.
_SHAPE_BYTES = 1024

Shape = tuple[int, ...]


class GraphEditor:
    """One model while it is rewritten.

    Attributes:
        model: what is edited, in place.
        nodes: its nodes; passes may append to the list, `finish` sorts it.
        producers: the node that makes a tensor.
        consumers: the nodes that read a tensor, once for each input that does.
        fixed: names that must keep existing: outputs of the graph, and what control flow inside nodes refers to.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = opset_of(model)
        self._index()

    def _index(self) -> None:
        graph = self.model.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for value in graph.input:  # before IR version 4 initializers had to be listed as inputs, too
            if self.model.ir_version >= 4:
                self.constants.pop(value.name, None)  # a default that the caller may replace is no constant
        self.fixed = {value.name for value in graph.output} | set(_inner_names(self.nodes))
        self._names = {*self.producers, *self.constants, *self.consumers, *(v.name for v in graph.input)}
        self._shapes: dict[str, Shape] | None = None

    def shape(self, name: str) -> Shape | None:
        """Shape of a tensor, 0 for a size that is not known before the network runs; None if nothing is known."""
        if self._shapes is None:
            self._shapes = infer_shapes(self.model)
        return self._shapes.get(name)

    def array(self, name: str) -> NDArray[Any] | None:
        """Value of a constant, or None."""
        import onnx

        tensor = self.constants.get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    def maker(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, if it is of one of these kinds."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in kinds and node.domain in ("", "ai.onnx") else None

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The node that reads a tensor, if there is exactly one and the graph does not return it."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.fixed else None

    def private_maker(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """`maker`, if nothing but one node reads what it makes: it may then be changed or removed."""
        return self.maker(name, *kinds) if self.only_reader(name) is not None else None

    def unique(self, name: str) -> str:
        """This name, with a number where it is taken; it is taken from now on."""
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found

    def add_constant(self, value: NDArray[Any], name: str) -> str:
        """A new initializer; its name."""
        import onnx

        name = self.unique(name)
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        self.model.graph.initializer.append(tensor)
        self.constants[name] = tensor
        return name

    def add_node(
        self, kind: str, inputs: Sequence[str], name: str, *, output: str | None = None, **attributes: Any
    ) -> str:
        """A new node of one output; the name of that output."""
        output = self.unique(f"{name}_output_0") if output is None else output
        self.insert(kind, inputs, name, [output], **attributes)
        return output

    def insert(self, kind: str, inputs: Sequence[str], name: str, outputs: Sequence[str], **attributes: Any) -> None:
        """A new node with these outputs."""
        import onnx

        node = onnx.helper.make_node(kind, list(inputs), list(outputs), name, **attributes)
        self.nodes.append(node)
        for made in outputs:
            self.producers[made] = node
        for read in inputs:
            self.consumers.setdefault(read, []).append(node)

    def remove(self, *nodes: onnx.NodeProto) -> None:
        """Take nodes out; what they made must have another maker by the time of `finish`, or no reader."""
        for node in nodes:
            self.nodes = [other for other in self.nodes if other is not node]
            for name in node.output:
                if self.producers.get(name) is node:
                    del self.producers[name]
            for name in node.input:
                self.consumers[name] = [other for other in self.consumers[name] if other is not node]

    def set_input(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Let a node read another tensor, or one more where `index` is how many it reads."""
        if index < len(node.input):
            readers = self.consumers[node.input[index]]
            readers.pop(next(i for i, other in enumerate(readers) if other is node))
            node.input[index] = name
        else:
            node.input.append(name)
        self.consumers.setdefault(name, []).append(node)

    def redirect(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new` instead. Not for outputs of the graph (`fixed`)."""
        for node in self.consumers.pop(old, []):
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new
                    self.consumers.setdefault(new, []).append(node)

    def finish(self) -> None:
        """Write the nodes back in an order that can be executed, without nodes and initializers that nothing reads.

        Raises:
            HnxError: a pass left a tensor without a maker; it is a bug of that pass.
        """
        graph = self.model.graph
        nodes = list(_ordered(self._living(), {*self.constants, *(v.name for v in graph.input), ""}))
        read = {name for node in nodes for name in node.input} | self.fixed
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        if len(kept) != len(graph.initializer):
            del graph.initializer[:]
            graph.initializer.extend(kept)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]  # may speak of tensors that are gone
        self._index()

    def _living(self) -> list[onnx.NodeProto]:
        wanted, stack = set[int](), [self.producers[name] for name in self.fixed if name in self.producers]
        while stack:
            node = stack.pop()
            if id(node) not in wanted:
                wanted.add(id(node))
                names = (*node.input, *_inner_names([node]))
                stack += [self.producers[name] for name in names if name in self.producers]
        return [node for node in self.nodes if id(node) in wanted]


def _inner_names(nodes: Sequence[onnx.NodeProto]) -> Iterator[str]:
    """Names that the graphs inside If, Loop and Scan read; some of them belong to the graph outside."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                for inner in graph.node:
                    yield from inner.input
                yield from (value.name for value in graph.output)
                yield from _inner_names(list(graph.node))


def _ordered(nodes: list[onnx.NodeProto], known: set[str]) -> Iterator[onnx.NodeProto]:
    """Each node after those whose outputs it reads, otherwise in the order given (Kahn 1962)."""
    made_here = {name for node in nodes for name in node.output}
    waiting: dict[str, list[int]] = {}
    missing: list[int] = []
    ready: list[int] = []
    for index, node in enumerate(nodes):
        names = {*node.input, *(name for name in _inner_names([node]) if name in made_here)} - known
        missing.append(len(names))
        for name in names:
            waiting.setdefault(name, []).append(index)
        if not names:
            ready.append(index)
    ready.reverse()
    count = 0
    while ready:
        node = nodes[ready.pop()]
        count += 1
        yield node
        freed = []
        for name in node.output:
            for index in waiting.pop(name, []):
                missing[index] -= 1
                if not missing[index]:
                    freed.append(index)
        ready += sorted(freed, reverse=True)
    if count != len(nodes):
        raise HnxError(
            "A graph rewrite left a tensor that no node makes",
            why=", ".join(sorted(waiting)[:3]),
            fix="leave the rewrite out with --rewrite, and report this",
        )


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that the model uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def infer_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of all tensors by name; 0 stands for a free size."""
    import onnx

    skeleton = onnx.ModelProto()
    skeleton.ir_version = model.ir_version
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph, source = skeleton.graph, model.graph
    graph.name = source.name
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    listed = {value.name for value in source.input}
    for tensor in source.initializer:
        size = len(tensor.raw_data) or 8 * int(np.prod(tensor.dims, dtype=np.int64))
        if size <= _SHAPE_BYTES and not tensor.external_data:
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    found = onnx.shape_inference.infer_shapes(skeleton).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in source.initializer}
    for value in (*found.value_info, *found.input, *found.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            shapes[value.name] = tuple(dimension.dim_value for dimension in kind.shape.dim)
    return shapes

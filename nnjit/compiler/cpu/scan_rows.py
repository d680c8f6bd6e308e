"""A scan whose threads share the rows: all time steps for a chunk of batch rows.

What a step leaves for the next one lies in buffers of (batch, k): the last carries, where they are
wanted, else work memory. A block of rows goes through all time steps before the next block, so that
these rows stay in L2.
"""

from __future__ import annotations

from nnjit.compiler.cpu.scan_text import ScanText, factor
from nnjit.compiler.cpu.scan_views import width
from nnjit.compiler.cpu.text import dim_text, times
from nnjit.compiler.cpu.values import Lines
from nnjit.compiler.groups import Buffer
from nnjit.graph import Node
from nnjit.kernels.blocks import Tiles
from nnjit.kernels.recurrent import BLOCK, Operand, StepProduct, pack_matrix, product_lines
from nnjit.kernels.target import CODES


class RowsScan(ScanText):
    """Rows lo..hi, block after block."""

    def bind(self) -> None:
        self.initial: dict[int, str] = {}
        self.waiting: dict[int, Operand] = {}
        self.bind_inputs()
        self.pack()
        self.bind_carries()
        self.bind_results()

    def work(self, name: str, n: Node) -> Buffer:
        """Memory of one Node's rows."""
        return self.low.work(f"scan {name}", times(self.batch, width(n)), n.dtype)

    def pack(self) -> None:
        """One launch for each matrix, and the parameters of what they write."""
        made: dict[tuple[Node, bool], str] = {}
        for p in self.body.products:
            matrix, turned = self.outer[p.inputs[1]], p.attrs["transpose_b"]
            if (matrix, turned) not in made:
                depth, columns, code = width(p.inputs[0]), width(p), CODES[p.dtype]
                template, size = pack_matrix(depth, columns, turned, code)
                packed = self.low.work("packed", size, p.dtype)
                self.low.emit(
                    template, [self.low.buffer(matrix), packed], [1], self.nodes, "pack scan"
                )
                made[matrix, turned] = self.params.add(f"w{len(made)}", packed)
            self.matrices[p] = made[matrix, turned]

    def bind_carries(self) -> None:
        """Where carries lie, their initial values, and where next ones wait."""
        for i, (carry, n) in enumerate(zip(self.body.carries, self.body.next, strict=True)):
            if n is None:
                continue
            self.initial[i] = self.params.add(f"h{i}", self.low.buffer(self.first[i]))
            result = self.results.get(("last", i))
            b = self.work(f"carry {i}", carry) if result is None else self.low.buffer(result)
            name = self.params.add(f"c{i}", b, written=True)
            self.places[carry] = Operand(name, width(carry))
            if i in self.plan.waiting:
                b = self.work(f"next {i}", carry)
                self.waiting[i] = Operand(self.params.add(f"n{i}", b, True), width(carry))
            if n is not carry and self.plan.direct.get(n) != i:
                target = self.waiting.get(i, self.places[carry])
                self.targets.setdefault(n, []).append(target)

    def bind_results(self) -> None:
        """Where products, operands and stacked results lie."""
        for product, i in self.plan.direct.items():
            self.places[product] = self.places[self.body.carries[i]]
        for k, n in enumerate(self.plan.homes):
            letter = "z" if n.op.name == "matmul" else "a"
            name = self.params.add(f"{letter}{k}", self.work(f"{letter}{k}", n), written=True)
            self.home(n, Operand(name, width(n)))
        self.bind_stacked()

    def write(self, lines: Lines, tiles: dict[str, Tiles]) -> None:
        """Blocks of rows, time steps, products and passes."""
        lines.loop("first", "lo", "hi", str(BLOCK))
        lines.add(f"last = min(hi, first + {BLOCK})")
        for i, source in self.initial.items():
            carry = self.places[self.body.carries[i]]
            self.copy(lines, carry, Operand(source, carry.width))
        steps = dim_text(self.time)
        if self.reverse:
            first = str(self.time - 1) if isinstance(self.time, int) else f"{steps} - 1"
            lines.loop("t", first, "-1", "-1")
        else:
            lines.loop("t", "0", steps)
        lines.add(f"at = t * {factor(self.batch)}")
        for k, product in enumerate([*self.body.products, None]):
            found = self.plan.pass_before(k)
            if found is not None:
                self.write_pass(lines, found)
            if product is not None:
                for line in product_lines(self.step_product(product), tiles[product.dtype]):
                    lines.add(line)
        for i, waiting in self.waiting.items():
            self.copy(lines, self.places[self.body.carries[i]], waiting)

    def step_product(self, n: Node) -> StepProduct:
        a, y = self.places[n.inputs[0]], self.places[n]
        return StepProduct(a, self.matrices[n], y, a.width, y.width, CODES[n.dtype])

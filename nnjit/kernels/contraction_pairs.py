"""The operands of a product of bfloat16, as pairs that follow each other along k.

b is packed always. a is read as it is where its rows hold whole pairs; else it is laid out before:
where it is transposed (for AMX in blocks), where k is odd or known only when running, where it is
float32.
"""

from __future__ import annotations

from dataclasses import replace

from nnjit.kernels import amx_tile, target
from nnjit.kernels.blocks import Dim, halved, product
from nnjit.kernels.contraction_product import Product
from nnjit.kernels.packing_pairs import (
    block_pairs,
    pack_pairs,
    pack_pairs_transposed,
    packed_pairs,
    pair_rows,
    pair_transposed,
    transposed_pairs,
)
from nnjit.kernels.recipe import Step

Temps = dict[str, tuple[Dim, str]]


def pair_operands(
    p: Product, transpose_a: bool, transpose_b: bool
) -> tuple[Product, list[Step], Temps]:
    """The product in pairs, the steps that lay out a and b, and the buffers that they fill.

    p: the product with K in elements and the dtypes that its operands are stored in.
    """
    a, b, y = p.stored[0] or "b2", p.stored[1] or "b2", p.stored[2] or "f4"
    if y == "b2" and p.epilogue.tail is not None and p.epilogue.operand:
        raise ValueError(
            f"a bfloat16 result with final={p.epilogue.final!r} and a tail: the tail has to do both"
        )
    M, N, K, deep = p.M, p.N, p.K, halved(p.K)
    # what a batch of transposed matrices is made of stays in columns
    blocks = target.multiplies_blocks() and not (transpose_a and p.batch is not None)
    row_a, step_a = (1, M) if transpose_a else (deep, 1)
    block_a: Dim = 0
    if blocks:
        rows, vectors = amx_tile.choose(M, N)
        p = replace(p, rows=rows, vectors=vectors, kind="amx_tile")
    steps: list[Step] = []
    temps: Temps = {}
    copies: Dim = p.batch if p.batch is not None and p.batch_a else 1
    if transpose_a and blocks:
        steps.append(Step(pair_transposed(K, M, a), ("a", "pairs_a")))
        temps["pairs_a"] = (transposed_pairs(K, M), "u4")
        row_a, step_a, block_a = amx_tile.SIDE, amx_tile.MOST_ROWS, block_pairs(K)
    elif transpose_a:
        columns = pack_pairs(K, M, 0, a, copies=copies, stem="pair_columns")
        steps.append(Step(columns, ("a", "pairs_a")))
        temps["pairs_a"] = (product(copies, deep, M), "u4")
    elif a == "f4" or isinstance(K, str) or K % 2:
        whole = product(copies, M)
        steps.append(Step(pair_rows(whole, K, a), ("a", "pairs_a")))
        temps["pairs_a"] = (product(2, whole, deep), "b2")
    copies = p.batch if p.batch is not None and p.batch_b else 1
    pack = pack_pairs_transposed if transpose_b else pack_pairs
    steps.append(Step(pack(K, N, p.vectors, b, copies=copies), ("b", "packed_b")))
    temps["packed_b"] = (product(copies, packed_pairs(K, N)), "u4")
    stored = (temps["pairs_a"][1] if "pairs_a" in temps else a, "u4", y)
    p = replace(p, K=deep, row_a=row_a, step_a=step_a, packed=True, stored=stored)
    return replace(p, block_a=block_a), steps, temps

"""The table of attention cases: one shape each, along one axis at a time from B=32, H=8, D=64.

They are the consumer of what RoboCache makes: a policy's `scaled_dot_product_attention` over batches of B sequences of
S steps and H * D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .cases import Case, StreamSpec, matching

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
BACKENDS = ("math", "flash", "efficient", "cudnn")


@dataclass(frozen=True)
class AttentionCase:
    """Queries, keys and values [B, H, S, D] of one dtype."""

    seq: int
    batch: int = 32
    heads: int = 8
    width: int = 64  # of a head
    dtype: str = "bf16"
    causal: bool = False
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def name(self) -> str:
        told = f"attention-{self.batch}x{self.heads}x{self.seq}x{self.width}-{self.dtype}"
        return ("cpu-" if "cpu" in self.tags else "") + told + ("-causal" if self.causal else "")

    @property
    def flops(self) -> int:
        """Multiplications and additions of both products; a causal mask halves them."""
        return 4 * self.batch * self.heads * self.seq**2 * self.width // (2 if self.causal else 1)

    @property
    def score_bytes(self) -> int:
        """Bytes of the scores in fp32, which the math backend holds in memory."""
        return 4 * self.batch * self.heads * self.seq**2

    @property
    def align(self) -> Case:
        """The alignment that makes such a batch: S steps out of 2 * S samples, H * D features."""
        columns = self.heads * self.width
        spec = StreamSpec(2 * self.seq, columns, self.dtype)
        name = f"align-{self.batch}x{2 * self.seq}x{columns}-{self.seq}-{self.dtype}"
        return Case(name, self.batch, self.seq, (spec,))

    def describe(self) -> dict[str, Any]:
        """Plain data for a results file."""
        return {
            "op": "attention",
            "batch": self.batch,
            "heads": self.heads,
            "seq": self.seq,
            "width": self.width,
            "dtype": self.dtype,
            "causal": self.causal,
            "flops": self.flops,
            "tags": sorted(self.tags),
        }

    def scaled(self, batch: int, limit: int) -> AttentionCase:
        """The same case made small."""
        return replace(self, batch=min(self.batch, batch), seq=min(self.seq, limit))


_GPU, _CPU = frozenset({"gpu"}), frozenset({"cpu"})


def _cases() -> tuple[AttentionCase, ...]:
    rows = [
        *(AttentionCase(seq, tags=_GPU) for seq in LENGTHS),
        *(AttentionCase(seq, causal=True, tags=_GPU) for seq in LENGTHS[2::2]),
        *(AttentionCase(512, heads=heads, tags=_GPU) for heads in (1, 2, 4, 16, 32)),
        *(AttentionCase(512, batch=batch, tags=_GPU) for batch in (1, 4, 8, 64, 128)),
        *(AttentionCase(512, dtype=dtype, tags=_GPU) for dtype in ("fp16", "fp32")),
        *(AttentionCase(seq, batch=2, dtype="fp32", tags=_CPU) for seq in LENGTHS[:4]),
        AttentionCase(256, batch=2, tags=_CPU),
        AttentionCase(256, batch=2, dtype="fp32", causal=True, tags=_CPU),
    ]
    return tuple(rows)


CASES = _cases()


def select(device: str, pattern: str | None = None) -> list[AttentionCase]:
    """Cases meant for `device` whose name matches; without a pattern all of them."""
    return matching(CASES, device, pattern)

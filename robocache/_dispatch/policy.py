"""Which side computes a call on host tensors, and who said so.

Order of authority: the call's own `backend`, the innermost `robocache.dispatch`, ROBOCACHE_BACKEND, the tuned file, the
defaults. Whoever leaves it open ("auto") passes the question on. The tuned file's answer is corrected by what calls of
the same kind took (see `measured`). What cannot or must not go to the GPU (see
`_obstacle`) stays on the CPU where the question reached the model, and raises where a side was named.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import points, settings
from .calls import STAGED, Undescribed, Workload, describe, signature, tensors_in
from .defaults import default_model
from .device import CudaDevice, Device
from .measured import CLOSE, Memory, Plan, Record, Weighed
from .model import CostModel, Estimates

BAND = 0.05  # the other side must look this much better before a choice changes
SETTLED_RATIO = 1.25  # a call whose CPU time is this far below the GPU's is not weighed again
_MOST_KEPT = 4096
_ROOM_ASKED = 64 << 20  # bytes moved, from which asking for free memory costs nothing to speak of
_RESTS = Plan("cpu")
_WATCHED = "a torch mode, transform or tracer is active"


class Decision(NamedTuple):
    """Where a call is computed and why.

    Attributes:
        side: "cpu", "cuda", or the backend that the call names.
        result: "host" or "device": where its answer goes.
        authority: "argument", "context", "environment", "file", "default", or "rule".
        reason: the same in a sentence.
        estimates: what both sides would take; None where they were not asked for.
        load: what the call moves and computes, where it is known.
        source: where the estimates come from.
        held: True where only the band kept the side.
        obstacle: why the GPU cannot take the call, where a side was named that needs it; the call then raises.
        record: what calls like this one took, where they are timed.
        plan: this call's part in it; where it is timed, whoever carries it out answers by `record.note` or `give_up`.
    """

    side: str
    result: str
    authority: str
    reason: str
    estimates: Estimates | None = None
    load: Workload | None = None
    source: str = ""
    held: bool = False
    obstacle: str | None = None
    record: Record | None = None
    plan: Plan | None = None


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, torch.nn.Parameter) and tensor.is_cpu and tensor.layout == torch.strided


def _something_watches() -> bool:
    """Whether a mode, a transform or a tracer is active: the call is then theirs."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
    )


def _tensors(arguments: Mapping[str, Any]) -> list[Tensor]:
    return tensors_in(list(arguments.values()))


def _in_a_loader_worker() -> bool:
    return torch.utils.data.get_worker_info() is not None


class Policy:
    """Decides call by call. One serves a process; all of its methods may be used from several threads at once.

    Args:
        device: the GPU.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._models: dict[Any, CostModel] = {}
        self._last: dict[tuple[str, str], str] = {}  # side by (operation, result)
        # Signatures of calls that stay on the CPU: their record where they are timed, and how many page-locked bytes
        # they must have; None where that is all the same.
        self._settled: dict[Any, tuple[Record | None, int | None]] = {}
        self._weighed = Memory(_MOST_KEPT)
        self._lock = threading.Lock()
        self._has_files: bool | None = None

    # ---- The model ------------------------------------------------------------------------------------------------

    def has_files(self) -> bool:
        """Whether anything was ever tuned here, for whatever set-up."""
        if self._has_files is None:
            self._has_files = bool(points.others())
        return self._has_files

    def model(self) -> CostModel:
        """That of the tuned file for the device and the threads in use, else the default one."""
        threads = torch.get_num_threads()
        if self.device.why_not() is not None:
            return default_model(threads)
        where = (self.device.name(), threads)
        model = self._models.get(where)
        if model is None:
            with self._lock:
                if where not in self._models:
                    found = points.load(self.device.key())
                    self._models[where] = (
                        default_model(threads) if found is None else points.model_of(found[0], found[1].name)
                    )
                model = self._models[where]
        return model

    def model_if_known(self) -> CostModel:
        """The model, without starting CUDA for it: the default one where neither file nor process calls for it."""
        if self.device.started() or self.has_files():
            return self.model()
        return default_model(torch.get_num_threads())

    def forget(self) -> None:
        """Reads the tuned files anew at the next call, and forgets which side was last taken and what calls took."""
        with self._lock:
            self._models.clear()
            self._last.clear()
            self._settled.clear()
            self._weighed.clear()
            self._has_files = None

    # ---- Rules ----------------------------------------------------------------------------------------------------

    def _obstacle(self, arguments: Mapping[str, Any], tensors: Sequence[Tensor]) -> str | None:
        """Why a call on these tensors cannot make the round trip, whoever asks for it."""
        if arguments.get("out") is not None:
            return "out= is given, which lies on the host"
        for tensor in tensors:
            if not _is_plain(tensor):
                return "an argument is no plain CPU tensor"
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return "a gradient is wanted"
        if _something_watches():
            return _WATCHED
        reason = self.device.why_not()
        if reason is not None:
            return f"no GPU can be used: {reason}"
        if self.device.capturing():
            return "the current stream records a CUDA graph"
        return None

    def _reluctance(self, load: Workload, result: str) -> str | None:
        """Why the model leaves a call on the CPU that it would send to the GPU."""
        if result == "host" and self.device.queued():
            return "the GPU's current stream has work that the answer would wait behind"
        moved = load.pageable + load.pinned + load.bytes_out
        if moved >= _ROOM_ASKED:
            needed = 3 * moved  # the tensors themselves, and what kernels put beside them
            room = self.device.room()
            if needed > room:
                return f"the call may need {needed >> 20} MiB of GPU memory, and {room >> 20} MiB are free"
        return None

    # ---- Decisions ------------------------------------------------------------------------------------------------

    def is_settled(self, op: str, arguments: Mapping[str, Any]) -> bool:
        """Whether a call like this one is known to stay on the CPU, in any kind of host memory, and needs no timing."""
        try:
            record, locked = self._settled[signature(op, arguments)]
        except (KeyError, TypeError, AttributeError):  # not known; or something unhashable, or wrong
            return False
        if record is None:
            return True
        if locked is not None and self._bytes_in(_tensors(arguments))[1] != locked:
            return False
        return record.side == "cpu" and record.rests()

    def decide(self, op: str, arguments: Mapping[str, Any], remember: bool = True) -> Decision:
        """The side of a call on host tensors.

        Args:
            op: one of calls.OPERATIONS.
            arguments: the public function's arguments by name, all of them.
            remember: False asks only: the next call's choice is not touched.

        Raises:
            ValueError: ROBOCACHE_BACKEND is not one of settings.SIDES.
        """
        said = settings.current()
        result = said.result or "host"
        backend = arguments.get("backend", "auto")
        if backend != "auto":
            return Decision(str(backend), result, "argument", f"the call says backend={backend!r}")
        environment = settings.environment()
        side, authority, reason = said.backend, "context", f"robocache.dispatch(backend={said.backend!r}) holds"
        if side is None:
            side, authority = environment, "environment"
            reason = f"{settings.VARIABLE} is {environment!r}"
        if side in ("cpu", "cuda"):
            obstacle = self._obstacle(arguments, _tensors(arguments)) if side == "cuda" else None
            return Decision(side, result, authority, reason, obstacle=obstacle)
        return self._by_model(op, arguments, said, remember)

    def _by_model(self, op: str, arguments: Mapping[str, Any], said: settings.Settings, remember: bool) -> Decision:
        result = said.result or "host"

        def stays(why: str, found: Weighed | None = None, of: str = "") -> Decision:
            load, estimates = (None, None) if found is None else (found.load, found.estimates)
            return Decision("cpu", result, "rule", why, estimates, load, of, record=None if found is None else record)

        if _in_a_loader_worker():
            return stays("a DataLoader worker leaves the GPU to the process that trains")
        if not self.device.started() and not self.has_files():
            return stays("this process has not started CUDA, and nothing was tuned: run `robocache tune`")
        missing = self.device.why_not()
        if missing is not None:
            return stays(f"no GPU can be used: {missing}")
        if _something_watches():
            return stays(_WATCHED)
        model = self.model()
        if model.source == "default" and not self.device.started():
            return stays(f"this process has not started CUDA, and this machine is {model.where}")
        tensors = _tensors(arguments)
        learns = model.source == "file" and settings.learns(said)
        try:
            weighed = self._weigh(op, arguments, tensors, result, model)
        except Undescribed:
            return stays("the arguments do not fit together; the call says how")
        record = weighed.record if learns else None
        held = False
        if record is None:
            ratio = weighed.estimates.cpu_us / (weighed.estimates.gpu_us * model.margin)
            side, held = self._with_hysteresis((op, result), ratio, remember)
            if learns and remember and weighed.kept:
                record = self._record(weighed, side)
        plan = Plan(side) if record is None else record.plan() if remember else Plan(record.side)
        if plan.timed or plan.side == "cuda":
            why = self._obstacle(arguments, tensors)
            if why is None and plan.side == "cuda":
                why = self._reluctance(weighed.load, result)
            if why is not None and record is not None and plan.timed:
                record.give_up(plan)
                plan = Plan(record.side)
            if why is not None and plan.side == "cuda":
                return stays(why, weighed, _source(model))
            if plan.timed and record is not None and result == "device" and self.device.queued():
                # The time would be that of the queue as well.
                record.give_up(plan)
                plan = Plan(record.side)
        reason = _reason(plan.side, record, weighed.estimates, model) if not remember else ""
        found = (weighed.estimates, weighed.load, _source(model) if not remember else "", held)
        if plan == _RESTS and said == settings.NOTHING and weighed.kept and (record is None or record.is_settled()):
            self._keep_settled(op, arguments, weighed, record, model)
        return Decision(plan.side, result, model.source, reason, *found, record=record, plan=plan)

    def _record(self, weighed: Weighed, side: str) -> Record:
        """The record of calls like one that is weighed for the first time."""
        with self._lock:
            if weighed.record is None:
                weighed.record = Record(side, weighed.estimates.cpu_us, weighed.estimates.gpu_us)
            return weighed.record

    def _weigh(
        self, op: str, arguments: Mapping[str, Any], tensors: Sequence[Tensor], result: str, model: CostModel
    ) -> Weighed:
        """A call's work and what it takes; kept, because calls repeat."""
        key: Any = None
        try:
            key = (model, result, *self._bytes_in(tensors), signature(op, arguments))
            found = self._weighed.get(key)
            if found is not None:
                return found
        except (TypeError, AttributeError):  # something unhashable, or wrong
            key = None
        load = describe(op, arguments, self.device.is_pinned)
        made = Weighed(load, model.estimate(load, result))
        return made if key is None else self._weighed.put(key, made)

    def _keep_settled(
        self, op: str, arguments: Mapping[str, Any], weighed: Weighed, record: Record | None, model: CostModel
    ) -> None:
        """Notes a call that stays on the CPU, so that the next one like it is asked nothing, or next to nothing."""
        load = weighed.load
        if record is None:
            if not self._stays_anyway(load, model, weighed.estimates.cpu_us * SETTLED_RATIO):
                return
            found: tuple[Record | None, int | None] = (None, None)
        else:
            took = record.typical("cpu")
            by_far = took is not None and self._stays_anyway(load, model, took * CLOSE)
            found = (record, None if by_far else load.pinned)
        with self._lock:
            if len(self._settled) >= _MOST_KEPT:
                self._settled.clear()
            self._settled[signature(op, arguments)] = found

    def _bytes_in(self, tensors: Sequence[Tensor]) -> tuple[int, int]:
        """Bytes of all inputs, and of the large ones in page-locked memory."""
        total = locked = 0
        for tensor in tensors:
            size = tensor.numel() * tensor.element_size()
            total += size
            if size >= STAGED and self.device.is_pinned(tensor):
                locked += size
        return total, locked

    def _with_hysteresis(self, of: tuple[str, str], ratio: float, remember: bool) -> tuple[str, bool]:
        """The side for a ratio of CPU to GPU time, and whether only the band decided it."""
        better = "cuda" if ratio > 1 else "cpu"
        last = self._last.get(of, better)
        side = better if last == better or not 1 / (1 + BAND) <= ratio <= 1 + BAND else last
        if remember:
            self._last[of] = side
        return side, side != better

    def _stays_anyway(self, load: Workload, model: CostModel, cpu_us: float) -> bool:
        """Whether the GPU would take more than `cpu_us`, with the inputs in either kind of memory."""
        moved = load.pageable + load.pinned
        ways = (load._replace(pageable=0, pinned=moved), load._replace(pageable=moved, pinned=0))
        return all(cpu_us < model.estimate(way, "host").gpu_us * model.margin for way in ways)


def _source(model: CostModel) -> str:
    return f"tuned points in {model.where}" if model.source == "file" else "defaults"


def _reason(side: str, record: Record | None, estimates: Estimates, model: CostModel) -> str:
    """Why the model, or what was measured since, takes this side."""
    name = "the GPU" if side == "cuda" else "the CPU"
    known = None if record is None else record.known()
    if record is not None and known is not None and record.is_settled():
        if known.cpu_us is not None and known.gpu_us is not None:
            return f"{name} took less when both sides were tried in this process"
        return f"{name} takes less, by what its calls took in this process and {_source(model)} for the other side"
    asked = estimates.gpu_us * model.margin
    margin = "" if model.margin == 1 else f", and the GPU must look {model.margin:g} times faster"
    lesser = "less" if (estimates.cpu_us > asked) == (side == "cuda") else f"within {BAND:.0%}, so the side is kept"
    return f"{name} takes {lesser}, by {_source(model)}{margin}"


_policy: Policy | None = None
_policy_lock = threading.Lock()


def policy() -> Policy:
    """The process's policy."""
    global _policy
    if _policy is None:
        with _policy_lock:
            if _policy is None:
                _policy = Policy(CudaDevice())
    return _policy

"""Aligns a robot log: streams with clocks of their own become one tensor at one rate.

Without a file it makes a log of five sensors, saves it, aligns it at --rate, prints what each stream was and what
became of it, and plots raw and aligned signals. With --tum it takes a trajectory in the TUM format, keeps every n-th
pose, restores the others, and says how far they are from the poses that were there.

    python examples/align_robot_log.py
    python examples/align_robot_log.py --tum path/to/groundtruth.txt --keep-every 8
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import plots
import report
import robot_log
import torch
import tum

import robocache

LOG_HEADER = (
    "stream",
    "samples",
    "columns",
    "dtype",
    "rate",
    "jitter",
    "largest gap",
    "kind",
    "valid",
    "kernel",
    "time",
)


def stream_row(r: robot_log.Recording, targets: torch.Tensor, valid: torch.Tensor) -> list[str]:
    """The table's line for one stream: what its clock is like, what became of it, and what it costs alone."""
    figures = report.clock_figures(r.times)
    values, times = r.values.to(targets.device), r.times.to(targets.device)
    before = robocache.launch_counts()
    taken = report.median_time(
        lambda: robocache.resample_trajectories(values, times, targets, kind=r.kind, **r.options), targets.device
    )
    return [
        r.name,
        f"{figures.samples}",
        f"{r.values.shape[-1]}",
        str(r.values.dtype).removeprefix("torch."),
        f"{figures.rate:.1f} Hz",
        f"{figures.jitter * 1e3:.2f} ms",
        f"{figures.largest_gap * 1e3:.0f} ms",
        r.kind_name,
        f"{valid.double().mean().item():.1%}",
        report.kernels_run(before),
        report.duration(taken),
    ]


def align_log(arguments: argparse.Namespace) -> None:
    """The demo on a log of its own."""
    device = report.choose_device(arguments.device)
    made = robot_log.make_log(arguments.seed)
    path = arguments.out / "robot_log.npz"
    robot_log.save_log(made, path)
    recordings = robot_log.load_log(path, made)
    print(f"robot log: {len(recordings)} streams, {robot_log.LOG_SECONDS:g} s, written to {path}\n")

    step = round(robot_log.SECOND_NS / arguments.rate)
    count = int(robot_log.LOG_SECONDS * arguments.rate)
    targets = (robot_log.START_NS + step * torch.arange(count, dtype=torch.int64)).to(device)
    streams = {
        r.name: robocache.Stream(r.values.to(device), r.times.to(device), kind=r.kind, **r.options) for r in recordings
    }

    def align() -> tuple[torch.Tensor, torch.Tensor]:
        return robocache.fuse_multimodal(streams, targets, return_valid=True)

    aligned, valid = align()
    fused_time = report.median_time(align, device)

    rows = [stream_row(r, targets, valid[:, index]) for index, r in enumerate(recordings)]
    print(report.table(LOG_HEADER, rows, left=(0, 3, 7, 9)))
    print()
    for r in recordings:
        print(f"  {r.name:8} {r.about}")
    dtype = str(aligned.dtype).removeprefix("torch.")
    print(
        f"\nfuse_multimodal: {len(streams)} streams -> {list(aligned.shape)} {dtype} "
        f"at {arguments.rate:g} Hz on {device}, {report.duration(fused_time)} a call (median of 30), "
        f"{valid.all(dim=1).double().mean().item():.1%} of the rows valid in every stream"
    )
    figure = arguments.out / "robot_log.png"
    columns = robocache.fused_columns(streams)
    save_log_plot(recordings, targets.cpu(), aligned.cpu(), valid.cpu(), columns, figure, arguments.rate)
    print(f"plot: {figure}")


def save_log_plot(
    recordings: list[robot_log.Recording],
    targets: torch.Tensor,
    aligned: torch.Tensor,
    valid: torch.Tensor,
    columns: dict[str, slice],
    path: Path,
    rate: float,
) -> None:
    """Six panels, each about what alignment does to one kind of column."""
    by_name = {r.name: (i, r) for i, r in enumerate(recordings)}
    seconds = (targets - robot_log.START_NS).double().numpy() / robot_log.SECOND_NS

    def panel(
        name: str, which: list[int], title: str, unit: str, window: tuple[float, float], **how: bool
    ) -> plots.Panel:
        index, r = by_name[name]
        raw_seconds = (r.times - robot_log.START_NS).double().numpy() / robot_log.SECOND_NS
        block = aligned[:, columns[name]].double().numpy()
        raw = r.values.double().numpy()
        if name == "imu":
            block[:, 6:] = one_sign(block[:, 6:])
        truth = robot_log.contact_force(seconds) if name == "force" else None
        signals = [
            plots.Signal(
                raw_seconds,
                raw[:, c],
                seconds,
                block[:, c],
                r.columns[c] if len(which) > 1 else "",
                None if truth is None else truth[:, c],
            )
            for c in which
        ]
        return plots.Panel(title, unit, signals, valid[:, index].numpy(), window, **how)

    panels = [
        panel("joints", [0, 2, 4], "joints at 100 Hz, linear", "rad", (1.0, 1.5)),
        panel("joints", [6], "wrist, angle: the shorter way across ±π", "rad", (1.4, 1.9), wraps=True),
        panel(
            "imu", [6, 9], "IMU at 200 Hz, slerp: samples flip sign, the rotation does not", "quaternion", (1.0, 1.5)
        ),
        panel("force", [2], "force at 500 Hz, pchip: the dropout is bridged, and not valid", "N", (2.6, 3.6)),
        panel("camera", [0, 1], "camera at 30 Hz, linear: 45 ms of latency taken out", "feature", (1.0, 1.8)),
        panel("gripper", [0], "gripper at 20 Hz, previous: held, never blended", "closed", (2.6, 3.2), step=True),
    ]
    plots.save_panels(panels, f"One robot log, five clocks, one tensor at {rate:g} Hz", path)


def one_sign(quaternions: np.ndarray) -> np.ndarray:
    """The same rotations [N, 4] with signs that do not flip from row to row, so that a line can be drawn."""
    flips = np.where((quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    return quaternions * np.concatenate([[1.0], np.cumprod(flips)])[:, None]


def rotation_errors(restored: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Angle in degrees between rotations given as quaternions [N, 4] of any length and sign -> [N]."""
    a = torch.nn.functional.normalize(restored.double(), dim=-1)
    b = torch.nn.functional.normalize(true.double(), dim=-1)
    half = 2.0 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))
    return torch.rad2deg(2.0 * torch.minimum(half, torch.pi - half))


def restore_trajectory(arguments: argparse.Namespace) -> None:
    """The demo on a TUM trajectory: decimate, restore, compare."""
    if arguments.keep_every < 2:
        raise SystemExit("error: --keep-every: expected 2 or more")
    device = report.choose_device(arguments.device)
    true = tum.read_tum(arguments.tum)
    figures = report.clock_figures(true.times)
    span = float(true.times[-1] - true.times[0]) * 1e-9
    kept = slice(None, None, arguments.keep_every)
    max_gap = 2.0 * arguments.keep_every / figures.rate * 1e9
    print(
        f"{arguments.tum.name}: {figures.samples} poses in {span:.1f} s, {figures.rate:.1f} Hz, "
        f"jitter {report.duration(figures.jitter)}, largest gap {report.duration(figures.largest_gap)}"
    )
    intervals = true.times.diff().double() * 1e-9
    holes = torch.nonzero(intervals > 3.0 / figures.rate).flatten()
    longest = holes[intervals[holes].argsort(descending=True, stable=True)][:5].tolist()
    print(f"gaps longer than 3 periods: {len(holes)}" + (", the longest:" if len(holes) > 5 else ""))
    for i in longest:
        print(f"  {intervals[i]:8.3f} s from {float(true.times[i] - true.times[0]) * 1e-9:.3f} s on")

    source, stamps = true.poses[kept].to(device), true.times[kept].to(device)
    targets = true.times.to(device)
    restored_here = torch.ones(len(true.times), dtype=torch.bool)
    restored_here[kept] = False
    rows, outputs = [], {}
    for position_kind in ("linear", "pchip"):
        kind = [(slice(0, 3), position_kind), (slice(3, 7), "slerp_xyzw")]

        def restore(kind: list[tuple[slice, str]] = kind) -> tuple[torch.Tensor, torch.Tensor]:
            return robocache.resample_trajectories(
                source, stamps, targets, kind=kind, max_gap=max_gap, return_valid=True
            )

        before = robocache.launch_counts()
        taken = report.median_time(restore, device)
        out, valid = (tensor.cpu() for tensor in restore())
        outputs[position_kind] = out, valid
        position = (out[:, :3] - true.poses[:, :3]).norm(dim=-1) * 1e3
        rotation = rotation_errors(out[:, 3:], true.poses[:, 3:])
        for name, chosen in (("valid", valid & restored_here), ("not valid", ~valid & restored_here)):
            rows.append(
                [f"{position_kind} + slerp", name, f"{int(chosen.sum())}"]
                + [report.spread(errors[chosen]) for errors in (position, rotation)]
                + [report.kernels_run(before), report.duration(taken)]
            )
    print(f"\nkept every {arguments.keep_every}th pose, restored the other {int(restored_here.sum())}:\n")
    header = ["kinds", "targets", "poses", "position error, mm", "rotation error, degrees", "kernel", "time"]
    print(report.table(header, rows, left=(0, 1, 5)))
    print(
        "\nerrors are median / 95th percentile / largest; not valid: in a bracket longer than "
        f"{report.duration(max_gap * 1e-9)}, or after the last kept pose"
    )
    figure = arguments.out / f"{arguments.tum.stem}.png"
    save_trajectory_plot(true, kept, *outputs["pchip"], figures, figure, arguments)
    print(f"plot: {figure}")


def save_trajectory_plot(
    true: tum.Trajectory,
    kept: slice,
    restored: torch.Tensor,
    valid: torch.Tensor,
    figures: report.ClockFigures,
    path: Path,
    arguments: argparse.Namespace,
) -> None:
    """Position, orientation and their errors: all of it, and closely around the largest error of a valid target."""
    seconds = (true.times - true.times[0]).double().numpy() * 1e-9
    poses, out, admitted = true.poses.numpy(), restored.numpy(), valid.numpy()
    facing = one_sign(out[:, 3:])
    same_side = np.where((facing * poses[:, 3:]).sum(axis=1) < 0, -1.0, 1.0)[:, None] * poses[:, 3:]
    position_error = np.linalg.norm(out[:, :3] - poses[:, :3], axis=1) * 1e3
    rotation_error = rotation_errors(restored[:, 3:], true.poses[:, 3:]).numpy()
    worst = float(seconds[np.where(admitted, position_error, -1.0).argmax()])
    whole, around = (float(seconds[0]), float(seconds[-1])), 10 * arguments.keep_every / figures.rate
    near = (max(whole[0], worst - around), min(whole[1], worst + around))
    position = [plots.Signal(seconds[kept], poses[kept, c], seconds, out[:, c], "xyz"[c]) for c in range(3)]
    rotation = [plots.Signal(seconds[kept], same_side[kept, c], seconds, facing[:, c], "xyzw"[c]) for c in range(4)]

    def errors(title: str, unit: str, values: np.ndarray) -> plots.Panel:
        nothing = np.empty(0)
        seen = np.where(values > 0, values, np.nan)  # kept poses come back exactly
        return plots.Panel(title, unit, [plots.Signal(nothing, nothing, seconds, seen)], admitted, whole, log=True)

    panels = [
        plots.Panel("position", "m", position, admitted, whole),
        plots.Panel("position around the largest valid error", "m", position, admitted, near),
        plots.Panel("orientation", "quaternion", rotation, admitted, whole),
        plots.Panel("orientation, the same window", "quaternion", rotation, admitted, near),
        errors("position error", "mm", position_error),
        errors("rotation error", "degrees", rotation_error),
    ]
    title = f"{arguments.tum.name}: every {arguments.keep_every}th pose kept, the others restored"
    plots.save_panels(panels, title, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tum", type=Path, metavar="FILE", help="a trajectory in the TUM format instead of the own log"
    )
    parser.add_argument("--keep-every", type=int, default=8, metavar="N", help="with --tum: poses kept (default: 8th)")
    parser.add_argument(
        "--rate", type=float, default=50.0, metavar="HZ", help="rate of the aligned tensor (default: 50)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=7, help="of the log that is made")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="folder for the log and the plot")
    arguments = parser.parse_args()
    if not arguments.rate > 0:
        parser.error("--rate: expected more than 0")
    try:
        if arguments.tum is not None:
            restore_trajectory(arguments)
        else:
            align_log(arguments)
    except (tum.TrajectoryError, OSError) as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

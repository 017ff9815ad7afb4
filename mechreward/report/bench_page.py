"""The page of the benchmark."""

from __future__ import annotations

from pathlib import Path

from mechreward.base.files import write_atomic
from mechreward.experiments.rows import Results


def page(results: Results, path: Path | str) -> Path:
    """`docs/performance.md` from the results of a run."""
    info = results.manifest["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    lines = [
        "# Performance",
        "",
        "Made by `mechreward bench --docs`; ratios are medians over interleaved repeats (min to max).",
        f"CPU: {info['cpu']}, {info['cores']} cores, {info['threads']} threads. GPU: {info['gpu']}. {versions}.",
        "",
        "| | work | compared to | ratio | target | parity |",
        "|---|---|---|---|---|---|",
    ]
    for row in results.where(metric="ratio"):
        beside = results.where(experiment=row.experiment, arm=row.arm, metric="parity")
        (same,) = [one for one in beside if one.detail["work"] == row.detail["work"]]
        times = row.detail["times"]
        goal = (
            f"{'<=' if times else '>='} {row.detail['target']:g}" if "target" in row.detail else ""
        )
        lines.append(
            f"| {row.experiment} | {row.detail['work']} | {row.arm} | {row.estimate:.2f} ({row.low:.2f} to "
            f"{row.high:.2f}){' of the time' if times else ''} | {goal} | {same.detail['kind']} {same.estimate:.2g} |"
        )
    lines += ["", "| how cost grows | seconds | prefill tokens |", "|---|---|---|"]
    for row in results.where(experiment="growth", metric="seconds"):
        (prefill,) = results.where(experiment="growth", arm=row.arm, metric="prefill_tokens")
        lines.append(f"| {row.arm} | {row.estimate:.3f} | {prefill.estimate:.0f} |")
    return write_atomic(path, "\n".join([*lines, *_limits(results)]) + "\n")


def _limits(results: Results) -> list[str]:
    """What stands between a ratio and a better one."""
    lines = ["", "What limits them:", ""]
    for row in results.where(metric="share_elsewhere"):
        parts = [
            results.where(experiment=row.experiment, metric=f"share_{kind}")[0]
            for kind in ("weights", "attention")
        ]
        weights, attention = (part.estimate for part in parts)
        (ratio,) = results.where(experiment=row.experiment, metric="ratio", arm="generate")
        lines.append(
            f"- {row.experiment}, {row.detail['work']}: {weights:.0%} of our time goes into products with weights, "
            f"{attention:.0%} into products of attention (measured under cProfile, which adds to the rest). "
            f"With these products alone the ratio would be {ratio.estimate / (weights + attention):.1f}."
        )
    for row in results.where(metric="row_passes", arm="mechreward"):
        (plain,) = results.where(experiment=row.experiment, metric="row_passes", arm="plain_decode")
        lines.append(
            f"- {row.experiment}, {row.detail['work']}: the last token of an answer is run only for what is caught "
            f"there. That makes {row.estimate:,.0f} passes of a row where plain decoding takes {plain.estimate:,.0f}: "
            f"{row.estimate / plain.estimate:.3f} of its work, for answers of this length."
        )
    return lines if len(lines) > 3 else []

"""The demo's one page: the timeline as a picture, the figures under it. Plain HTML, nothing is fetched."""

from collections.abc import Mapping
from html import escape
from typing import Any

from nodewatch.lab.timeline import BARS_S

_WIDTH, _LEFT, _ROW = 1000, 210, 30
# Who each event is about: the job's recovery and the machine's repair are two tracks that run at the same time.
_TRACKS = {
    "fault_injected": "fault",
    "finding": "node",
    "drained": "node",
    "requeued": "job",
    "job_running": "job",
    "resumed_step": "job",
    "job_completed": "job",
    "instance_launched": "machine",
    "instance_terminated": "machine",
    "validated": "machine",
    "returned_to_service": "machine",
}
_COLOURS = {"fault": "#b42318", "node": "#b54708", "job": "#175cd3", "machine": "#067647"}


def page(document: Mapping[str, Any]) -> str:
    """The page for one timeline.json."""
    events = document["events"]
    end = max([event["t"] for event in events] + [1.0]) * 1.05
    rows = "\n".join(_row(index, event, end) for index, event in enumerate(events))
    height = _ROW * len(events) + 40
    axis = "\n".join(_tick(step, end, height) for step in _steps(end))
    figures = "\n".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td><td>{escape(bar)}</td></tr>"
        for name, value, bar in _figures(document)
    )
    legend = " ".join(
        f'<span><i style="background:{colour}"></i>{escape(track)}</span>' for track, colour in _COLOURS.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>nodewatch: a training job outlives a dead GPU</title>
<style>
body {{ font: 14px/1.45 system-ui, sans-serif; color: #1d2939; max-width: {_WIDTH + 40}px; margin: 28px auto; padding: 0 16px }}
h1 {{ font-size: 21px; margin: 0 0 4px }} p {{ margin: 0 0 14px; color: #475467 }}
svg text {{ font: 12px system-ui, sans-serif; fill: #1d2939 }} svg .dim {{ fill: #667085 }}
table {{ border-collapse: collapse; margin-top: 18px }}
td, th {{ padding: 5px 22px 5px 0; border-bottom: 1px solid #eaecf0; text-align: left }}
i {{ display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin: 0 5px 0 12px }}
</style></head><body>
<h1>A training job outlives a dead GPU</h1>
<p>Seconds since the fault. {legend}</p>
<svg viewBox="0 0 {_WIDTH} {height}" width="100%" role="img" aria-label="timeline">
{axis}
{rows}
</svg>
<table><tr><th>figure</th><th>measured</th><th>bar</th></tr>
{figures}
</table>
</body></html>
"""


def _x(t: float, end: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - 20) * t / end


def _row(index: int, event: Mapping[str, Any], end: float) -> str:
    y = 20 + _ROW * index
    x = _x(event["t"], end)
    colour = _COLOURS[_TRACKS.get(event["name"], "node")]
    words = f"{event['node']} {event['detail']}".strip()
    is_late = x > _WIDTH * 0.55
    room = int(((x - _LEFT) if is_late else (_WIDTH - x)) / 6.3)
    shown = words if len(words) <= room else words[: max(0, room - 1)] + "…"
    anchor, text_x = ("end", x - 11) if is_late else ("start", x + 11)
    return (
        f'<text x="0" y="{y + 4}">{escape(event["name"].replace("_", " "))}</text>'
        f'<text class="dim" x="{_LEFT - 16}" y="{y + 4}" text-anchor="end">{event["t"]:.2f} s</text>'
        f'<line x1="{_LEFT}" x2="{x:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-opacity=".18"/>'
        f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{colour}"><title>{escape(words)}</title></circle>'
        f'<text class="dim" x="{text_x:.1f}" y="{y + 4}" text-anchor="{anchor}">{escape(shown)}</text>'
    )


def _steps(end: float) -> list[float]:
    step = next(size for size in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 3600) if end / size <= 10 or size == 3600)
    return [step * index for index in range(int(end // step) + 1)]


def _tick(t: float, end: float, height: int) -> str:
    x = _x(t, end)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{height - 22}" stroke="#eaecf0"/>'
        f'<text class="dim" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{t:g} s</text>'
    )


def _figures(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for key, bar in BARS_S.items():
        value = document[key]
        name = key.removeprefix("t_").removesuffix("_s").replace("_", " ")
        rows.append((name, "did not happen" if value is None else f"{value:.2f} s", f"{bar:.0f} s"))
    rows.append(("steps lost", str(document["steps_lost"]), f"{document['checkpoint_interval_steps']} (one interval)"))
    rows.append(
        ("final loss", str(document["loss_final"]), f"{document['loss_final_uninterrupted']} (uninterrupted run)")
    )
    rows.append(
        (
            "instances launched / terminated",
            f"{document['instances_launched']} / {document['instances_terminated']}",
            "1 / 1",
        )
    )
    return rows

"""One HTML page of a clip: its video beside its points and trajectory, which the mouse turns. It needs no net."""

import base64
import html
import json
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from path import Path

from files.atomic import write_text

MOST_POINTS = 60_000  # that a browser turns smoothly on a laptop
_LONGEST_SIDE = 1.6  # of the plot, in plotly's unit of its camera
MOST_EMBEDDED = 48 * 2**20  # bytes of a video that lies within the page; a larger one stays beside it
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ margin: 0; font: 15px/1.5 system-ui, sans-serif; background: #16161d; color: #ddd; }}
header {{ padding: 12px 20px; }} h1 {{ font-size: 20px; margin: 0; }} header p {{ margin: 2px 0; color: #aaa; }}
main {{ display: flex; flex-wrap: wrap; gap: 12px; padding: 0 20px 20px; }}
video {{ width: 100%; background: #000; }} .half {{ flex: 1 1 480px; min-width: 320px; }}
#scene {{ height: 75vh; min-height: 360px; }}
</style></head><body>
<header><h1>{title}</h1>{facts}</header>
<main><div class="half"><video id="clip" controls loop muted playsinline autoplay src="{video}"></video></div>
<div class="half" id="scene">{plot}</div></main>
<script>
const places = {places}, times = {times}, camera = {camera};
const clip = document.getElementById("clip"), plot = document.querySelector("#scene .plotly-graph-div");
let shownPlace = 0, due = 0;
// Not plotly's public interface, whose restyle computes all points anew: seconds on a slow machine.
const drawnMarker = () => plot._fullLayout?.scene?._scene?.traces?.[plot._fullData[camera].uid];
function follow() {{
  if (!plot || !times.length) return;
  let k = times.findIndex(t => t > clip.currentTime);
  k = k < 0 ? times.length - 1 : Math.max(k - 1, 0);
  if (k === shownPlace) return;
  const [x, y, z] = places[k], marker = drawnMarker();
  if (marker) {{
    marker.update(Object.assign(plot._fullData[camera], {{x: [x], y: [y], z: [z]}}));
    plot._fullLayout.scene._scene.glplot?.redraw?.();
  }} else if (performance.now() < due) return;
  else {{
    const start = performance.now();
    Plotly.restyle(plot, {{x: [[x]], y: [[y]], z: [[z]]}}, [camera]).then(() => {{
      due = performance.now() + 5 * (performance.now() - start);
    }});
  }}
  shownPlace = k;
}}
clip.addEventListener("timeupdate", follow);
const shown = () => {{ document.body.dataset.video = clip.videoWidth; }};  // for tests, as data-plot is
if (clip.readyState >= 2) shown(); else clip.addEventListener("loadeddata", shown);
if (plot) document.body.dataset.plot = document.querySelectorAll("#scene canvas").length;
if (plot) document.body.dataset.marker = drawnMarker() ? "alone" : "all";
</script></body></html>
"""


@dataclass(frozen=True)
class PageContent:
    """What the page shows. Points and positions are in the first camera's frame: x right, y down, z forward."""

    title: str
    facts: list[str]  # a line each
    video: Path  # beside the page
    points: np.ndarray  # float32 [N, 3]; N may be 0
    colours: np.ndarray  # uint8 [N, 3]
    positions: np.ndarray | None  # float64 [F, 3], the camera's; None: there is no trajectory
    times: list[float]  # of the positions in the video, seconds
    unit: str  # "m", or "" where it is arbitrary


def write_page(file: Path, content: PageContent) -> None:
    """Write the page: whole under its name, or not at all."""
    plot = "" if content.positions is None else _plot(content)
    places = np.zeros((0, 3)) if content.positions is None else _upright(content.positions)
    page = _PAGE.format(
        title=html.escape(content.title),
        facts="".join(f"<p>{html.escape(fact)}</p>" for fact in content.facts),
        video=_video_source(content.video),
        plot=plot,
        places=json.dumps(np.round(places, 5).tolist()),
        times=json.dumps([round(time, 4) for time in content.times] if len(places) else []),
        camera=2,
    )
    write_text(file, page)


def _video_source(video: Path) -> str:
    if video.size > MOST_EMBEDDED:
        return html.escape(str(video.name))
    return "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode("ascii")


def _upright(points: np.ndarray) -> np.ndarray:
    """Points [N, 3] with axes right, forward, up in place of right, down, forward."""
    return np.stack([points[:, 0], points[:, 2], -points[:, 1]], 1)


def _ranges(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """What the axes show: the whole path, and the points but for the farthest percent at each end; [3, 2]."""
    both = [path] if len(points) == 0 else [path, np.quantile(points, [0.01, 0.99], axis=0)]
    low, high = (end(np.concatenate(both).astype(np.float64), 0) for end in (np.min, np.max))
    margin = 0.03 * max((high - low).max(), 1e-6)
    return np.stack([low - margin, high + margin], 1)


def _plot(content: PageContent) -> str:
    """The points and the trajectory as a part of a page, with plotly's script within it."""
    chosen = np.random.default_rng(0).permutation(len(content.points))[:MOST_POINTS]
    points, colours = _upright(content.points[np.sort(chosen)]), content.colours[np.sort(chosen)]
    x, y, z = np.round(points.T, 4).astype(np.float32)
    path = _upright(np.asarray(content.positions)).astype(np.float32)
    shades = [f"rgb({red},{green},{blue})" for red, green, blue in colours.tolist()]
    figure = go.Figure(
        [
            go.Scatter3d(x=x, y=y, z=z, mode="markers", name="points", hoverinfo="skip",
                         marker={"size": 1.6, "color": shades}),
            go.Scatter3d(x=path[:, 0], y=path[:, 1], z=path[:, 2], mode="lines", name="trajectory",
                         line={"width": 5, "color": "#ff5a36"}),
            go.Scatter3d(x=path[:1, 0], y=path[:1, 1], z=path[:1, 2], mode="markers", name="camera",
                         marker={"size": 6, "color": "#ffd166"}),
        ]
    )  # fmt: skip
    unit = f" ({content.unit})" if content.unit else ""
    ranges = _ranges(points, path)
    extents = np.ptp(ranges, 1)
    dark = {"backgroundcolor": "#16161d", "gridcolor": "#333", "color": "#999"}
    figure.update_layout(
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="#16161d",
        font={"color": "#ccc"},
        legend={"x": 0, "y": 1, "bgcolor": "rgba(0,0,0,0)"},
        scene={
            # The longest side has the same length for all clips, so that the first view shows every clip as a whole.
            "aspectmode": "manual",
            "aspectratio": dict(zip("xyz", (_LONGEST_SIDE * extents / extents.max()).tolist(), strict=True)),
            **{
                f"{axis}axis": {"title": f"{name}{unit}", "range": between.tolist(), "nticks": ticks, **dark}
                for axis, name, between, ticks in zip(
                    "xyz", ("right", "forward", "up"), ranges, (6, 10, 3), strict=True
                )
            },
            "camera": {"eye": {"x": 0, "y": -1.6, "z": 1.2}, "center": {"x": 0, "y": 0, "z": -0.15}},
        },
    )
    return figure.to_html(
        full_html=False, include_plotlyjs=True, default_height="100%", config={"responsive": True, "displaylogo": False}
    )

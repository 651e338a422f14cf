import re
import shutil
import subprocess

import numpy as np
import pytest
from path import Path

from inference.page import PageContent, _ranges, write_page
from inference.video import write_video

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def page(tmp_path):
    """A page with a video of 64 x 48 pixels, 300 points and five positions."""
    folder = Path(tmp_path)
    with write_video(folder / "video.mp4", 10) as add:
        for number in range(5):
            add(np.full((48, 64, 3), 40 * number, np.uint8))
    random = np.random.default_rng(0)
    content = PageContent(
        title="a <drive> & $more$",
        facts=["5 frames", 'camera: "guessed"'],
        video=folder / "video.mp4",
        points=random.normal(size=(300, 3)).astype(np.float32),
        colours=random.integers(0, 256, (300, 3)).astype(np.uint8),
        positions=np.arange(15.0).reshape(5, 3),
        times=[0.0, 0.1, 0.2, 0.3, 0.4],
        unit="m",
    )
    write_page(folder / "index.html", content)
    return folder / "index.html"


def test_the_page_holds_everything(page):
    text = page.read_text()
    assert "<h1>a &lt;drive&gt; &amp; $more$</h1>" in text
    assert 'src="data:video/mp4;base64,' in text
    assert not re.search(r"<(script|link|img|video)[^>]*(src|href)=\"https?:", text)
    assert "[0.0, 2.0, -1.0]" in text  # x right, z forward, y down: right, forward, up


def test_the_axes_show_the_whole_path_and_nearly_all_points():
    """A few points far away, as a cloud's errors are, do not make everything else small."""
    random = np.random.default_rng(0)
    points = np.concatenate([random.uniform(-5, 5, (1000, 3)), np.full((4, 3), 900)])
    path = np.stack([np.zeros(9), np.linspace(0, 40, 9), np.zeros(9)], 1)
    low, high = _ranges(points, path).T
    assert (low[0], high[0]) == pytest.approx((-6.2, 6.2), abs=0.3)
    assert low[1] < -5 < 40 < high[1] < 42
    assert _ranges(points[:0], path)[1] == pytest.approx([-1.2, 41.2])
    assert (np.ptp(_ranges(points[:0], path[:1]), 1) > 0).all()  # a camera that stands


def test_a_large_video_stays_beside_the_page(page, monkeypatch):
    monkeypatch.setattr("inference.page.MOST_EMBEDDED", 10)
    video = page.parent / "video.mp4"
    empty = np.zeros((0, 3))
    write_page(page, PageContent("t", [], video, empty, empty, None, [], ""))
    assert 'src="video.mp4"' in page.read_text()
    assert "plotly" not in page.read_text().partition("<script>")[0]  # no trajectory, nothing to turn


@pytest.mark.slow
def test_a_browser_without_a_net_shows_video_and_points(page, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}/profile", "--timeout=100000"]
    command = [browser, *flags, "--dump-dom", f"file://{page}"]
    for _ in range(3):  # a busy machine may print the page before the video's first frame is decoded
        shown = subprocess.run(command, capture_output=True, text=True, timeout=200).stdout
        body = re.search(r"<body[^>]*>", shown)[0]
        if "data-video" in body and "data-marker" in body:
            break
    assert 'data-video="64"' in body, body  # H.264 was decoded
    assert re.search(r'data-plot="[1-9]', body), body
    assert 'data-marker="alone"' in body, body  # the camera's marker moves without all points being drawn anew
    drawn = re.sub(r"<script.*?</script>", "", shown, flags=re.DOTALL)
    assert re.search(r"<canvas[^>]*width", drawn)
    assert "no-webgl" not in drawn  # what plotly says where it cannot draw

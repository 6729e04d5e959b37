import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.data import FolderDataset, make_shards, write_mask
from segtrain.data.io import remote
from tests.data.shards.helpers import CLASSES, NUM, PER_SHARD


@pytest.fixture
def folder(tmp_path):
    """A dataset with files of several formats, in two folders."""
    rng = np.random.default_rng(0)
    for number in range(NUM):
        place = tmp_path / "files" / "images" / ("a", "b.c")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 10 + number % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"x_{number:03d}.{('png', 'jpg')[number % 2]}")
        mask = tmp_path / "files" / "masks" / place.name / f"x_{number:03d}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        ids = rng.integers(0, CLASSES, pixels.shape[:2]).astype(np.uint8)
        ids[0, 0] = 255
        write_mask(mask, ids)
    places = {"images": "images", "masks": "masks"}
    return FolderDataset(
        root=str(tmp_path / "files"), num_classes=CLASSES, train=places, val=places
    )


@pytest.fixture
def shards(folder, tmp_path):
    make_shards(folder, tmp_path / "shards", "train", samples_per_shard=PER_SHARD)
    return tmp_path / "shards"


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def server(tmp_path, no_pause):
    """Serve `tmp_path`; `answers` holds status codes to send first, `asked` the requested paths."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.server.answers:
                answer = self.server.answers.pop(0)
                if answer == "cut":
                    self.send_response(200)
                    size = Path(self.translate_path(self.path)).stat().st_size
                    self.send_header("Content-Length", str(size))
                    self.end_headers()
                    self.wfile.write(b"only this")
                    return
                self.send_error(answer)
                return
            super().do_GET()

        def log_message(self, *arguments):
            pass

    handler = partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        found.answers, found.asked = [], []
        found.url = f"http://127.0.0.1:{found.server_port}"
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def command(folder, tmp_path):
    """Write both splits of the folder with the command; return the directory."""
    output = tmp_path / "written"
    for split in ("train", "val"):
        words = [
            "dataset=folder", "dataset.title=ours", f"dataset.root={tmp_path / 'files'}",
            "dataset.num_classes=3", "'dataset.label_map={0:1,1:0,2:2}'".strip("'"),
            "dataset.train={images:images,masks:masks}", "dataset.val={images:images,masks:masks}",
            f"output={output}", f"split={split}", "samples_per_shard=4",
        ]  # fmt: skip
        assert run_command("shards", words) == 0
    return output

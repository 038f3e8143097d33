"""`starts.jsonl`: every start of a run with what it was made with."""

import os
import socket
from datetime import datetime

import torch

from olmo import provenance
from olmo.distributed import World
from olmo.json_lines import read_records
from olmo.train.start import Start
from olmo.train.start_record import note_start
from tests.train.command import train
from tests.train.test_config import config


def test_every_start_has_its_line(shapes, tmp_path, monkeypatch):
    """A resumed run adds its line behind a torn one, also where nothing is known of git; a run that replaces another begins anew."""
    words = ("--max_duration=2", "--stop_after=1", "--allow_resume")
    assert train(tmp_path, *words) == 0
    (first,) = read_records(tmp_path / "starts.jsonl")
    assert first["step"] == 0 and first["checkpoint"] is None and first["resumes"] is False
    assert first["command"].startswith("train_image_video_sft.py ") and first["command"].endswith(" ".join(words))
    assert first["folder"] == os.getcwd() and first["host"] == socket.gethostname() and first["world_size"] == 1
    assert first["ranks_of_hosts"] == {first["host"]: 1} and list(first["devices"].values()) == [1] and first["cuda"] is None
    assert first["versions"]["torch"] == torch.__version__.partition("+")[0] or first["versions"]["torch"] == torch.__version__
    assert {"olmo", "python", "numpy", "transformers", "av"} <= first["versions"].keys()
    assert (first["commit"], first["dirty"]) == provenance.checkout()
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(first["time"])).total_seconds() < 600

    with open(tmp_path / "starts.jsonl", "a") as file:
        file.write('{"time": "to')  # of a start that was killed
    monkeypatch.setattr(provenance, "_git", lambda *args: None)
    monkeypatch.delenv("SOURCE_COMMIT", raising=False)
    assert train(tmp_path, *words) == 0
    again, second = read_records(tmp_path / "starts.jsonl")
    assert again == first
    assert second["step"] == 1 and second["checkpoint"] == str(tmp_path / "step1") and second["resumes"] is True
    assert second["commit"] is None and second["dirty"] is None

    note_start(config(save_folder=str(tmp_path)), World(0, 0, 1, torch.device("cpu")), Start("elsewhere/step7", trainer=True), 7, "other")
    (third,) = read_records(tmp_path / "starts.jsonl")
    assert (third["step"], third["checkpoint"], third["resumes"]) == (7, "elsewhere/step7", False)

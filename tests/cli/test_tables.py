import json

from cli.tables import MOST_ROWS, report_data_check, table

import pytest
from path import Path

from datasets.preparation.check import DataCheck, SceneCheck
from files.atomic import write_csv, write_json


def test_table_is_aligned():
    text = table([{"cap": "80 m", "abs_rel": "0.1234"}, {"cap": "50 m", "abs_rel": "10.0000"}])
    assert text.splitlines() == ["cap   abs_rel", "80 m   0.1234", "50 m  10.0000"]


def test_json_is_whole_or_not_there(tmp_path):
    file = Path(tmp_path) / "result.json"
    write_json(file, {"ate": 0.1})
    assert json.loads(file.read_text()) == {"ate": 0.1}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(file, {"ate": float("nan")})
    assert json.loads(file.read_text()) == {"ate": 0.1}


def test_csv_keeps_every_digit(tmp_path):
    file = Path(tmp_path) / "images.csv"
    write_csv(file, [{"image": "a,b", "abs_rel": 0.1 + 0.2}, {"image": "c", "abs_rel": 1}])
    assert file.read_text() == 'image,abs_rel\n"a,b",0.30000000000000004\nc,1\n'


def test_of_very_many_scenes_those_with_remarks_are_shown(capsys):
    scenes = [SceneCheck(f"s{number:03d}", ["train.txt"]) for number in range(MOST_ROWS + 20)]
    scenes[-1].warned["static video"] = "it stands"
    report_data_check(DataCheck(scenes, [], []))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("s119")
    assert lines[2].startswith("s000")
    assert lines[MOST_ROWS + 1] == "... and 20 more scenes (check_data.py --json FILE has all)"

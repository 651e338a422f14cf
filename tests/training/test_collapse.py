import json

import pytest
from path import Path

from training.collapse import CHECKS, VALIDATION_CHECKS, CollapseWatch, watch_validations

# What train.py logged of the run that README's pictures are of: 2500 steps on the synthetic world, Abs Rel 0.152.
RECORDED = Path(__file__).absolute().parent.parent / "recorded" / "healthy_world.jsonl"


MASK = {"explainability/mean": 0.5}


def recorded() -> list[dict]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()]


def warnings(records: list[dict]) -> list[tuple[int, str]]:
    watch = CollapseWatch()
    return [(record["step"], name) for record in records for name in watch.look(record["step"], record)]


def test_a_healthy_run_sets_nothing_off():
    records = recorded()
    assert records[-1]["step"] == 2500
    assert warnings(records) == []
    assert warnings(records[::4]) == []  # logged less often


@pytest.mark.parametrize(
    ("name", "values", "step"),
    [
        ("flat_disparity", {"disparity/spread": 1e-4}, 200),
        ("no_better_than_identity", {"photometric/warp": 0.1, "photometric/identity_warp": 0.1, **MASK}, 1000),
        ("no_translation", {"pose/translation": 1e-6}, 200),
        ("mask_hides_all", {"explainability/mean": 0.02}, 200),
    ],
)
def test_each_collapse_sets_off_its_warning_once(name, values, step):
    assert warnings([record | values for record in recorded()]) == [(step, name)]


def test_a_mask_of_ones_is_a_sign_only_where_little_is_explained():
    values = {"explainability/mean": 0.999, "photometric/identity_warp": 0.1}
    explained = [record | values | {"photometric/warp": 0.08} for record in recorded()]
    assert warnings(explained) == []
    unexplained = [record | values | {"photometric/warp": 0.099} for record in recorded()]
    assert warnings(unexplained) == [(1000, "mask_hides_nothing")]


def test_a_collapse_in_the_middle_is_seen_and_seen_again():
    flat = [
        record | ({"disparity/spread": 1e-4} if 500 < record["step"] <= 1200 or record["step"] > 1900 else {})
        for record in recorded()
    ]
    found = warnings(flat)
    assert [name for _, name in found] == ["flat_disparity"] * 2
    assert 500 < found[0][0] <= 1100
    assert 1900 < found[1][0] <= 2500


def test_one_odd_batch_is_no_collapse():
    records = [
        record | ({"pose/translation": 0, "disparity/spread": 0} if k % 7 == 0 else {})
        for k, record in enumerate(recorded())
    ]
    assert warnings(records) == []


def test_values_that_are_not_logged_are_not_looked_at():
    records = [{key: value for key, value in record.items() if "explainability" not in key} for record in recorded()]
    assert warnings(records) == []


def test_every_warning_names_likely_causes():
    for check in (*CHECKS, *VALIDATION_CHECKS):
        assert "Likely: " in check.message
        assert check.message.format_map(dict.fromkeys(check.needs, 0.0))  # names only what it is given


@pytest.mark.parametrize("damage", ["abc", None, "missing"])
def test_damaged_records_of_a_resumed_run_are_left_out(damage):
    records = recorded()
    for record in records[::7]:
        record["disparity/spread"] = damage
        if damage == "missing":
            del record["disparity/spread"]
    assert warnings(records) == []


def validation_warnings(scores, pairs=32.0, points=9000.0, total_steps=20_000):
    """Warnings of validations at these steps with these structure scores."""
    watch = watch_validations(total_steps)
    found = []
    for step, score in scores:
        values = {"photometric": 0.1, "structure": score, "structure_pairs": pairs, "structure_points": points}
        found += [(step, name) for name in watch.look(step, values)]
    return found


def test_depth_in_the_right_order_sets_nothing_off():
    assert validation_warnings([(step, 0.6) for step in range(500, 5000, 500)]) == []


def test_depth_without_structure_and_depth_upside_down_are_named_once():
    assert validation_warnings([(1000, 0.02), (2000, 0.02), (3000, -0.03), (4000, 0.1)]) == [(2000, "no_structure")]
    assert validation_warnings([(1000, -0.6), (2000, -0.6), (3000, -0.6)]) == [(2000, "depth_upside_down")]
    later = [(1000, 0.6), (2000, 0.5), (3000, 0.0), (4000, -0.5), (5000, 0.6), (6000, 0.0)]
    assert validation_warnings(later) == [(3000, "no_structure"), (4000, "depth_upside_down"), (6000, "no_structure")]


def test_a_start_upside_down_sets_nothing_off_and_a_short_training_is_judged_from_its_middle_on():
    recorded_starts = [(100, -0.30), (200, 0.36), (300, 0.68), (400, 0.67), (500, 0.73), (600, 0.80)]
    assert validation_warnings(recorded_starts, total_steps=600) == []
    assert validation_warnings(recorded_starts[:2] + [(300, 0.19)], total_steps=600) == [(300, "no_structure")]


def test_a_very_short_training_is_judged_at_its_last_step_alone():
    slow = [(50, 0.13), (100, 0.10), (150, 0.40), (200, 0.58)]  # recorded: the paper's networks
    assert validation_warnings(slow, total_steps=200) == []
    assert validation_warnings([*slow[:3], (200, 0.1)], total_steps=200) == [(200, "no_structure")]


def test_few_points_are_no_judge():
    scores = [(2000, -0.6), (3000, 0.0)]
    assert validation_warnings(scores, pairs=2) == validation_warnings(scores, points=60) == []


def test_validations_without_a_judge_set_nothing_off():
    watch = watch_validations(20)
    assert watch.look(2000, {"photometric": 0.1, "abs_rel": 0.4}) == {}

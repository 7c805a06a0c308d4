"""The numbers that describe a run's data, and a resume after they have changed."""

import json

import pytest

from tempseg_jax.workdir import data_record

NUMBERS = {"labeled_images": 8, "steps": 40}


def claim(folder, numbers, *, resumes=True, allow_change=False):
    data_record.claim(folder, numbers, resumes=resumes, allow_change=allow_change)


def test_a_resume_with_other_numbers_is_refused_and_nothing_is_written(tmp_path):
    claim(tmp_path, NUMBERS, resumes=False)
    claim(tmp_path, NUMBERS)
    other = {"labeled_images": 16, "steps": 80}
    message = "labeled images: 8 before, 16 now; steps: 40 before, 80 now"
    with pytest.raises(ValueError, match=message):
        claim(tmp_path, other)
    assert json.loads((tmp_path / "data.json").read_text()) == NUMBERS
    claim(tmp_path, other, allow_change=True)
    assert json.loads((tmp_path / "data.json").read_text()) == other


def test_a_run_of_the_first_release_gets_its_numbers_when_it_is_resumed(tmp_path):
    claim(tmp_path, NUMBERS)
    assert json.loads((tmp_path / "data.json").read_text()) == NUMBERS


def test_numbers_that_an_earlier_version_did_not_write_are_not_compared(tmp_path):
    claim(tmp_path, NUMBERS, resumes=False)
    more = NUMBERS | {"val_images": 4}
    claim(tmp_path, more)
    with pytest.raises(ValueError, match="val images: 4 before, 5 now.;"):
        claim(tmp_path, NUMBERS | {"val_images": 5})
    assert json.loads((tmp_path / "data.json").read_text()) == more


@pytest.mark.parametrize("content", ["[8]", "{", ""])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path, content):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(ValueError, match="data.json: .*delete it if the data have not"):
        claim(tmp_path, NUMBERS)

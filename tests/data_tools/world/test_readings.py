"""What the readings of a world say about images."""

import numpy as np
import pytest

from data_tools.world.judge import Judge
from data_tools.world.readings import main, read_attributes
from data_tools.world.scenes import Scene, general_scenes
from data_tools.world.train_all import CHECKPOINTS
from data_tools.world.train_images import paint_all


class JudgeThatSeesRedBalls:
    def read(self, images):
        shapes = ["ball"] * len(images)
        return {
            "shape": shapes,
            "colour": ["red"] * len(images),
            "background": ["snow"] * len(images),
            "concept": shapes,
        }


def test_a_share_for_each_attribute_that_the_scenes_name():
    scenes = [Scene("lion_head", "snow"), Scene("bird_nest", "sand")]
    shares = read_attributes(JudgeThatSeesRedBalls(), np.zeros((2, 4, 4, 3), np.uint8), scenes)
    assert shares == {"concept": 0.0, "background": 0.5}


@pytest.mark.slow
def test_painted_images_are_read_and_empty_ones_are_not():
    judge, scenes = Judge.load(CHECKPOINTS / "judge"), general_scenes(60, 5)
    images = paint_all(scenes)
    assert min(read_attributes(judge, images, scenes).values()) > 0.9
    assert read_attributes(judge, np.zeros_like(images), scenes)["shape"] < 0.5


@pytest.mark.slow
def test_the_command_reads_the_small_worlds_teacher(capsys):
    folders = ["--judge", str(CHECKPOINTS / "judge"), "--teacher", str(CHECKPOINTS / "sd15")]
    assert main([*folders, "--images", "4", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{kind} {way}" for kind in ("general", "culture") for way in ("painted", "rebuilt", "drawn")
    ]


@pytest.mark.slow
def test_a_folder_without_a_teacher_is_said(tmp_path, capsys):
    assert main(["--judge", str(CHECKPOINTS / "judge"), "--teacher", str(tmp_path)]) == 2
    assert "no diffusers pipeline here" in capsys.readouterr().err

"""What measures the example of real things: its judge, prompts by other words, colours and styles, and the nearest training images."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from examples.emoji import colors, nearest, prompts, synonyms, train_judge, word
from examples.emoji import judge as judges
from examples.emoji.colors import color_shares, main_color
from examples.emoji.compositions import BACKGROUNDS, Place
from examples.emoji.gallery import Gallery, color_behind
from examples.emoji.judge import FILE, MEASURED, Judge, load, save, shrunk
from examples.emoji.scorer import Scorer
from examples.emoji.things import LINES, Thing, read_things, write_things
from imagen_diffusers import ImagenCascadePipeline, bundled
from imagen_diffusers.evaluation.prompts import read_prompts
from imagen_diffusers.images import save_png

from .conftest import seeded

THINGS = (
    Thing("violin", "violin.webp", ("music", "bow"), "objects"),
    Thing("pig", "pig.webp", ("animal",), "animals-nature"),
    Thing("pig face", "pig face.webp", ("animal", "snout"), "animals-nature"),
    Thing("flag of Japan", "flag.webp", (), "flags", mirrors=False),
)
COLORS = ((200, 30, 30), (90, 160, 60), (250, 230, 40), (245, 245, 245))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Things of one colour each, with marks by which they can be told apart on every background."""
    root = tmp_path_factory.mktemp("things")
    for i, (thing, color) in enumerate(zip(THINGS, COLORS, strict=True)):
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[4:60, 8:40] = (*color, 255)
        pixels[4:20, 40:56] = (*color, 255)  # on one side alone
        pixels[8:52, 12:36][(np.s_[::11], np.s_[:, ::11], np.s_[:12], np.s_[24:])[i]] = (0, 0, 0, 255)
        Image.fromarray(pixels).save(root / thing.file, lossless=True)
    write_things(root / "folder", THINGS, root)
    return root / "folder"


@pytest.fixture(scope="module")
def styled(folder, tmp_path_factory) -> Path:
    """The same things, all but the flag in a flat style, too, which has lines across."""
    place = tmp_path_factory.mktemp("styled")
    things = [replace(thing, styles={"flat": f"flat {thing.file}"}) for thing in THINGS[:3]] + [THINGS[3]]
    write_things(place, things, folder / "images")
    for thing in things[:3]:
        with Image.open(folder / "images" / thing.file) as image:
            pixels = np.array(image)
        pixels[::6, 8:40] = (255, 255, 255, 255)
        Image.fromarray(pixels).save(place / "images" / thing.styles["flat"], lossless=True)
    return place


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    """The folder of one that knows nothing."""
    torch.manual_seed(0)
    save(Judge([thing.name for thing in THINGS]), place := tmp_path_factory.mktemp("judge"))
    return place


def true_images(folder: Path) -> torch.Tensor:
    return torch.stack([train_judge.held_out_composition(THINGS, folder, i) for i in range(len(THINGS))])


@pytest.mark.thorough
def test_the_judge_learns(folder, tmp_path) -> None:
    training = train_judge.Training(THINGS, folder, tmp_path, steps=12, size=8, learning_rate=3e-3)
    losses = [training._one_step(*training.batches[number])[0] for number in range(12)]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_accuracy_is_the_share_of_first_and_of_five_names(folder) -> None:
    class OfPigs:
        """Whatever it sees, it takes it for a pig, or else for a violin."""

        def best(self, images: torch.Tensor, count: int) -> list[list[str]]:
            assert images.shape == (8, 3, 64, 64) and count == 5
            return [["pig", "violin"]] * 8

        def best_style(self, images: torch.Tensor) -> list[str | None]:
            return [None] * 8

    right = train_judge.accuracy(OfPigs(), THINGS, folder, 8)  # pyright: ignore[reportArgumentType]
    kinds = ("held-out compositions", "the same, blurred and resampled")
    assert {name: (figure.value, figure.count) for name, figure in right.items()} == {
        **{kind: (0.25, 8) for kind in kinds},
        **{f"{kind}, among five names": (0.5, 8) for kind in kinds},
    }


@pytest.mark.thorough
def test_the_judge_is_trained_on_both_styles(styled, tmp_path) -> None:
    things = read_things(styled)
    training = train_judge.Training(things, styled, tmp_path, steps=2, size=4, learning_rate=3e-3)
    assert training.judge.styles == ("3d", "flat")
    head = training.judge.style_head.weight.detach().clone()  # pyright: ignore[reportOptionalMemberAccess]
    training._one_step(*training.batches[0])
    assert not torch.equal(head, training.judge.style_head.weight)  # pyright: ignore[reportOptionalMemberAccess]
    images, chosen, styles = train_judge.batch(things, styled, 0, 400)
    flat = styles.bool()
    assert 0.4 < flat[chosen < 3].float().mean() < 0.6 and not flat[chosen == 3].any()
    red = (images[:, 0] - images[:, 1]).clamp(min=0).mean((1, 2))  # lines across the violin, which is red, are white
    assert red[(chosen == 0) & flat].mean() < 0.95 * red[(chosen == 0) & ~flat].mean()


def test_accuracy_is_taken_of_each_style(styled) -> None:
    class OfSolidPigs:
        def best(self, images: torch.Tensor, count: int) -> list[list[str]]:
            return [["pig"]] * len(images)

        def best_style(self, images: torch.Tensor) -> list[str | None]:
            return ["3d"] * len(images)

    right = train_judge.accuracy(OfSolidPigs(), read_things(styled), styled, 8)  # pyright: ignore[reportArgumentType]
    found = {name: (figure.value, figure.count) for name, figure in right.items() if "five" not in name and "blurred" not in name}
    assert found == {
        "held-out compositions": (0.25, 8),
        "held-out compositions, the style": (1, 8),
        "flat: held-out compositions": (pytest.approx(1 / 3), 6),
        "flat: held-out compositions, the style": (0, 6),
    }


def test_larger_images_are_read_as_small_ones(folder, judge) -> None:
    images = true_images(folder)
    assert load(judge).best(images.repeat_interleave(4, 2).repeat_interleave(4, 3), 4) == load(judge).best(images, 9)
    assert torch.equal(shrunk(images.repeat_interleave(2, 2)), images)  # higher than wide


@pytest.mark.parametrize("count", ["0", "13"])
def test_a_word_is_learned_from_as_many_images_as_there_are_backgrounds(capsys, count) -> None:
    with pytest.raises(SystemExit):
        word.main(["--images", count])
    assert f"--images is {count}; give 1 to 12" in capsys.readouterr().err


def test_a_word_is_learned_from_as_many_images_as_are_asked_for(folder, tmp_path) -> None:
    for count in (5, 3):
        word.write_images(read_things(folder)[0], folder, tmp_path / "images", count)
        assert len(list((tmp_path / "images").iterdir())) == count


def test_training_in_slices_of_time_gives_the_same_bits(folder, tmp_path, capsys) -> None:
    given = [f"--folder={folder}", "--max_train_steps=3", "--train_batch_size=2", "--count=1"]
    train_judge.main([*given, f"--output_dir={tmp_path / 'whole'}"])
    for step in (1, 2):
        train_judge.main([*given, f"--output_dir={tmp_path / 'parts'}", "--time_limit=0"])
        assert f"time is up at step {step} of 3" in capsys.readouterr().out and not (tmp_path / "parts" / FILE).exists()
    train_judge.main([*given, f"--output_dir={tmp_path / 'parts'}", "--dataloader_num_workers=1"])
    assert (tmp_path / "parts" / MEASURED).read_text() == capsys.readouterr().out
    whole, parts = load(tmp_path / "whole"), load(tmp_path / "parts")  # the files may have their metadata in another order
    assert whole.names == parts.names and whole.styles == parts.styles
    assert all(torch.equal(one, parts.state_dict()[name]) for name, one in whole.state_dict().items())
    with pytest.raises(ValueError, match="'steps': 3.*'steps': 4.*choose another folder"):
        train_judge.main([f"--folder={folder}", f"--output_dir={tmp_path / 'parts'}", "--max_train_steps=4", "--train_batch_size=2"])
    shutil.copytree(folder, tmp_path / "renamed")
    lines = (tmp_path / "renamed" / LINES).read_text().splitlines()
    (tmp_path / "renamed" / LINES).write_text("\n".join([*lines[1:], lines[0]]))
    with pytest.raises(ValueError, match="'names and files'.*choose another folder"):
        train_judge.main([*given, f"--folder={tmp_path / 'renamed'}", f"--output_dir={tmp_path / 'whole'}"])


def test_faults_of_generated_images_leave_them_alike_and_differ() -> None:
    images = torch.rand(4, 3, 8, 8, generator=seeded()).repeat_interleave(8, 2).repeat_interleave(8, 3)
    faulty, again = (train_judge.as_generated(images, np.random.default_rng(0)) for _ in range(2))
    assert torch.equal(faulty, again) and faulty.min() >= 0 and faulty.max() <= 1
    apart = (faulty - images).abs().mean((1, 2, 3))
    assert (apart > 0.005).all() and (apart < 0.15).all() and apart.unique().numel() == 4


def test_things_have_the_colour_of_their_vivid_pixels() -> None:
    image = torch.full((3, 32, 32), 0.5)
    assert main_color(color_shares(image)) is None  # nothing is there
    image[:, 8:24, 8:24] = torch.tensor([0.2, 0.2, 0.9])[:, None, None]
    image[:, 20:24, 8:24] = torch.tensor([0.9, 0.5, 0.7])[:, None, None]
    shares = color_shares(image)
    assert shares["blue"] == pytest.approx(0.75) and shares["pink"] == pytest.approx(0.25) and main_color(shares) == "blue"
    image[:, 8:24, 8:24] = 0.9
    assert main_color(color_shares(image)) is None and sum(color_shares(image).values()) == 0


def test_other_words_are_of_the_same_meaning_and_in_no_caption(folder, tmp_path, capsys) -> None:
    lines = (
        "  1 a licence",
        "02395406 05 n 05 hog 0 pig 0 grunter 0 bows 0 Sus_scrofa 0 001 @ 02395003 n 0000 | domestic swine",
        "03973839 06 n 02 pig_bed 0 pig 1 001 @ 03084420 n 0000 | mold consisting of a bed of sand",
        "04536866 06 n 02 violin 0 violins 0 001 @ 02880546 n 0000 | bowed instrument",
    )
    (tmp_path / "data.noun").write_text("\n".join(lines) + "\n")
    used = ("hog n 1 1 @ 1 1 02395406", "pig n 2 1 @ 2 1 02395406 03973839", "violin n 1 1 @ 1 1 04536866")
    (tmp_path / "index.noun").write_text("\n".join(used) + "\n")
    found = list(synonyms.candidates(THINGS, tmp_path))
    # A thing is no mold; "bows" is a caption's word in the plural, and "violins" another form of the name.
    assert found == [(name, ("hog", "grunter", "Sus scrofa"), "domestic swine") for name in ("pig", "pig face")]
    synonyms.main([f"--folder={folder}", f"--wordnet={tmp_path}"])
    assert "pig face: hog, grunter, Sus scrofa (domestic swine)" in capsys.readouterr().out
    with pytest.raises(OSError, match="holds no data.noun; give WordNet's dictionary"):
        list(synonyms.candidates(THINGS, tmp_path / "other"))


def test_chosen_words_stand_for_all_things_that_they_name() -> None:
    chosen = synonyms.chosen()
    assert set(chosen) < set(prompts.KINDS)
    names = {name: word for kind in chosen.values() for word, things in kind.items() for name in things}
    assert len(names) > 150 and not any(synonyms.words_of(name) & synonyms.words_of(word) for name, word in names.items())
    meant = synonyms.synonyms("synonym", THINGS)
    assert {word: [thing.name for thing in things] for word, things in meant.items()} == {
        **dict.fromkeys(("hog", "grunter", "squealer"), ["pig face", "pig"]),
        "fiddle": ["violin"],
    }
    hog = Thing("wild hogs", "", (), "animals-nature")
    assert "hog" not in synonyms.synonyms("synonym", [*THINGS, hog])  # a caption holds it now


def test_prompts_take_turns_and_name_what_they_mean(folder, tmp_path) -> None:
    prompts.main([f"--folder={folder}", f"--output={tmp_path / 'prompts.jsonl'}", "--count=16"])
    made = read_prompts(tmp_path / "prompts.jsonl")
    assert prompts.KINDS[-1] == "unseen style"  # which none of these things has
    assert [row["kind"] for row in made] == [*prompts.KINDS[:-1]] * 4 and {row["style"] for row in made} == {"3d"}
    assert prompts.rows(folder, 4, ["synonym"]) == made[1::4]
    assert {row["things"][0] for row in made[::4]} == {thing.name for thing in THINGS}
    assert all(row["things"][0] in row["prompt"] and row["color"] is None for row in made[::4])
    for row in made[1::4]:
        assert not any(name in row["prompt"] for name in row["things"]) and row["things"] in (["violin"], ["pig face", "pig"])
    assert all("Sus scrofa" in row["prompt"] and row["things"] == ["pig face", "pig"] for row in made[2::4])
    assert all(row["other_things"] is None for row in made[2::4])  # there is no word for another thing
    own = {"violin": "red", "pig": "green", "pig face": "yellow"}
    for row in made[3::4]:
        assert f"{row['color']} {row['things'][0]}" in row["prompt"] and row["color"] != own[row["things"][0]]
    assert len({row["color"] for row in made[3::4]}) > 1
    write_things(tmp_path / "violin", THINGS[:1], folder.parent)
    with pytest.raises(ValueError, match='none of the 1 things .* "scientific name"; leave it out of --kinds'):
        prompts.rows(tmp_path / "violin", 1, ["scientific name"])


def test_prompts_ask_for_things_in_the_style_that_they_are_not_trained_in(styled, folder) -> None:
    made = prompts.rows(styled, 10)
    assert [row["kind"] for row in made] == [*prompts.KINDS] * 2
    assert [row for row in made if row["kind"] in prompts.KINDS[:-1]] == prompts.rows(folder, 8)  # the others are the same
    for row in made[4::5]:
        assert row["things"] == ["violin"] and row["style"] == "flat" and row["other_things"] is None
        assert "violin" in row["prompt"] and "flat" in row["prompt"] and "3d" not in row["prompt"]
    with pytest.raises(ValueError, match='none of the 4 things .* "unseen style"; leave it out of --kinds'):
        prompts.rows(folder, 1, ["unseen style"])


def test_content_and_style_have_to_be_right(folder, styled, judge, tmp_path) -> None:
    class Knowing:
        names, styles = tuple(thing.name for thing in THINGS), ("3d", "flat")

        def best(self, images: torch.Tensor, count: int) -> list[list[str]]:
            return [["violin"], ["violin"], ["pig"], ["violin"]]

        def best_style(self, images: torch.Tensor) -> list[str]:
            return ["flat", "3d", "flat", "flat"]

    scorer = Scorer(styled)
    scorer.judge = Knowing()  # pyright: ignore[reportAttributeAccessIssue]
    flat = {"kind": "unseen style", "things": ["violin"], "style": "flat"}
    images = true_images(folder)
    found = scorer(images, [flat, flat, flat, {"kind": "name", "things": ["violin"], "style": "3d"}])
    assert found["unseen style: thing"] == [True, True, False, None]
    assert found["unseen style: style"] == [True, False, True, None]
    assert found["unseen style: thing and style"] == [True, False, False, None]
    assert found["name: style"] == found["name: thing and style"] == [None, None, None, False]
    # A judge of one style answers for things alone, and is not asked for another style.
    one = Scorer(judge)(images[:1], [{"kind": "name", "things": ["violin"], "style": "3d"}])
    assert one["name: style"] == one["name: thing and style"] == [None] and one["name: thing"][0] is not None
    with pytest.raises(ValueError, match="a judge of the style 3d, and a row asks for 'flat'; train one on things that have it"):
        Scorer(judge)(images[:1], [flat])


def test_images_are_right_that_show_one_of_the_things_meant_in_the_colour_asked_for(folder) -> None:
    class Knowing:
        names, styles = tuple(thing.name for thing in THINGS), ("3d",)

        def best_style(self, images: torch.Tensor) -> list[str | None]:
            return [None] * len(images)

        def best(self, images: torch.Tensor, count: int) -> list[list[str]]:
            """Of the violin and the pigs in their order; it takes the flag for a pig."""
            return [["violin", "pig"], ["pig", "violin"], ["pig face", "pig"], ["pig", "flag of Japan"]][: len(images)]

    meant = [["violin"], ["pig face", "pig"], ["pig"], ["flag of Japan"]]
    others = [["pig"], None, ["violin"], ["pig"]]
    rows = [{"kind": "name", "things": things, "other_things": other} for things, other in zip(meant, others, strict=True)]
    scorer = Scorer(folder)
    scorer.judge = Knowing()  # pyright: ignore[reportAttributeAccessIssue]
    images = true_images(folder)
    assert scorer(images, rows)["name: thing"] == [True, True, False, False]
    assert scorer(images, rows)["name: thing, among 5 names"] == [True, True, True, True]
    assert scorer(images, rows)["name: thing, prompts shuffled"] == [False, None, False, True]
    colored = [
        {"kind": "another color", "things": ["violin"], "color": "red"},
        {"kind": "another color", "things": ["pig"], "color": "blue"},
    ]
    found = scorer(images[:2], colored)
    assert {name: values for name, values in found.items() if any(value is not None for value in values)} == {
        "another color: thing": [True, True],
        "another color: thing, among 5 names": [True, True],
        "another color: color": [True, False],
        "another color: thing and color": [True, False],
    }


def test_how_colors_are_told_is_part_of_the_fingerprint(judge, monkeypatch) -> None:
    before = Scorer(judge).fingerprint
    monkeypatch.setattr(colors, "__file__", __file__)
    assert Scorer(judge).fingerprint != before


def test_what_cannot_be_judged_is_refused(judge, tmp_path) -> None:
    image = torch.rand(1, 3, 64, 64, generator=seeded())
    with pytest.raises(ValueError, match='no "things".*examples.emoji.prompts'):
        Scorer(judge)(image, [{"prompt": "a pig"}])
    with pytest.raises(ValueError, match="a judge without the name otter; train one on .*runs/emoji/judge"):
        Scorer(judge)(image, [{"prompt": "an otter", "things": ["otter"]}])
    with pytest.raises(OSError, match="judge.safetensors is not there; python -m examples.emoji.train_judge"):
        _ = Scorer(tmp_path).fingerprint
    with pytest.raises(OSError, match="holds no PNG; give a folder of generated images"):
        nearest.read_images(tmp_path, 1)


def test_weights_and_names_come_back(tmp_path) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64, generator=seeded())
    for styles, widths in ((("3d",), (8, 16, 16, 32)), (("3d", "flat"), (16, 8, 8, 16))):
        made = Judge(["one", "two"], styles, widths).eval()
        save(made, tmp_path)
        read = load(tmp_path)
        assert read.names == ("one", "two") and read.styles == styles and read.widths == widths
        with torch.no_grad():
            for found, expected in zip(read(images), made(images), strict=True):
                assert expected is found is None or torch.allclose(found, expected, atol=2e-3)  # half precision


def test_the_bundled_judge_knows_all_things_and_both_styles() -> None:
    read = load(bundled("imagen-emoji") / "judge")
    assert read.styles == ("3d", "flat") and len(read.names) == 1855
    assert (bundled("imagen-emoji") / "names.txt").read_text("utf-8").splitlines() == sorted({*read.names})


def test_a_judge_that_was_saved_without_styles_knows_one(tmp_path) -> None:
    save(Judge(["one", "two"], widths=judges.BEFORE["widths"]), tmp_path)
    save_file(load_file(tmp_path / judges.FILE), tmp_path / judges.FILE, {"names": json.dumps(["one", "two"])})
    read = load(tmp_path)
    assert read.styles == ("3d",) and read.names == ("one", "two")
    assert read.best_style(torch.rand(2, 3, 64, 64, generator=seeded())) == [None, None]


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_nearest_training_image_is_found_in_its_size_and_place(folder, mirrored) -> None:
    gallery = Gallery(read_things(folder), folder)
    at = Place(left=20, top=8, width=192, height=224, mirrored=mirrored)  # the violin is 48 x 56
    image = torch.nn.functional.adaptive_avg_pool2d(gallery.shown(0, at, np.array((40, 90, 200))), 64)
    assert np.abs(color_behind(image) - (40, 90, 200)).max() < 1
    (found,) = gallery.nearest(image[None])
    assert found.number == 0 and found.distance < 0.1
    assert found.at == at
    again = torch.nn.functional.adaptive_avg_pool2d(gallery.shown(0, found.at, color_behind(image)), 64)
    assert (again - image).square().mean().sqrt().item() * 255 == pytest.approx(found.distance, abs=1e-3)
    (other,) = gallery.nearest(image[None], ["violin"])
    assert other.number != 0 and other.distance > 20


def test_what_was_not_trained_on_is_not_in_the_gallery(styled) -> None:
    things = read_things(styled)
    files = [one.file for one in Gallery(things, styled).renderings]
    assert files == ["violin.webp", "pig.webp", "flat pig.webp", "pig face.webp", "flat pig face.webp", "flag.webp"]


def test_generated_images_stand_beside_their_nearest(folder, judge, tmp_path, capsys) -> None:
    images = (true_images(folder)[:2] * 255).byte().permute(0, 2, 3, 1).numpy()
    for i, image in enumerate(images):
        save_png(Image.fromarray(image), tmp_path / "images" / f"{i}.png", {})
    given = [f"--folder={folder}", f"--judge={judge}", f"--output={tmp_path / 'grid.png'}", "--count=2", "--controls=2"]
    nearest.main([str(tmp_path / "images"), *given])
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size[0] == 6 * nearest.SHOWN
    told = capsys.readouterr().out
    assert "| generated | trained things, composed anew | their nearest other things |" in told
    row = next(line for line in told.splitlines() if "as copies are" in line)
    assert [cell.split()[0] for cell in row.split("|")[4:5]] == ["0.0"] or "0 %" in row.split("|")[4]


def test_a_judge_trained_here_goes_before_the_bundled_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(judges, "OWN", tmp_path / "own")
    monkeypatch.setattr(judges, "BUNDLED", tmp_path / "bundled")
    assert judges.usual_folder() == tmp_path / "own"
    for there in ("bundled", "own"):
        (tmp_path / there).mkdir()
        (tmp_path / there / FILE).touch()
        assert judges.usual_folder() == tmp_path / there
    monkeypatch.setenv("EMOJI_JUDGE", str(tmp_path / "chosen"))
    assert judges.usual_folder() == tmp_path / "chosen"


@pytest.mark.thorough
def test_the_bundled_cascade_generates_things_on_the_background_that_is_asked_for() -> None:
    """The dynamic thresholding of other cascades turned yellow ones olive."""
    pipe = ImagenCascadePipeline.from_pretrained(bundled("imagen-emoji"), variant="fp16")
    prompts = ["a 3d emoji of a red apple on a yellow background", "a 3d emoji of an owl on a white background"]
    images = pipe(prompts, stop_at=1, generator=[seeded(0), seeded(1)], output_type="pt").images
    assert [names[0] for names in load(bundled("imagen-emoji") / "judge").best(images)] == ["red apple", "owl"]
    behind = torch.stack([image[:, [0, 0, -1, -1], [0, -1, 0, -1]].median(1).values * 255 for image in images])
    nearest_color = torch.cdist(behind, torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32)).argmin(1)
    assert [list(BACKGROUNDS)[i] for i in nearest_color.tolist()] == ["yellow", "white"]

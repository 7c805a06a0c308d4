"""The cells of the ablation study, and the contrasts between them."""

import pytest

from tempseg_jax import builders
from tempseg_jax.builders import config_fields
from tempseg_jax.builders.plan import Plan
from tempseg_jax.sweep import cells
from tempseg_jax.sweep.report import paper
from tempseg_jax.sweep.run import run_sweep
from tempseg_jax.sweep.scope import Scope
from tests.support import load_config


def test_every_cell_overrides_existing_fields_of_the_config(demo_config):
    for cell in cells.CELLS:
        config = cells.configure(demo_config, cell, seed=7)
        assert config.seed == 7
        assert set(config.objective) == set(demo_config.objective)
        assert set(config.optimizer) == set(demo_config.optimizer)
        assert set(config.model) == set(demo_config.model)


def test_the_cells_of_table_3_are_the_papers(demo_config):
    objectives = [
        cells.configure(demo_config, cell, seed=0).objective
        for cell in cells.TABLES["3"].cells
    ]
    assert [x.alpha for x in objectives] == [0.0, 0.05, 0.05, 0.05]
    assert [x.temperature_g for x in objectives] == [1.0, 1.0, 0.5, 2.0]
    assert [x.temperature_d for x in objectives] == [1.0] * 4


def test_the_two_cells_of_a_contrast_differ_in_one_setting(demo_config):
    def flat(cell):
        config = cells.configure(demo_config, cell, seed=0)
        hyper = builders.hyperparameters(config, Plan(2, 1, 1))._asdict()
        hyper.pop("learning_rate_schedule")
        hyper.pop("temperature_schedule")
        for field in ("adversary", "conditional", "critic_steps", "mask_void", "real"):
            hyper[field] = config.objective[field]
        hyper["d"] = config.model.discriminator
        hyper["optimizer_d"] = config.optimizer.discriminator
        for field in ("name", "head", "output_stride", "dropout", "drop_connect"):
            hyper[field] = config.model[field]
        for field in ("class_weights", "hard_pixels"):
            hyper[field] = config.objective[field]
        hyper["labeled_fraction"] = config.data.labeled_fraction
        if not hyper["alpha"]:  # without D these have no effect
            hyper |= {"temperature_adv": None, "temperature_d": None}
        return hyper

    changed = {
        (contrast.cell, contrast.against): {
            name
            for name, value in flat(contrast.cell).items()
            if value != flat(contrast.against)[name]
        }
        for contrast in cells.CONTRASTS
    }
    without_d = {"alpha", "temperature_adv", "temperature_d"}
    without_labels = without_d | {"adversary", "d", "learning_rate_d"}
    without_labels |= {"unlabeled_alpha"}
    both = {"temperature_seg", "temperature_adv"}
    assert changed == {
        ("tg0.5", "baseline"): without_d | {"temperature_seg"},
        ("adversarial", "baseline"): without_d,
        ("tg0.5", "adversarial"): both,
        ("seg_only", "baseline"): {"temperature_seg"},
        ("tg0.5", "seg_only"): without_d,
        ("tg0.5", "rate_matched"): both | {"learning_rate_g"},
        ("adv_only", "adversarial"): {"temperature_adv"},
        ("adversarial", "frozen_d"): {"learning_rate_d"},
        ("learning_d", "adversarial"): {"learning_rate_d"},
        ("void_shown", "adversarial"): {"mask_void"},
        ("seg_only", "head_rate4"): {"temperature_seg", "head_rate"},
        ("label_smoothing", "baseline"): {"label_smoothing"},
        ("lambda5e-4", "baseline"): {"weight_decay"},
        ("l1", "baseline"): {"l1"},
        ("dropout0.5", "dropout0"): {"dropout"},
        ("drop_connect", "dropout0"): {"drop_connect"},
        ("weights_inverse", "baseline"): {"class_weights"},
        ("weights_median", "baseline"): {"class_weights"},
        ("weights_effective", "baseline"): {"class_weights"},
        ("ohem", "baseline"): {"hard_pixels"},
        ("learning_d", "baseline"): without_d | {"learning_rate_d"},
        ("real_smoothed", "learning_d"): {"real"},
        ("adv_dcgan", "adv_lsgan"): {"adversary"},
        ("adv_minimax", "adv_dcgan"): {"adversary"},
        ("adv_wgan_gp", "adv_wgan"): {"adversary", "optimizer_d", "learning_rate_d"},
        ("d_sn", "adv_lsgan"): {"d"},
        ("adv_hinge", "d_sn"): {"adversary"},
        ("d_fcn", "adv_dcgan"): {"d"},
        ("d_conditional", "adv_lsgan"): {"conditional"},
        ("labels_adv", "labels_eighth"): without_labels,
        ("labels_semi", "labels_adv"): {"semi_weight"},
        ("labels_semi", "labels_eighth"): without_labels | {"semi_weight"},
        ("labels_all", "labels_eighth"): {"labeled_fraction"},
        ("net_score16", "net_score32"): {"output_stride"},
        ("net_score8", "net_score16"): {"output_stride"},
        ("net_fcn", "net_score16"): {"head"},
        ("net_fcn_auxiliary", "net_fcn"): {"auxiliary_weight"},
        ("net_aspp", "net_fcn"): {"head"},
        ("net_deeplabv3plus", "net_aspp"): {"head"},
    }


def test_the_matched_learning_rate_has_the_scale_of_the_gradient_at_t_g(demo_config):
    matched = cells.configure(demo_config, "rate_matched", seed=0)
    halved = cells.configure(demo_config, "tg0.5", seed=0)
    scale = 1 / halved.objective.temperature_g
    rate = halved.optimizer.learning_rate_g * scale
    assert matched.optimizer.learning_rate_g == rate


def test_a_cell_of_several_tables_is_trained_once(demo_config):
    assert cells.trained_as(demo_config, "lambda0") == "baseline"
    demo_config.optimizer.weight_decay = 5e-4
    assert cells.trained_as(demo_config, "lambda0") == "lambda0"
    assert cells.trained_as(demo_config, "lambda5e-4") == "baseline"
    chosen = cells.choose(demo_config, ("1", "2", "3", "controls"))
    assert len(chosen) == len(set(chosen)) == 15


def test_the_grid_has_every_temperature_with_every_learning_rate(demo_config):
    chosen = cells.choose(demo_config, ("grid",))
    settings = []
    for cell in chosen:
        config = cells.configure(demo_config, cell, seed=0)
        assert config.objective.alpha == 0
        rate = config.optimizer.learning_rate_g / demo_config.optimizer.learning_rate_g
        t = builders.training_temperature(config)
        settings.append((t, pytest.approx(rate)))
    expected = [(t, f) for t in (0.5, 1.0, 2.0) for f in (0.5, 1.0, 2.0, 4.0)]
    assert sorted(settings, key=str) == sorted(expected, key=str)
    assert {"baseline", "seg_only"} < set(chosen)  # which other tables have as well
    with_d = cells.choose(demo_config, ("rates",))
    assert {"adversarial", "rate_matched", "tg0.5"} < set(with_d) and len(with_d) == 8


def test_a_setting_can_have_a_learning_rate_of_its_own(demo_config):
    base = demo_config.optimizer.learning_rate_g
    rates = {"baseline": 0.5, "rate_matched": 3.0}
    for cell, factor in (("baseline", 0.5), ("rate_matched", 6.0), ("tg0.5", 1.0)):
        own = cells.configure(demo_config, cell, seed=0, rates=rates)
        assert own.optimizer.learning_rate_g == pytest.approx(factor * base)
    # With these factors other cells become equal, or stop being equal.
    assert cells.trained_as(demo_config, "baseline", rates) == "baseline"
    assert cells.trained_as(demo_config, "t1_rate0.5", rates) == "baseline"
    assert cells.trained_as(demo_config, "t1_rate1", rates) == "lambda0"
    with pytest.raises(ValueError, match="--rates: 'basline' is not a cell"):
        cells.choose(demo_config, ("3",), {"basline": 2.0})


def test_a_network_that_a_cell_does_not_fit_is_refused_before_training(
    demo_config, tmp_path, monkeypatch
):
    # FCN-8s has no BatchNorm.
    weights = {"model.pretrained": "vgg16.tv_in1k"}
    override = {"model.freeze_batch_norm": "all"} | weights
    cell = cells.CELLS["ohem"]._replace(overrides=override)
    monkeypatch.setitem(cells.CELLS, "ohem", cell)
    with pytest.raises(ValueError, match="model.freeze_batch_norm: 'all' is not supp"):
        run_sweep(
            demo_config,
            tmp_path,
            scope=Scope(
                tables=("regularizers",), seeds=1, test_split="", train_images=None
            ),
            shard=(1, 1),
            keep_checkpoints=False,
        )
    assert not list(tmp_path.iterdir())


def test_t_1_is_t_1_whatever_the_schedule_of_the_config(demo_config):
    demo_config.objective.temperature_schedule = "cosine"
    demo_config.objective.temperature_end = 2.0
    for cell in ("baseline", "adversarial", "tg0.5"):
        config = cells.configure(demo_config, cell, seed=0)
        config_fields.check_fields(config)
        assert config.objective.temperature_schedule == "constant"
    cell = cells.configure(demo_config, "cosine_t", seed=0)
    assert cell.objective.temperature_schedule == "cosine"


def test_the_table_of_adversaries_is_the_same_for_every_adversary_of_the_config():
    table = cells.TABLES["adversaries"].cells
    configs = [load_config("fcn_voc"), load_config("wgan_gp_voc")]
    fields = ("model.discriminator", "optimizer.discriminator", "objective.conditional")
    for cell in set(table) - {"baseline", "real_smoothed"}:
        lsgan, wgan = (cells.configure(x, cell, seed=0) for x in configs)
        assert lsgan.objective == wgan.objective, cell
        for section, field in (x.split(".") for x in fields):
            assert lsgan[section][field] == wgan[section][field], (cell, field)
    assert cells.trained_as(configs[0], "adv_lsgan") == "learning_d"
    assert cells.trained_as(configs[1], "adv_lsgan") == "adv_lsgan"


@pytest.mark.parametrize(
    "changes, case",
    [
        ({}, "ResNet-50-V"),
        ({"data.name": "cityscapes", "data.train_split": "train"}, "ResNet-50-C"),
        ({"data.train_split": "train"}, None),
        ({"data.name": "folder"}, None),
        ({"data.train_fraction": 0.1}, None),
        ({"data.labeled_fraction": 0.125}, None),
        ({"model.width": 0.5}, None),
        ({"model.head": "deeplabv3plus"}, None),
        ({"model.output_stride": 16}, None),
        ({"model.output_stride": 32}, "ResNet-50-V"),
    ],
)
def test_the_papers_numbers_are_of_its_own_settings_only(changes, case):
    config = load_config("resnet50_voc")
    config.update_from_flattened_dict(changes)
    assert paper.case(config) == case


def test_a_sweep_without_an_adversary_is_refused(demo_config):
    demo_config.objective.alpha = 0.0
    with pytest.raises(ValueError, match=r"objective\.alpha"):
        cells.choose(demo_config, ("3",))


def test_an_unknown_table_is_refused(demo_config):
    with pytest.raises(ValueError, match="'5' is not one of 1, 2, 3, 4, controls"):
        cells.choose(demo_config, ("5",))

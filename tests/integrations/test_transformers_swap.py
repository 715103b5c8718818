"""The DETR family of transformers with its losses swapped: for the same ones, and for others."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import detloss
from detloss.integrations import swapped, torchvision
from detloss.integrations.transformers import swap_losses
from helpers.swapping import Counting, curve, retinanet, retinanet_step

pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of transformers' own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
transformers = pytest.importorskip("transformers")

DETR = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "encoder_layers": 1,
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
RT_DETR = {
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 16, 16],
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "feat_strides": [8, 16, 32],
    "decoder_in_channels": [16, 16, 16],
    "num_feature_levels": 3,
    "decoder_attention_heads": 2,
    "decoder_n_points": 2,
    "num_denoising": 8,
    "anchor_image_size": None,
}
D_FINE = {"decoder_n_points": [2, 2, 2], "hidden_expansion": 1.0, "encoder_layers": 1}
LW_DETR = {
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "decoder_n_points": 2,
    "group_detr": 2,
}
DEFORMABLE = {"num_feature_levels": 3, "encoder_n_points": 2, "decoder_n_points": 2, "d_model": 32}


def resnet(stages, kind="ResNet"):
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "layer_type": "basic"}
    return getattr(transformers, f"{kind}Config")(**sizes, out_features=[f"stage{stage}" for stage in stages])


def vit():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
    windows = {"window_block_indices": [0], "num_windows": 4, "num_windows_side": 2}
    return transformers.LwDetrViTConfig(
        **sizes, **windows, image_size=64, pretrain_image_size=64, out_indices=[0, 1]
    )


def dino():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
    return {
        "model_type": "rf_detr_dinov2",
        **sizes,
        "image_size": 64,
        "out_indices": [1, 2],
        "num_windows": 2,
        "num_register_tokens": 0,
    }


def build(kind, body, **settings):
    common = {"d_model": 16, "decoder_ffn_dim": 16, "decoder_layers": 2, "num_queries": 12, "dropout": 0.0}
    config = getattr(transformers, f"{kind}Config")(
        **{**common, **settings}, backbone_config=body, auxiliary_loss=True, num_labels=3
    )
    return getattr(transformers, f"{kind}ForObjectDetection")(config)


def rt_backbone():
    return resnet((2, 3, 4), "RTDetrResNet")


MODELS = {
    "rt_detr": lambda: build("RTDetr", rt_backbone(), **RT_DETR),
    "rt_detr_v2": lambda: build("RTDetrV2", rt_backbone(), **RT_DETR),
    "d_fine": lambda: build(
        "DFine",
        rt_backbone(),
        **{**RT_DETR, "decoder_n_points": [2, 2, 2]},
        hidden_expansion=1.0,
        encoder_layers=1,
    ),
    "deimv2": lambda: build("Deimv2", rt_backbone(), **{**RT_DETR, **D_FINE}),
    "detr": lambda: build("Detr", resnet((4,)), **DETR),
    "conditional_detr": lambda: build("ConditionalDetr", resnet((4,)), **DETR),
    "deformable_detr": lambda: build("DeformableDetr", resnet((2, 3, 4)), **{**DETR, **DEFORMABLE}),
    "lw_detr": lambda: build(
        "LwDetr", vit(), **LW_DETR, projector_scale_factors=[1.0], hidden_expansion=0.5, c2f_num_blocks=1
    ),
    "rf_detr": lambda: build("RfDetr", dino(), **LW_DETR),
}


VARIFOCAL, IA_BCE = ("rt_detr", "rt_detr_v2", "d_fine"), ("lw_detr", "rf_detr")
SAME = {
    **dict.fromkeys(VARIFOCAL, "varifocal,detach_weight=true"),
    **dict.fromkeys(IA_BCE, "ia_bce"),
    "deimv2": "mal,gamma=2",
    "detr": "softmax_focal,gamma=0",
    "conditional_detr": "focal,alpha=0.25",
    "deformable_detr": detloss.SigmoidFocalLoss(),
}
SOFTMAX = ("detr",)
CLASS_TERMS = ("loss_ce", "loss_vfl", "loss_mal")


@pytest.fixture(autouse=True)
def double(monkeypatch):
    """Float64 everywhere: curves of the same losses differ by its rounding only.

    In float32 a rounding makes the matcher choose otherwise within some steps, in their code alone too.
    """
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # D-FINE's local term asks for it
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(name):
    torch.manual_seed(1)
    return MODELS[name]().train()


def loss_of(model):
    """Two images; one without objects too, where the matcher of the client can take it."""
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2, 3, 64, 64, generator=generator)
    labels = []
    for count in (3, 1):
        boxes = 0.2 + 0.3 * torch.rand(count, 4, generator=generator)
        labels.append({"boxes": boxes, "class_labels": torch.randint(0, 3, (count,), generator=generator)})
    return model(pixel_values=images, labels=labels).loss


def terms(model):
    torch.manual_seed(3)  # denoising draws
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(1, 3, 64, 64, generator=generator)
    labels = [{"boxes": torch.tensor([[0.4, 0.5, 0.3, 0.2]]), "class_labels": torch.tensor([1])}]
    output = model(pixel_values=images, labels=labels)
    return {"loss": output.loss, **output.loss_dict}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_losses_give_the_same_curve(name):
    model = made(name)
    theirs = curve(model, loss_of)
    with swap_losses(model, SAME[name], "giou", l1="l1"):
        mine = curve(model, loss_of)
    assert_close(mine[:3], theirs[:3], rtol=1e-8, atol=1e-8)
    assert_close(mine, theirs, rtol=1e-4, atol=1e-4)  # D-FINE's distillation makes more of a rounding
    assert theirs[-1] < theirs[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_output_gets_what_was_given_and_nothing_else_changes(name):
    model = made(name)
    theirs = terms(model)
    loss = "softmax_focal,gamma=3" if name in SOFTMAX else "focal,gamma=3"
    for given, changed in (
        ({"classification": loss}, CLASS_TERMS),
        ({"box": "ciou"}, ("loss_giou",)),
        ({"l1": F.smooth_l1_loss}, ("loss_bbox",)),
    ):
        with swap_losses(model, **given):
            mine = terms(model)
        assert list(mine) == list(theirs)
        for term in list(theirs)[1:]:
            same = bool(torch.isclose(mine[term], theirs[term], rtol=1e-6, atol=1e-9))
            assert same != term.startswith(changed), term


@pytest.mark.parametrize("name", [name for name in MODELS if name not in SOFTMAX])
def test_the_loss_that_was_given_is_called(name):
    model, counting = made(name), Counting()
    with swap_losses(model, counting):
        found = terms(model)
        assert counting.calls == sum(term.startswith(CLASS_TERMS) for term in found)
        assert counting.targets.dtype == torch.int64
    calls = counting.calls
    terms(model)
    assert counting.calls == calls


@pytest.mark.parametrize("name", ["rt_detr", "detr", "lw_detr"])
def test_a_batch_without_objects(name):
    model = made(name)
    labels = [{"boxes": torch.zeros(0, 4), "class_labels": torch.zeros(0, dtype=torch.int64)}]
    with swap_losses(model, "softmax_focal" if name in SOFTMAX else "quality_focal", "ciou", l1=F.l1_loss):
        output = model(pixel_values=torch.rand(1, 3, 64, 64), labels=labels)
    output.loss.backward()
    assert output.loss_dict["loss_giou"] == output.loss_dict["loss_bbox"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_restore_restores_and_repr_says_it():
    model = made("rt_detr")
    before, told, attributes = terms(model), repr(model), set(vars(model))
    swap = swap_losses(model, "quality_focal", "ciou")
    assert "losses swapped by detloss: classification=quality_focal, box=ciou" in repr(model)
    assert swapped(model) is swap
    with pytest.raises(ValueError, match="swapped already"):
        swap_losses(model, "focal")
    swap.restore()
    assert (repr(model), set(vars(model)), swapped(model)) == (told, attributes, None)
    after = terms(model)
    assert all(torch.equal(before[term], after[term]) for term in before)


class Nothing(nn.Module):
    """A matcher that gives the first queries to the objects, whatever they predict."""

    def forward(self, outputs, targets):
        return [(torch.arange(len(t["boxes"])), torch.arange(len(t["boxes"]))) for t in targets]


def test_the_matcher_is_swapped_only_when_asked():
    model = made("deformable_detr")
    theirs = terms(model)
    with swap_losses(model, matcher=Nothing()) as swap:
        assert swap.losses == {"matcher": "Nothing()"}
        assert not torch.isclose(terms(model)["loss_bbox"], theirs["loss_bbox"])


def test_copies_and_pickles_are_swapped_by_themselves():
    model = made("deformable_detr")
    swap_losses(model, "focal,gamma=0", "ciou")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = terms(other)["loss"]
        assert torch.equal(terms(model)["loss"], before)
        swapped(other).restore()
        assert swapped(other) is None
        assert not torch.isclose(terms(other)["loss"], before)
    assert swapped(model).losses == {"classification": "focal,gamma=0", "box": "ciou"}


def test_two_models_and_two_clients_do_not_disturb_each_other():
    first, second, third = made("rt_detr"), made("rt_detr"), retinanet().train()
    theirs, others = terms(second), retinanet_step(third)
    swap_losses(first, "bce", "ciou")
    with torchvision.swap_losses(third, "quality_focal"):
        mine = terms(second)
        assert all(torch.equal(mine[term], theirs[term]) for term in theirs)
        assert not torch.isclose(retinanet_step(third)["classification"], others["classification"])
    assert torch.equal(retinanet_step(third)["classification"], others["classification"])
    assert swapped(first).losses == {"classification": "bce", "box": "ciou"}
    assert swapped(second) is swapped(third) is None


def test_what_does_not_fit_is_refused(monkeypatch):
    model = made("deformable_detr")
    with pytest.raises(ValueError, match="model is Linear, whose loss_function is None"):
        swap_losses(nn.Linear(1, 1), "focal")
    with pytest.raises(ValueError, match="softmax_focal, a softmax over classes"):
        swap_losses(model, "softmax_focal")
    with pytest.raises(ValueError, match="focal, a loss of single classes; DetrForObjectDetection"):
        swap_losses(made("detr"), "focal")
    monkeypatch.setattr("detloss.integrations._swap.version", lambda client: "6.0.0.dev0")
    with pytest.raises(RuntimeError, match=r"transformers is 6.0.0.dev0; .* transformers>=5.0,<5.25"):
        swap_losses(model, "focal")
    assert swapped(model) is None

"""Names of nodes to blocks of the network."""

from __future__ import annotations

import pytest

from hybridnets.blocks import BlockNames, sort_blocks


def encoder(blocks: int) -> list[str]:
    return [f"/encoder/_blocks.{index}/_project_conv/Conv" for index in range(blocks)]


@pytest.mark.parametrize(
    ("count", "last_of_stage"),
    # B0 and B3: Tan & Le 2019, table 1, times 1.0 and 1.4, rounded up
    [(16, [0, 2, 4, 7, 10, 14, 15]), (26, [1, 4, 7, 12, 17, 23, 25])],
)
def test_stages_end_where_efficientnet_says(count: int, last_of_stage: list[int]) -> None:
    names = encoder(count)
    block = BlockNames(names)
    found = [block(name) for name in names]
    ends = [max(i for i, b in enumerate(found) if b == f"encoder/stage{stage}") for stage in range(1, 8)]
    assert ends == last_of_stage


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("/encoder/_conv_stem/Conv", "encoder/stem"),
        ("/encoder/_act/Mul", "encoder/stem"),
        ("/bifpn/bifpn.1/conv6_up/pointwise_conv/conv/Conv_weight_DequantizeLinear", "bifpn/cell1"),
        ("/regressor/header/depthwise_conv/conv_4/Conv", "regressor"),
        ("/classifier/act_2/Mul", "classifier"),
        ("/bifpndecoder/seg_blocks.3/block/block.1/Resize", "decoder/branch3"),
        ("/bifpndecoder/seg_p2/block/block.0/block/block.0/conv/Conv", "decoder/p2"),
        ("/bifpndecoder/Add_2", "decoder/sum"),
        ("/segmentation_head/segmentation_head.0/Conv", "segmentation-head"),
        ("/encoder/layer3.1/conv2/Conv", "encoder/layer3"),
        ("/pipeline/detection/NonMaxSuppression", "pipeline/detection"),
        ("", "other"),
        ("onnx::Conv_77", "other"),
    ],
)
def test_blocks_of_single_nodes(name: str, block: str) -> None:
    assert BlockNames([*encoder(16), name])(name) == block


def test_blocks_come_in_the_order_of_the_network() -> None:
    shuffled = ["segmentation-head", "decoder/branch0", "bifpn/cell10", "bifpn/cell2", "encoder/stage1", "encoder/stem"]
    assert sort_blocks([*shuffled, "encoder/stem", "other"]) == [*reversed(shuffled), "other"]

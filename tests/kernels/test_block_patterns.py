"""Block masks and the papers' patterns, each against its definition element by element."""

import pytest
import torch
from torch.testing import assert_close

from kernels.block_sparse_attention import BlockMask, patterns

QUERY, KEY = torch.arange(24)[:, None], torch.arange(24)  # the elements of a map of 24 x 24


def elements(mask):
    return mask.dense()[0, 0]


def whole_blocks(kept, block):
    """The map with every block kept that has a kept element."""
    T, S = kept.shape
    blocks = torch.nn.functional.max_pool2d(kept[None].float(), block, ceil_mode=True)[0] > 0
    return blocks.repeat_interleave(block, 0)[:T].repeat_interleave(block, 1)[:, :S]


# masks


def test_a_mask_made_of_elements_keeps_just_them_and_tells_whole_blocks_from_parts():
    kept = torch.rand(2, 3, 21, 37, generator=torch.Generator().manual_seed(0)) < 0.3
    kept[:, :, :8, :8], kept[:, :, 16:, 32:], kept[0, 0, 8:16, 8:16] = True, True, False
    mask = BlockMask.from_elements(lambda b, h, i, j: kept[b, h, i, j], 8, (21, 37), batch=2, heads=3)
    assert mask.dense().equal(kept)
    assert (mask.elements[:, :, 0, 0] == -1).all()
    assert (mask.elements[:, :, 2, 4] == -1).all()  # 5 x 5 elements exist, and all are kept
    assert not mask.keep[0, 0, 1, 1]
    assert len(mask.patterns) == len(mask.patterns.unique(dim=0))


def test_equal_blocks_share_one_pattern():
    mask = BlockMask.from_elements(lambda b, h, i, j: j <= i, 16, (160, 160))
    assert len(mask.patterns) == 1
    assert elements(mask).equal(torch.ones(160, 160).tril().bool())


def test_a_signature_spares_looking_at_equal_blocks():
    looked = []

    def near(b, h, i, j):
        looked.append(len(i))
        return (i - j).abs() < 9

    at = torch.arange(10)
    mask = BlockMask.from_elements(near, 4, (38, 38), signature=(at[:, None] - at)[None, None])
    assert sum(looked) < 60  # 19 diagonals, more where the last row and column differ
    assert elements(mask).equal((torch.arange(38)[:, None] - torch.arange(38)).abs() < 9)


def test_density_counts_blocks_that_are_kept_in_part():
    mask = BlockMask.from_elements(lambda b, h, i, j: i == j, 8, (32, 32))
    assert mask.density == 0.25


def test_ragged_lists_say_which_blocks_are_kept_and_come_back():
    mask = BlockMask.from_lists(torch.tensor([0, 2, 2, 3]), torch.tensor([0, 2, 1]), 8, (20, 24))
    assert mask.keep.tolist() == [[[[True, False, True], [False, False, False], [False, True, False]]]]
    lists = mask.rows()
    assert lists.starts.tolist() == [0, 2, 2, 3]
    assert lists.entries.tolist() == [0, 2, 1]
    assert lists.order.tolist() == [0, 2, 1]
    assert mask.columns().entries.tolist() == [0, 2, 0]
    with pytest.raises(ValueError, match=r"starts has 3 values and ends at 2, it needs 1 \* 1 \* 3 \+ 1 = 4"):
        BlockMask.from_lists(torch.tensor([0, 2, 2]), torch.tensor([0, 2, 1]), 8, (20, 24))


def test_lists_begin_with_blocks_that_need_no_mask():
    mask = patterns.sliding_window(22, 4, 6)
    lists, kinds = mask.rows(), mask.elements[0, 0]
    for row in range(6):
        whole = lists.entries[lists.starts[row] : lists.middle[row]]
        masked = lists.entries[lists.middle[row] : lists.starts[row + 1]]
        assert (kinds[row, whole] == -1).all()
        assert ((kinds[row, masked] >= 0) | (masked == 5)).all()  # block 5 reaches beyond the last key
        assert mask.keep[0, 0, row].nonzero()[:, 0].tolist() == sorted([*whole.tolist(), *masked.tolist()])


def test_masks_join_element_by_element():
    a, b = (
        patterns.sliding_window(22, 8, 3),
        BlockMask.from_elements(lambda b, h, i, j: (i + j) % 5 == h, 8, (22, 22), heads=2),
    )
    assert (a | b).dense().equal(a.dense() | b.dense())
    with pytest.raises(ValueError, match="8-blocks on 22 x 22 tokens do not join with 4-blocks on 22 x 22"):
        a | patterns.diagonal(22, 4, 1)


def test_padding_keys_are_left_out_in_each_sample():
    mask = patterns.sliding_window(22, 8, 5, global_tokens=[0])
    valid = torch.arange(22) < torch.tensor([22, 8, 13])[:, None]
    assert mask.restricted(valid).dense().equal(mask.dense() & valid[:, None, None])
    with pytest.raises(ValueError, match=r"valid torch.bool \(3, 21\) must be torch.bool \(B or 1, 22\)"):
        mask.restricted(valid[:, 1:])


def test_a_mask_that_does_not_fit_its_tokens_is_named():
    with pytest.raises(ValueError, match=r"keep is torch.bool \(1, 1, 2, 2\), but blocks of 16 on 40 x 32 .* 3, 2\)"):
        BlockMask(torch.ones(1, 1, 2, 2, dtype=torch.bool), 16, (40, 32))
    with pytest.raises(ValueError, match="given together or not at all"):
        BlockMask(torch.ones(1, 1, 2, 2, dtype=torch.bool), 16, (32, 32), patterns=torch.ones(1, 16, 16).bool())


# patterns


@pytest.mark.parametrize("text_first", [True, False])
@pytest.mark.parametrize("text", [0, 5])
def test_diagonal_is_a_band_of_blocks_and_text(text, text_first):
    def is_text(n):
        return (n < text) if text_first else (n >= 24 - text)

    expected = ((QUERY // 4 - KEY // 4).abs() < 2) | whole_blocks(is_text(QUERY) | is_text(KEY), 4)
    assert elements(patterns.diagonal(24, 4, 2, text, text_first)).equal(expected)


@pytest.mark.parametrize("text_first", [True, False])
def test_multi_diagonal_sees_the_same_place_in_all_frames(text_first):
    F, P, text = 4, 5, 4
    first = text if text_first else 0
    tokens = torch.arange(24.0)[:, None]
    moved = patterns.token_major(tokens, F, text, text_first)
    band = elements(patterns.diagonal(24, 4, 1, text, text_first))  # blocks of 4 = the frames of one place
    expected = torch.zeros(24, 24, dtype=torch.bool)
    for n in range(24):
        for m in range(24):
            a, b = n - first, m - first
            video = 0 <= a < F * P and 0 <= b < F * P
            expected[n, m] = not video or a % P == b % P
    place = moved[:, 0].long()
    assert band.equal(expected[place][:, place])
    assert patterns.frame_major(moved, F, text, text_first).equal(tokens)
    with pytest.raises(ValueError, match="24 tokens, 4 of them text, are not 3 frames of equal size"):
        patterns.token_major(tokens, 3, text)


def test_token_major_order_is_place_times_frames_plus_frame():
    moved = patterns.token_major(torch.arange(6)[:, None], frames=2)[:, 0]
    assert moved.tolist() == [0, 3, 1, 4, 2, 5]


def test_vertical_stripe_is_columns_text_and_the_own_block():
    columns = torch.tensor([[False, True, False, False, False, True], [False] * 6])
    mask = patterns.vertical_stripe(24, 4, columns, text=2)
    for head in range(2):
        text = whole_blocks((QUERY < 2) | (KEY < 2), 4)
        assert mask.dense()[0, head].equal(columns[head][KEY // 4] | text | (QUERY // 4 == KEY // 4))


def test_columns_of_highest_mass_up_to_a_density():
    mass = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2, 0.0])
    assert patterns.top_columns(mass, 0.5).nonzero()[:, 0].tolist() == [1, 2, 3]
    first_frame = patterns.token_blocks(24, 4, 0, 5)
    assert first_frame.nonzero()[:, 0].tolist() == [0, 1]
    assert patterns.top_columns(mass, 0.5, first_frame).nonzero()[:, 0].tolist() == [0, 1, 3]


def test_window_width_follows_from_the_density():
    assert patterns.window_width(0.25, 119_056, text=256) == 15_616  # 15,656 tokens, 4.35 frames, in whole blocks
    assert patterns.window_width(1.0, 1024, block=64) == 1024
    assert patterns.window_width(0.001, 1024, block=64) == 64
    width = patterns.window_width(0.3, 4096, block=1)
    i = torch.arange(4096)
    assert ((i[:, None] - i).abs() < width).float().mean().item() == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("density", [0.0, -1.0, 1.5])
def test_a_density_out_of_range_is_refused(density):
    with pytest.raises(ValueError, match=rf"density must be in \(0, 1\], got {density} \(it is the kept share"):
        patterns.window_width(density, 1024)


def test_a_density_below_that_of_text_is_refused():
    with pytest.raises(ValueError, match=r"text alone takes 2 \* 300 / 1000 of the map, more than density 0.5"):
        patterns.window_width(0.5, 1000, text=300)


PUBLISHED = {  # Efficient-vDiT, table 1: frames, reference frames -> sparsity in per cent
    (8, 1): 64.38, (8, 2): 45.47, (8, 3): 29.88, (8, 4): 17.60,
    (24, 3): 72.05, (24, 4): 64.98, (24, 6): 51.88, (24, 8): 40.30, (24, 12): 21.51,
}  # fmt: skip


@pytest.mark.parametrize(("frames", "k"), PUBLISHED)
def test_attention_tile_has_the_published_block_sparsity(frames, k):
    mask = patterns.attention_tile(frames, 3600, k, block=128)
    assert round(100 * (1 - mask.density), 2) == PUBLISHED[frames, k]


@pytest.mark.parametrize(("frames", "per_frame", "block"), [(6, 4, 4), (4, 6, 4), (3, 8, 5), (8, 3, 4), (12, 2, 8)])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_attention_tile_is_own_and_reference_frames(frames, per_frame, block, k):
    mask = patterns.attention_tile(frames, per_frame, k, block)
    step = -(-frames // k) if k else frames + 1
    for i in range(24):
        a = i // per_frame
        for j in range(24):
            b = j // per_frame
            assert elements(mask)[i, j] == (a == b or (k > 0 and (a % step == 0 or b % step == 0)))


def test_attention_tile_keeps_f_times_2k_plus_1_minus_k_squared_minus_k_tiles():
    for k in (1, 2, 4):
        kept = elements(patterns.attention_tile(8, 4, k, 4)).sum().item() / 16
        assert kept == 8 * (2 * k + 1) - k**2 - k


def test_too_many_reference_frames_are_refused():
    with pytest.raises(ValueError, match="tile mask k=9 needs at least 9 latent frames, the clip has 8"):
        patterns.attention_tile(8, 16, 9, 16)


@pytest.mark.parametrize("causal", [False, True], ids=["both_sides", "causal"])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("global_tokens", [(), (0,), (3, 20)], ids=["local", "first_global", "two_global"])
@pytest.mark.parametrize("block", [4, 5])
def test_sliding_window_is_exact(block, global_tokens, dilation, causal):
    mask = patterns.sliding_window(24, block, 3, dilation, global_tokens, causal)
    for i in range(24):
        for j in range(24):
            near = abs(i - j) in [n * dilation for n in range(4)]
            kept = (near or i in global_tokens or j in global_tokens) and (j <= i or not causal)
            assert elements(mask)[i, j] == kept


def test_a_window_below_one_is_refused():
    with pytest.raises(ValueError, match="width=0 and dilation=1 must be at least 1"):
        patterns.sliding_window(24, 4, 0)


def test_random_blocks_are_so_many_in_each_row_and_the_own_among_them():
    mask = patterns.random(30, 4, 3, heads=2, generator=torch.Generator().manual_seed(0))
    assert (mask.keep.sum(-1) == 3).all()
    assert mask.keep[:, :, range(8), range(8)].all()
    assert not mask.keep[0, 0].equal(mask.keep[0, 1])
    with pytest.raises(ValueError, match="count=9 must be from 1 to the number of key blocks, 8"):
        patterns.random(30, 4, 9)


def test_top_k_keeps_the_best_blocks_of_each_row_and_text_beside_them():
    scores = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    mask = patterns.top_k(scores, 2, 4, (24, 24), text=5)  # blocks 0 and 1 have text
    for row in mask.keep[:, :, 2:].flatten(0, 2).unbind():
        assert row[:2].all() and row.sum() == 4
    assert mask.keep[:, :, :2].all()
    best = scores[1, 2, 3, 2:].topk(2).indices + 2
    assert mask.keep[1, 2, 3, best].all()


def test_top_k_gives_heads_different_counts():
    mask = patterns.top_k(torch.rand(1, 3, 6, 6), torch.tensor([1, 2, 4])[None, :, None], 4, (24, 24))
    assert mask.keep.sum(-1).tolist() == [[[1] * 6, [2] * 6, [4] * 6]]


def test_top_k_names_scores_and_counts_that_do_not_fit():
    with pytest.raises(ValueError, match=r"scores \(1, 1, 5, 6\) must be \(B, h, 6, 6\) for 24 x 24 tokens"):
        patterns.top_k(torch.rand(1, 1, 5, 6), 1, 4, (24, 24))
    with pytest.raises(ValueError, match="number of key blocks without text, 4"):
        patterns.top_k(torch.rand(1, 1, 6, 6), 5, 4, (24, 24), text=5)
    with pytest.raises(ValueError, match="NaN"):
        patterns.top_k(torch.full((1, 1, 6, 6), torch.nan), 1, 4, (24, 24))


def test_element_scores_are_averaged_over_the_elements_that_a_tile_has():
    scores = torch.rand(1, 2, 10, 7)
    tiles = patterns.pooled(scores, 4)
    assert tiles.shape == (1, 2, 3, 2)
    assert_close(tiles[0, 1, 2, 1], scores[0, 1, 8:, 4:].mean())
    assert_close(tiles[0, 0, 0, 0], scores[0, 0, :4, :4].mean())


def test_row_count_is_the_rounded_share_of_blocks():
    assert patterns.row_count(0.8, 1861) == 372
    assert patterns.row_count(0.0, 7) == 7
    with pytest.raises(
        ValueError, match=r"sparsity 0.99 keeps no block of 19 per row; use smaller blocks \(attn.block\)"
    ):
        patterns.row_count(0.99, 19)
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\], got 1.2"):
        patterns.row_count(1.2, 19)

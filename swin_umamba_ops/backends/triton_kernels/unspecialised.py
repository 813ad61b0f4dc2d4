"""Integer arguments that Triton must not specialize on: sizes and strides change from image to
image, and must not trigger another compilation."""

SCAN = (
    "D", "H", "W", "K", "directions", "blocks", "splits", "parts", "split_chunks", "chunks",
    "first_direction", "first_block", "x_b", "x_k", "x_l", "x_d", "dt_b", "dt_k",
    "bc_b", "bc_k", "bc_l", "bc_n", "one", "R",
)  # fmt: skip
PROJECT = ("rows", "D", "R")
PARAMETERS = ("rows", "pieces", "channels", "width")

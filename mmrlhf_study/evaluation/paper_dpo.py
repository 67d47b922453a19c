"""The paper's Fig. 5 and 12 (arXiv 2502.10391) as data; nothing measured here is among them."""

SOURCE_5, SOURCE_12 = "MM-RLHF (arXiv 2502.10391), Fig. 5", "MM-RLHF (arXiv 2502.10391), Fig. 12"
CURVES = (0.1, 0.5, 1.0, 2.0, 5.0)  # k of the curves of Fig. 5
FIGURE_12A = {"base": 72.2, "dpo": 74.9, "beta_dpo": 74.3, "mm_dpo": 76.5}  # average of four benchmarks, one run each
FIGURE_12B_W = (0.0, 0.1, 0.5, 1.0)
FIGURE_12B = {  # k: averages over w; that the rows of the figure go from k = 0.25 to 1 is our reading
    0.25: (74.9, 75.3, 75.8, 75.9),
    0.5: (74.9, 75.5, 76.5, 75.6),
    1.0: (74.9, 76.6, 76.2, 75.8),
}

"""The one symbol table: what every argument of the objectives means, as the papers write it.

Shapes: `B` pairs (or critiques), `G` responses of a group, `T` tokens, `n` responses compared with one another.
`tests/core/objectives/test_symbols.py` compares this table with the signatures.
"""

SYMBOLS: dict[str, tuple[str, str]] = {
    # preference
    "logp_w": ("log π_θ(y_w|x)", "log-probability of the chosen response, summed over its tokens, [B]"),
    "logp_l": ("log π_θ(y_l|x)", "log-probability of the rejected response, summed over its tokens, [B]"),
    "ref_logp_w": ("log π_ref(y_w|x)", "the reference's log-probability of the chosen response, [B]"),
    "ref_logp_l": ("log π_ref(y_l|x)", "the reference's log-probability of the rejected response, [B]"),
    "length_w": ("|y_w|", "tokens of the chosen response, at least 1, [B]"),
    "length_l": ("|y_l|", "tokens of the rejected response, at least 1, [B]"),
    "h": ("h_θ", "the bracket of eq. 4: log-ratio of the chosen minus log-ratio of the rejected, [B]"),
    "beta": ("β", "inverse temperature of the implicit reward, > 0, one number or [B]"),
    "beta_ori": ("β_ori", "β before scaling, > 0; the paper uses 0.1"),
    "reward_margin": ("δ", "reward model's r(y_w) − r(y_l), finite, [B]"),
    "w": ("w", "how far β may grow: β ≤ (1+w)·β_ori, ≥ 0; the paper uses 0.5"),
    "k": ("k", "how fast β saturates in δ, ≥ 0; the paper uses 0.5"),
    "negative_margin": ("rule for δ < 0", "'clamp' (default), 'paper' or 'drop'"),
    "alpha": ("α", "strength of the offset (ODPO) or of the batch scaling (β-DPO), ≥ 0"),
    "offset": ("Δ_r", "margin the chosen response has to win by (ODPO), [B]"),
    "epsilon": ("ε", "probability that a label is flipped, 0 ≤ ε < 1/2"),
    "tau": ("τ", "regularisation of IPO, > 0"),
    "gamma": ("γ", "target margin of SimPO, or weight of the auxiliary SFT term in the released code"),
    "m_0": ("M_0", "running mean of the implicit reward margin (β-DPO), one number"),
    "sigma": ("σ", "running standard deviation of the implicit reward margin (β-DPO), > 0"),
    "rho": ("ρ", "share of the batch that the filter of β-DPO keeps, 0 < ρ ≤ 1"),
    "momentum": ("m", "weight of the past in the running mean and deviation (β-DPO), 0 ≤ m < 1"),
    "generator": ("(random state)", "the generator that the draw without replacement takes its numbers from"),
    # reward
    "r_w": ("r(x,y_w,c_w)", "score of the chosen response after its critique, [B]"),
    "r_l": ("r(x,y_l,c_l)", "score of the rejected response after its critique, [B]"),
    "logp_c": ("log π_θ(c|x,y)", "log-probability of the critique, summed over its tokens, [B]"),
    "length_c": ("|c|", "tokens of the critique, at least 1, [B]"),
    # group
    "r": ("r", "rewards of one prompt's responses in the last dimension, [..., G], G ≥ 2"),
    "logp": ("log π_θ(y_t|x,y_<t)", "log-probability of each sampled token under the policy, [..., T]"),
    "logp_old": ("log π_old(y_t|x,y_<t)", "the same under the policy that sampled it, [..., T]"),
    "ref_logp": ("log π_ref(y_t|x,y_<t)", "the same under the reference, [..., T]"),
    "advantage": ("A", "advantage of each token's response, broadcast to [..., T]"),
    "clip_ratio": ("ε_clip", "half-width of the trusted interval of the probability ratio; the paper uses 0.2"),
    "s": ("s", "s[i,j] = the judge's two scores when y_i is shown first and y_j second, [n, n, 2]"),
    "complete": ("(finished)", "which responses ended before the length limit, bool [n]"),
    "s_w": ("s_w", "judge's score of the preferred response; NaN when unreadable, [B]"),
    "s_l": ("s_l", "judge's score of the other response; NaN when unreadable, [B]"),
}

"""What every block is conditioned on besides the image: time, augmentation level and pooled text, as one vector.

Letters in shapes: B batch, L text tokens, D text width, E embedding width.
"""

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

WIDEST_HEAD = 64


class TextPooling(nn.Module):
    """A token sequence to one vector by attention (Imagen, section 2.5): the mean token asks, all tokens answer.

    Layer norm comes first, which "helped considerably" (section 2.5). Padding is neither asked nor averaged. Heads are as wide as the
    largest divisor of `text_dim` that is at most `WIDEST_HEAD`.
    """

    def __init__(self, text_dim: int, out_dim: int):
        super().__init__()
        self.head_dim = next(width for width in range(min(WIDEST_HEAD, text_dim), 0, -1) if text_dim % width == 0)
        self.norm = nn.LayerNorm(text_dim)
        self.to_q = nn.Linear(text_dim, text_dim)
        self.to_k = nn.Linear(text_dim, text_dim)
        self.to_v = nn.Linear(text_dim, text_dim)
        self.to_out = nn.Linear(text_dim, out_dim)

    def forward(self, text: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, D) and a mask (B, L), True at tokens, to (B, E)."""
        text = self.norm(text)
        if mask is None:
            mean = text.mean(dim=1, keepdim=True)
        else:
            weight = mask[..., None].to(text.dtype)
            mean = (text * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
            mask = F.pad(mask.bool(), (1, 0), value=True)[:, None, None]  # the mean is always there to attend to
        tokens = torch.cat((mean, text), dim=1)
        q, k, v = (
            f(x).unflatten(2, (-1, self.head_dim)).transpose(1, 2) for f, x in ((self.to_q, mean), (self.to_k, tokens), (self.to_v, tokens))
        )
        pooled = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(pooled.transpose(1, 2).flatten(2)[:, 0])


class ConditioningEmbedding(nn.Module):
    """Time + augmentation level + pooled text, added up (Imagen, sections 2.4 and 2.5), then SiLU: (B, E)."""

    def __init__(self, channels: int, out_dim: int, text_dim: int | None, has_noise_level: bool):
        super().__init__()
        self.features = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(channels, out_dim)
        self.noise_level = TimestepEmbedding(channels, out_dim) if has_noise_level else None
        self.text = TextPooling(text_dim, out_dim) if text_dim is not None else None

    def forward(self, timestep: Tensor, noise_level: Tensor | None, text: Tensor | None, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Times and levels (B,), text (B, L, D) and its mask to (B, E), in `dtype`; weights may be stored in another one."""
        embedding = self.time(self.features(timestep).to(dtype))
        if self.noise_level is not None:
            embedding = embedding + self.noise_level(self.features(noise_level).to(dtype))
        if self.text is not None:
            embedding = embedding + self.text(text, mask)
        return F.silu(embedding)

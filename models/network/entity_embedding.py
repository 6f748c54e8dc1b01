"""Entity embedding: a learned vector per role, added to the token embeddings.

Added before the encoder's first LayerNorm: one vector for the tokens of the subject and one for
those of the object; all other tokens are unchanged.
Legend: B batch, T tokens, E width of the encoder's token embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.parts.heads import Positions

RESULT_VERSION = 2
VERSION_NAME = "models.roles"

OUTSIDE, N_ROLES = 0, 3


class RoleEmbedding(nn.Module):
    """Add a vector per role to token embeddings; that of outside tokens is always zero.

    All vectors are initialised with zeros, so the network starts as without them; random vectors
    with the scale of token embeddings would hide the tokens of the entities. ``parameter_depth``
    counts them as new parameters, which use the full learning rate.
    """

    def __init__(self, words: nn.Embedding) -> None:
        super().__init__()
        self.vectors = nn.Embedding(N_ROLES, words.embedding_dim, padding_idx=OUTSIDE)
        nn.init.zeros_(self.vectors.weight)

    def forward(self, embedded: Tensor, positions: Positions) -> Tensor:
        """Return token embeddings (B, T, E) plus the vector of each token's role."""
        vectors: Tensor = self.vectors(role_ids(positions, embedded.shape[1]))
        return embedded + vectors


def role_ids(positions: Positions, width: int) -> Tensor:
    """Return the role of each token: outside, subject or object.

    A token that belongs to both entities, as adjacent ones may share, counts as the subject's.

    Returns:
        (B, T) int64: 0 outside, 1 subject, 2 object.
    """
    at = torch.arange(width, device=positions.lengths.device)

    def inside(start: Tensor, end: Tensor) -> Tensor:
        return (at >= start[:, None]) & (at < end[:, None])

    subject = inside(positions.subject_start, positions.subject_end)
    obj = inside(positions.object_start, positions.object_end) & ~subject
    return subject.long() + 2 * obj.long()

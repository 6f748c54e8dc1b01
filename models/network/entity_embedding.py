"""Entity embedding: what a token's role is, added to what the token is.

Stands before the encoder's first layer norm: a learned vector for the tokens of the subject's word
and one for the object's; all other tokens stay as they are.
Legend: B batch, T tokens, E width of the encoder's token embeddings.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.data.batches import role_ids
from models.parts.heads import Positions

RESULT_VERSION = 2
VERSION_NAME = "models.roles"

OUTSIDE, N_ROLES = 0, 3


class RoleEmbedding(nn.Module):
    """Adds a vector per role to token embeddings; the outside's is zero and stays zero.

    All begin at zero: the network begins as it is without them. Vectors drawn as widely as tokens
    are spread would drown the words that matter most. They are named so that ``parameter_depth``
    finds them among what is new, which learns at the full rate.
    """

    def __init__(self, words: nn.Embedding) -> None:
        super().__init__()
        self.vectors = nn.Embedding(N_ROLES, words.embedding_dim, padding_idx=OUTSIDE)
        nn.init.zeros_(self.vectors.weight)

    def forward(self, embedded: Tensor, positions: Positions) -> Tensor:
        """Return embedded tokens (B, T, E) with each one's role added."""
        vectors: Tensor = self.vectors(role_ids(positions, embedded.shape[1]))
        return embedded + vectors

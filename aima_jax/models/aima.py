"""AIMA: CLIP, the multimodal encoder with its MAP head, and the identity classifier."""

from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from aima_jax.models.clip import CLIP
from aima_jax.models.config import AIMAConfig
from aima_jax.models.fusion import Fusion, MapHead
from aima_jax.models.layers import Linear
from aima_jax.platform import Platform


class AIMA(nnx.Module):
    """The whole model.

    Args:
        platform: what it computes on; None is the plain form, which is right everywhere.
    """

    def __init__(self, config: AIMAConfig, *, rngs: nnx.Rngs, platform: Platform | None = None):
        clip, made = config.clip, {"rngs": rngs, "platform": platform}
        self.config = config
        self.clip = CLIP(clip, **made)
        self.fusion = Fusion(clip, config.fusion_depth, **made)
        self.map_head = MapHead(clip, config.fusion_depth, **made)
        self.classifier = (
            Linear(clip.dim, config.num_categories, std=0.001, dtype=clip.dtype, **made)
            if config.num_categories
            else None
        )

    def encode_image(
        self, images: Float[Array, "batch height width 3"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch tokens dim"]]:
        """Global features and tokens of images; see `CLIP.encode_image`."""
        return self.clip.encode_image(images)

    def image_features(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch dim"]:
        """Global features alone; see `CLIP.image_features`."""
        return self.clip.image_features(images)

    def encode_text(
        self, tokens: Int[Array, "batch tokens"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch tokens dim"]]:
        """Global features and tokens of sentences; see `CLIP.encode_text`."""
        return self.clip.encode_text(tokens)

    def fuse(
        self,
        text_tokens: Float[Array, "batch tokens dim"],
        image_tokens: Float[Array, "batch image_tokens dim"],
        text_mask: Bool[Array, "batch tokens"],
    ) -> Float[Array, "batch tokens dim"]:
        """Text tokens that have looked at the image.

        Args:
            text_tokens, image_tokens: as the encoders return them.
            text_mask: True for the first tokens of each row, up to and including the first end of
                text; the others take no part (our decision: IRRA lets them in).
        """
        return self.fusion(text_tokens, image_tokens, text_mask)

    def predict_masked(
        self, hidden: Float[Array, "batch positions dim"]
    ) -> Float[Array, "batch positions vocabulary"]:
        """Float32 logits of the word at some positions of `fuse`'s result."""
        return self.map_head(hidden)

    def classify(self, features: Float[Array, "batch dim"]) -> Float[Array, "batch category"]:
        """Float32 logits of the person category of global features, which are not normalised.

        Raises:
            ValueError: the model has no identity classifier.
        """
        if self.classifier is None:
            raise ValueError("this model has no identity classifier: num_categories is 0")
        return self.classifier(features, output_dtype="float32")

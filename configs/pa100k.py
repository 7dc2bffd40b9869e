"""PA-100K: the full recipe, ViT-B/16 at 384×128 from CLIP's weights."""

from configs import common


def get_config():
    config = common.get_config()
    config.dataset = "pa100k"
    return config

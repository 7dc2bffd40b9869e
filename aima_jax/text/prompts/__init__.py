"""The words of each schema's prompts, by the schema's name."""

from aima_jax.text.prompts import market1501, pa100k, peta, synthetic

WORDINGS = {
    "market1501": market1501.WORDING,
    "peta": peta.WORDING,
    "peta35": peta.WORDING,
    "pa100k": pa100k.WORDING,
    "synthetic": synthetic.WORDING,
}

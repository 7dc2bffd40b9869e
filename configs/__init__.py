"""Configs of the datasets, as data: `configs.synthetic.get_config()`."""

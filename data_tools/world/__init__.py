"""The small world: a synthetic image–text world in which the whole pipeline can be tried honestly in minutes.

`scenes` says what can be in an image, `paint` draws it, `languages` and `captions` describe it in six languages,
`corpora` writes the tars, and `train_*` retrain every shipped checkpoint from seeds (`python -m
data_tools.world.train_all`).
"""

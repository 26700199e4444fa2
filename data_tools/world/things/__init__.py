"""The world of things: 121 general things and 20 culture things in each of five languages, painted from a font.

What is hard here is to name many things; the small world measures colours and places. `words` reads the tables
(`general.jsonl`, `culture.jsonl`), `paint` draws the pictographs of DejaVu Sans, which matplotlib brings, and
`train_all` retrains every checkpoint from seeds (`python -m data_tools.world.things.train_all`).
"""

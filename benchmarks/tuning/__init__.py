"""`hnx tune`: the fastest setting of one bundle on one runtime inside a budget of accuracy."""

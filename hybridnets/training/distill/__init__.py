"""Distillation: a student learns to compute what its teacher computes, from frames that nobody labelled.

The student is the teacher with another activation. It starts from the teacher's weights, its batch norms are measured
anew, and then it is trained to match the teacher's three outputs and the maps behind them.
"""

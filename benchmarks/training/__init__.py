"""How fast training is: a step against a plain loop, reading samples, and two processes against one.

python -m benchmarks.training -c 3 --size 640x384 -b 4 --rounds 8
python -m benchmarks.training.processes -c 0 --size 384x256 -b 4
"""

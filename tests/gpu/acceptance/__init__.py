"""One command that measures all there is on a GPU machine, within a time that is given beforehand.

``plans`` says what is measured, ``steps`` in which order and how long at most, ``carry_out`` starts a process for
each, ``evidence`` reads what they left, ``figures`` judges it, and ``summary`` writes it down. Nothing here imports a
runtime: the steps do, each in a process of its own.
"""

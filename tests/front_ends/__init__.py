"""The front ends in which a notebook is run, each driven as a person or a program drives it."""

"""Peers in plain torch, for comparison only: `pip install -e .[bench]`."""

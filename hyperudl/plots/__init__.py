"""Plots of runs: curves, episodes, embeddings, reliability."""

"""Speed beside plain torch, and of training on a large set."""

"""Train small networks: the loop, and what is trained with it."""

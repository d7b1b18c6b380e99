"""What runs at the edge: the broker's set-up, the worker that computes tails, the recorder that keeps the story."""

"""Training by Advantage Actor-Critic: the learner in TensorFlow, what it learns from, and the proof that it works."""

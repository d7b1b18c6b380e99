"""Makes the shipped versions from nothing: frames, networks, training, export. TensorFlow lives here."""

"""Tests of training; those that need TensorFlow are the files apart_*.py, run in a process of their own."""

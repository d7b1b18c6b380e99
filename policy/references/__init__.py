"""Every policy that the learned one is compared with, as an agent over the simulated world."""

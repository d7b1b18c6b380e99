"""Roll-outs: bundles are made and signed, and brought to a fleet in stages."""

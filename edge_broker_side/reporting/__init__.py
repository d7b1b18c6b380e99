"""What is told of a site over a time: the figures of a report, from the recorder's store or from the metrics server."""

"""Captures with known answers, and weights in the layout of each framework."""

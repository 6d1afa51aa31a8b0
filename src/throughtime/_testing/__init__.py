"""Captures with known answers, and weights as each framework keeps them."""

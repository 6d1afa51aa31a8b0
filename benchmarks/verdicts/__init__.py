"""Networks with known answers, and how often the verdict and the alarms agree with what is so."""

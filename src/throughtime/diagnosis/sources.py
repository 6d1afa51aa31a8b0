"""Where the remedies of a diagnosis come from."""

from __future__ import annotations

from collections.abc import Mapping

SOURCES: Mapping[str, str] = {
    "remedy_chrono": "Tallec & Ollivier 2018, arXiv 1804.11188",
    "remedy_forget_bias": "Jozefowicz, Zaremba & Sutskever 2015, ICML",
    "remedy_orthogonal": "Le, Jaitly & Hinton 2015, arXiv 1504.00941",
    "remedy_clipping": "Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063",
    "remedy_kernel": "Pascanu, Mikolov & Bengio 2013, §2.2; Vogt et al. 2022, arXiv 2006.14123",
    "remedy_window": "gradient does not cross the edge of a window",
    "remedy_epsilon": "Kingma & Ba 2015, arXiv 1412.6980: the step is m/(√v + epsilon)",
    "remedy_ends": "Schuster & Paliwal 1997, IEEE Trans. Signal Processing 45, 2673",
    "remedy_batch_first": "torch.nn.LSTM takes (time, sample, feature) unless batch_first=True",
    "remedy_cut": "gradient does not cross the edge of a window",
    "remedy_dead": "Lu, Shin, Su & Karniadakis 2019, arXiv 1903.06733",
    "remedy_last_step": "a state depends on the steps before it alone",
}

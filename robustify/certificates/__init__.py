"""Certificates: arithmetic on integer counts, without tensors."""

from robustify.certificates.certificate import Certificate as Certificate
from robustify.certificates.certificate import Provenance as Provenance
from robustify.certificates.gaussian import Gaussian as Gaussian
from robustify.certificates.prediction import Prediction as Prediction

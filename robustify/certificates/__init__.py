"""Certificates are arithmetic on integer counts: this package turns votes into proofs, without tensors."""

from robustify.certificates.band_smoothing import BandSmoothing as BandSmoothing
from robustify.certificates.certificate import Certificate as Certificate
from robustify.certificates.certificate import Provenance as Provenance
from robustify.certificates.gaussian import Gaussian as Gaussian
from robustify.certificates.patch_cleanser import PatchCleanser as PatchCleanser
from robustify.certificates.prediction import Prediction as Prediction

"""Certificates are arithmetic on integer counts: this package turns votes into proofs, without tensors."""

from robustify.certificates.band_smoothing import BandSmoothing as BandSmoothing
from robustify.certificates.brightness import Brightness as Brightness
from robustify.certificates.cascade import Cascade as Cascade
from robustify.certificates.certificate import Certificate as Certificate
from robustify.certificates.certificate import Provenance as Provenance
from robustify.certificates.contrast import Contrast as Contrast
from robustify.certificates.gaussian import Gaussian as Gaussian
from robustify.certificates.grid import Grid as Grid
from robustify.certificates.mixed import Mixed as Mixed
from robustify.certificates.partition import Partition as Partition
from robustify.certificates.patch_cleanser import PatchCleanser as PatchCleanser
from robustify.certificates.prediction import Prediction as Prediction
from robustify.certificates.translation import Translation as Translation

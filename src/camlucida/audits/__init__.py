"""Audits: can this explanation be a lie? Each puts methods to a test and says how they did, in plain words."""

from camlucida.audits.candidates import Candidate
from camlucida.audits.deadzone.audit import audit_dead_zone
from camlucida.audits.deadzone.proof import DeadZone, dead_zone
from camlucida.audits.deadzone.walls import Wall, feature_wall, input_wall
from camlucida.audits.fooling.audit import audit_sham
from camlucida.audits.fooling.given import audit_fooled
from camlucida.audits.fooling.logit_shift import audit_logit_shift
from camlucida.audits.fooling.residual_logits import audit_residual_logits
from camlucida.audits.fooling.train import train_sham
from camlucida.audits.fooling.tune import Attack
from camlucida.audits.metrics_trial import audit_metrics
from camlucida.audits.ours import list_audits, register
from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.request import Request
from camlucida.audits.rules import TrustRule
from camlucida.audits.sanity.audit import audit_sanity
from camlucida.audits.theory.audit import audit_theory
from camlucida.audits.trust.audit import audit_all
from camlucida.audits.trust.change import TrustComparison, compare_audits
from camlucida.audits.trust.faithful import audit_faithfulness
from camlucida.audits.trust.grades import audit_grades
from camlucida.audits.trust.report import TrustReport
from camlucida.audits.verdicts import Evidence, Sentence, Verdict, decided

__all__ = [
    "Attack",
    "AuditReport",
    "Candidate",
    "DeadZone",
    "Evidence",
    "Illustration",
    "Request",
    "Sentence",
    "TrustComparison",
    "TrustReport",
    "TrustRule",
    "Verdict",
    "Wall",
    "audit_all",
    "audit_dead_zone",
    "audit_faithfulness",
    "audit_fooled",
    "audit_grades",
    "audit_logit_shift",
    "audit_metrics",
    "audit_residual_logits",
    "audit_sanity",
    "audit_sham",
    "audit_theory",
    "compare_audits",
    "dead_zone",
    "decided",
    "feature_wall",
    "input_wall",
    "list_audits",
    "register",
    "train_sham",
]

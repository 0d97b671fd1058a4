"""The trust report: rules on made-up findings, faithfulness by hand, a whole run, its page and its command."""

import json
import re

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import camlucida
from camlucida import CamlucidaError
from camlucida.audits import request
from camlucida.audits.candidates import choose, controls
from camlucida.audits.ours import list_audits, register
from camlucida.audits.registry import AUDITS
from camlucida.audits.report import AuditReport
from camlucida.audits.rules import GRADES, QUESTIONS, TrustRule
from camlucida.audits.sanity.audit import audit_sanity
from camlucida.audits.trust.audit import all_rules, audit_all, gather, judged, left_out
from camlucida.audits.trust.change import compare_audits
from camlucida.audits.trust.choice import decide
from camlucida.audits.trust.page import trust_document
from camlucida.audits.trust.report import Finding, MethodTrust, TrustReport
from camlucida.audits.trust.scale import Scale, judge
from camlucida.audits.verdicts import Verdict
from camlucida.cli.shared.model import Chosen
from camlucida.common.seeds import ImageGenerators
from camlucida.metrics.order import effects, in_order, tells

GRADCAM = choose(["gradcam"], quick=True)[0]
FINDINGS = sorted({rule.finding for rule in all_rules() if isinstance(rule.finding, str)})


CLEAN = dict.fromkeys(FINDINGS, "pass")


def found(outcomes):
    return [Finding(k, "test", v, f"{k} {v}") for k, v in outcomes.items()]


def grades(**changed):
    outcomes = {**CLEAN, **changed}
    return {k: a.grade for k, a in judged(GRADCAM, found(outcomes)).answers.items()}


class Net(nn.Module):
    """One convolution, pooling, one linear layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.ReLU())
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def inputs():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------- rules


def test_a_method_that_passes_everything_is_safe():
    assert set(grades().values()) == {"safe"}


def test_what_was_not_tested_is_not_praised():
    nothing = judged(GRADCAM, [Finding("faithfulness", "test", "not tested", "no layer")])
    assert {a.grade for a in nothing.answers.values()} == {"not tested"}
    assert nothing.why() == ("no layer",)
    assert {a.grade for a in judged(GRADCAM, found({})).answers.values()} == {"not tested"}
    for names, question in (
        (["parameters"], "evidence"), (["class", "faithfulness"], "evidence"),
        (["class", "contrast order"], "contrast"),
    ):  # fmt: skip
        outcomes = {**dict.fromkeys(names, "not tested"), "shows both signs": "pass"}
        assert grades(**outcomes)[question] in {"with caution", "not tested"}, names
    # each question has a finding that answers it by what the model does
    for name, questions in (
        ("faithfulness", {"evidence"}), ("contrast order", {"contrast"}),
        ("dependence order", {"pixels", "absence"}),
    ):  # fmt: skip
        given = grades(**{name: "not tested"})
        assert {q for q, grade in given.items() if grade == "not tested"} == questions
    # whether the model looked there at all takes a wall; what is proved goes before what is not known
    walls = dict.fromkeys(("deadzone", "deadzone-pixels"), "not tested")
    assert grades(**walls)["absence"] == "not tested"
    assert grades(**walls, usable="fail")["absence"] == "not safe"
    assert set(grades(deadzone="not tested").values()) == {"safe"}
    only = judged(GRADCAM, found({"faithfulness": "pass"}))
    assert "safe" not in {a.grade for a in only.answers.values()}


def test_findings_lower_the_grades_they_matter_for():
    assert set(grades(usable="fail").values()) == {"not safe"}
    for name, question in (
        ("faithfulness", "evidence"),
        ("contrast order", "contrast"),
        ("dependence order", "pixels"),
    ):
        assert grades(**{name: "fail"})[question] == "not safe"
        assert grades(**{name: "warn"})[question] == "with caution"
    assert grades(deadzone="fail")["absence"] == "with caution"
    assert grades(**{"against order": "fail"})["absence"] == "with caution"
    assert grades(fine="fail")["pixels"] == "with caution"


def test_what_is_measured_on_the_model_goes_before_what_would_be_so_on_another():
    # a map that beats that of the redrawn network may be like it: both find what stands out
    assert set(grades(parameters="fail").values()) == {"safe"}
    assert grades(parameters="fail", faithfulness="not tested")["evidence"] == "not safe"
    assert grades(parameters="fail", faithfulness="unclear")["evidence"] == "not enough to tell"
    moved = {"logit shift": "fail", "class": "fail", "deadzone": "fail", "input shift": "fail"}
    assert grades(**moved)["contrast"] == "safe"
    assert grades(**moved, **{"contrast order": "not tested"})["contrast"] == "not safe"
    assert grades(**{"shows both signs": "fail"})["absence"] == "safe"
    signs = {"shows both signs": "fail", "against order": "not tested"}
    assert grades(**signs)["absence"] == "with caution"


def test_what_the_images_do_not_decide_is_never_called_unsafe():
    assert set(grades(usable="unclear").values()) == {"not enough to tell"}
    assert grades(repeat="unclear")["evidence"] == "not enough to tell"
    assert grades(repeat="unclear", data="fail")["evidence"] == "with caution"
    both = grades(usable="unclear", **{"contrast order": "fail"})
    assert (both["evidence"], both["contrast"]) == ("not enough to tell", "not safe")


@pytest.mark.parametrize("name", FINDINGS)
def test_a_failure_never_raises_a_grade(name):
    before, after = grades(), grades(**{name: "fail"})
    assert all(GRADES.index(after[q]) >= GRADES.index(before[q]) for q in QUESTIONS)


def test_reasons_come_weightiest_first_and_once():
    trust = judged(GRADCAM, found({"data": "fail", "usable": "fail"}))
    assert trust.answers["evidence"].reasons[0] == "usable fail"
    assert len(trust.why()) == len(set(trust.why()))
    # the attack says what the random shift says
    alone = found({"parameters": "pass", "logit shift": "fail"})
    assert "logit shift fail" in judged(GRADCAM, alone).why()
    attacked = judged(GRADCAM, [*alone, Finding("logit-shift", "test", "fail", "attack")])
    assert "logit shift fail" not in attacked.why()
    assert "attack" in attacked.why()


def test_what_a_method_is_counts_too():
    def names(method):
        (tested,) = choose([method], quick=True)
        return {e.name for e in gather(tested, [])}

    assert "claims a class" in names("eigencam")
    assert "claims a class" not in names("gradcam")
    assert "shows both signs" in names("gradcam")
    assert "shows both signs" not in names("cam")


# --------------------------------------------------------------------------------------- faithfulness


def test_effects_are_the_regression_that_foretells_best_what_is_left_out(model, inputs):
    classes = torch.tensor([[0, 2], [1, 1], [3, 0]])
    got = effects(model, inputs, classes, cells=4, fills=("zero", "mean"), passes=40, batch_size=7)
    halves = ImageGenerators(0, inputs).rand((2, 10, 16), inputs) < 0.5
    at = np.array([(i, j) for i in range(4) for j in range(4)], float)
    far = ((at[:, None] - at) ** 2).sum(2)
    for i, image in enumerate(inputs):
        rows, scores = [], []
        for fill, empty in enumerate((0 * image, image.mean((1, 2), keepdim=True))):
            for keep in halves[i, fill]:
                pair = []
                for some in (keep, ~keep):
                    big = some.view(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1)
                    with torch.no_grad():
                        z = model(torch.where(big, image, empty)[None]).double()[0].numpy()
                    own = [z[k] for k in classes[i]]
                    pair.append([*own, *(z[k] - (z.sum() - z[k]) / 3 for k in classes[i])])
                rows.append([0.5 if one else -0.5 for one in keep])
                scores.append((np.array(pair[0]) - np.array(pair[1])) / 2)
        x, y = np.array(rows), np.array(scores)
        best = (np.inf, None)
        for reach in (0.0, 0.7, 1.0, 1.5):
            prior = np.exp(-far / (2 * reach**2)) + 1e-3 * np.eye(16) if reach else np.eye(16)
            for share in (0.003, 0.03, 0.3, 1.0):
                noise = share * np.trace(x @ prior @ x.T) / len(x)

                def fit(some, prior=prior, noise=noise, x=x, y=y):
                    inner = x[some] @ prior @ x[some].T + noise * np.eye(len(some))
                    return prior @ x[some].T @ np.linalg.solve(inner, y[some])

                every = list(range(len(x)))
                left = [y[j] - x[j] @ fit([k for k in every if k != j]) for j in every]
                error = (np.square(left).sum(0) / np.square(y).sum(0)).sum()
                if error < best[0]:
                    best = (error, fit(every))
        for k in range(2):
            np.testing.assert_allclose(got[k].own[i].numpy(), best[1][:, k], atol=1e-5, rtol=1e-3)
            np.testing.assert_allclose(
                got[k].margin[i].numpy(), best[1][:, 2 + k], atol=1e-5, rtol=1e-3
            )


def test_effects_of_a_sum_over_pixels_are_its_parts(inputs):
    weights = torch.randn(2, 3 * 32 * 32, generator=torch.Generator().manual_seed(0))

    class Sum(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1) @ weights.T

    (got,) = effects(Sum(), inputs, torch.zeros(3, 1, dtype=torch.long), cells=4, passes=400)
    empty = inputs.mean((2, 3), keepdim=True)
    parts = ((inputs - empty).flatten(1) * weights[0]).view(3, 3, 4, 8, 4, 8).sum((1, 3, 5))
    (only,) = effects(
        Sum(), inputs, torch.zeros(3, 1, dtype=torch.long), cells=4, fills=("mean",), passes=400
    )
    for found, part in zip(only.own, parts.flatten(1), strict=True):
        assert np.corrcoef(found, part)[0, 1] > 0.99
    assert got.own.shape == (3, 16)


def test_order_of_yes_and_no_is_the_area_under_the_roc_curve():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 4, (1, 30), generator=generator)
    yes = torch.rand(1, 30, generator=generator) > 0.6
    pairs = [(a, b) for a in values[yes].tolist() for b in values[~yes].tolist()]
    area = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)
    assert in_order(values, yes.double()).item() == pytest.approx(area)
    assert in_order(-values, yes.double()).item() == pytest.approx(1 - area)
    assert in_order(values, torch.ones(1, 30)).isnan().all()


def test_what_is_lit_without_effect_counts():
    adds = torch.zeros(1, 100)
    adds[0, :5] = 1
    right = adds.clone()
    decoys = adds.clone()
    decoys[0, 50:55] = 1
    assert tells(right, adds).item() == 1
    assert in_order(decoys, adds).item() > 0.9  # most of the image is dark, and rightly so
    assert tells(decoys, adds).item() == 0.5


def row(*shares, lit=None):
    """Four orders, and how they light up what counts: as well as they order it, unless told."""
    return {
        "orders": [[0.5 + 0.4 * s for s in one] for one in (*shares, *(lit or shares))],
        "pixels": 16,
    }


def test_a_method_is_held_between_what_knows_nothing_and_the_exact_answer():
    scale = Scale("edges", 0.5, "occlusion", 0.9, True)
    high, low, mid = [0.9, 0.95, 1.0, 0.9, 0.95, 1.0], [0.0, 0.1, 0.05] * 2, [0.5, 0.45, 0.55] * 2
    verdict = judge("m", row(high, low, mid, [0.0, 1.0] * 3), (scale,) * 8)
    assert (verdict.finding, verdict.outcome) == ("faithfulness", "pass")
    outcomes = {part.finding: part.outcome for part in verdict.parts}
    assert outcomes == {
        "contrast order": "fail", "dependence order": "warn", "against order": "unclear", "fine": "fail",
    }  # fmt: skip
    assert "95 % interval" in verdict.text
    assert "edges" in verdict.text
    assert judge("m", {"error": "no layer"}, (scale,) * 8).outcome == "not tested"
    few = judge("m", row(high[:3], low[:3], mid[:3], mid[:3]), (scale,) * 8)
    assert few.outcome == "unclear"
    assert "3 images" in few.text
    none = judge("m", row([], [], [], []), (scale,) * 8)
    assert none.outcome == "not tested"


def test_a_map_that_lights_up_what_counts_in_whatever_order_is_no_blind_one():
    scale = Scale("edges", 0.5, "occlusion", 0.9, True)
    low, high = [0.0, 0.1, 0.05] * 2, [0.9, 0.95, 1.0] * 2
    verdict = judge("m", row(low, low, high, low, lit=(high, low, low, low)), (scale,) * 8)
    outcomes = {v.finding: v.outcome for v in (verdict, *verdict.parts)}
    assert outcomes["faithfulness"] == "warn"
    assert outcomes["contrast order"] == "fail"
    assert outcomes["dependence order"] == "pass"
    assert "which of these places count more" in verdict.text


def test_controls_that_are_not_told_apart_yet_ask_for_more_images():
    close = Scale("edges", 0.8, "occlusion", 0.85, False, True)
    verdict = judge("m", row(*[[1.0] * 6] * 4), (close,) * 8)
    assert verdict.outcome == "unclear"
    assert "More images" in verdict.text


def test_a_check_that_cannot_tell_its_controls_apart_says_nothing():
    close = Scale("edges", 0.8, "occlusion", 0.85, False)
    verdict = judge("m", row(*[[1.0] * 6] * 4), (close,) * 8)
    assert {v.outcome for v in (verdict, *verdict.parts) if v.finding != "fine"} == {"not tested"}
    assert "cannot be told apart" in verdict.text


def test_images_are_added_until_it_is_decided():
    model, data = "planted:texture", "planted:texture,count=30"
    report = audit_all(model, data, methods=["hirescam", "gradcam++"], audits=["faithfulness"])
    by = {m.label: {e.name: e for e in m.evidence} for m in report.methods}
    assert by["hirescam"]["faithfulness"].outcome == "pass"
    measured = report.audits[0].record["measured"]
    counts = {label: len(measured[label]["orders"][0]) for label in by}
    assert set(counts.values()) <= {6, 12, 18, 24}
    undecided = [label for label, count in counts.items() if count == 24]
    assert report.audits[0].record["images"] == max(counts.values())
    assert all(by[label]["faithfulness"].value is not None for label in undecided)


def test_controls_are_judged_in_every_run():
    report = audit_all(
        "planted:and", "planted:and", methods=["gradcam"], count=12, labels=False,
        audits=["sanity", "faithfulness"],
    )  # fmt: skip
    by = {m.label: {q: a.grade for q, a in m.answers.items()} for m in report.controls}
    for blind in ("random", "centre", "edges", "brightness"):
        assert set(by[blind].values()) == {"not safe"}
    assert "not safe" not in {by["occlusion"][q] for q in ("evidence", "pixels", "absence")}
    assert "safe" not in by["redrawn"].values()
    assert report.to_dict()["controls"]


def test_a_finding_that_the_exact_answer_fails_is_left_out():
    exact, blind = (
        next(c for c in controls(quick=True) if c.name == n) for n in ("cell-occlusion", "random")
    )
    audits = {one.name: one for one in list_audits()}

    def report(**outcomes):
        verdicts = [
            Verdict(label.replace("_", "-"), outcome, "So.", finding="parameters")
            for label, outcome in outcomes.items()
        ]
        return [(audits["sanity"], AuditReport("sanity", "S", "", "", tuple(verdicts)))]

    assert not left_out([exact, blind], report(cell_occlusion="pass", random="fail"))
    assert (
        "exact"
        in left_out([exact, blind], report(cell_occlusion="fail", random="fail"))["parameters"]
    )
    assert (
        "knows nothing"
        in left_out([exact, blind], report(cell_occlusion="pass", random="pass"))["parameters"]
    )


# --------------------------------------------------------------------------------------------- a run


@pytest.fixture
def _broken_audit():
    def run(_):
        raise CamlucidaError("it <cannot> be done here")

    register("test-broken", title="Broken", asks="Nothing?")(run)
    yield
    AUDITS.remove("test-broken")


@pytest.mark.usefixtures("_broken_audit")
def test_a_run_is_complete_resumes_and_names_what_is_missing(model, inputs, tmp_path):
    inputs = torch.cat([inputs, inputs.flip(-1)])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    options = {
        "methods": ["gradcam", "diffgradcam", "saliency"],
        "labels": False,
        "out": tmp_path,
    }
    told = []
    report = audit_all(model, inputs, say=lambda *a: told.append(a), **options)
    assert report.missing == {"Broken": "it <cannot> be done here"}
    assert [a.audit for a in report.audits] == [
        "sanity", "deadzone", "deadzone-pixels", "logit-shift", "faithfulness",
    ]  # fmt: skip
    by = {m.label: m for m in report.methods}
    outcome = {k: {e.name: e.outcome for e in m.evidence} for k, m in by.items()}
    assert outcome["gradcam"]["logit-shift"] == "fail"
    assert outcome["diffgradcam"]["logit-shift"] == "pass"
    assert outcome["gradcam"]["logit shift"] == "not tested"  # the same by an audit of its own
    (found,) = (e for e in by["gradcam"].evidence if e.name == "logit-shift")
    assert found.images == 6
    assert found.interval[0] < found.value < found.interval[1]
    assert outcome["saliency"]["deadzone-pixels"] == "pass"
    assert by["gradcam"].answers["contrast"].grade != "safe"
    assert "deadzone" not in outcome["saliency"]
    shares = [a / b for _, a, b in told]
    assert shares == sorted(shares)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    again = audit_all(model, inputs, **options)
    assert again.record["resumed_parts"] > report.record["resumed_parts"]
    assert again.methods == report.methods
    report.save(tmp_path)
    document = json.loads((tmp_path / "trust.json").read_text())
    assert [m["label"] for m in document["methods"]] == list(by)
    assert all((tmp_path / a["file"]).is_file() for a in document["audits"])
    page = trust_document(report).html()
    assert "it &lt;cannot&gt; be done here" in page
    for link in re.findall(r'href="([^"#]+)"', page):
        assert (tmp_path / link).is_file()
    for question in QUESTIONS.values():
        assert question in page
    words = re.sub(r"data:[^\"']+", "", page)
    assert "http" not in words.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_an_audit_from_outside_is_judged_like_ours(model, inputs):
    rules = (
        TrustRule("test-outside", "fail", "not safe", ("pixels",)),
        TrustRule(
            "test-outside", "not tested", "with caution", ("absence",), "It was not mirrored."
        ),
    )

    @register("test-outside", title="Outside", asks="Is it mirrored?", rules=rules)
    def outside(request):
        maps = request.open().maps(request.tested())
        verdicts = tuple(
            Verdict(k, "fail" if k == "gradcam" else "pass", f"<{k}>", 0.5, 0.1, "a number")
            for k in maps
        )
        return AuditReport("test-outside", "Outside", "Mirrors.", "Done.", verdicts)

    try:
        assert "test-outside" in [row.name for row in list_audits()]
        options = {"methods": ["gradcam", "saliency"], "audits": ["test-outside", "faithfulness"]}
        report = audit_all(model, inputs, **options)
        other = audit_all(model, inputs, methods=["gradcam"], audits=["faithfulness"])
    finally:
        AUDITS.remove("test-outside")
    by = {m.label: m.answers for m in report.methods}
    assert by["gradcam"]["pixels"].grade == "not safe"
    assert "<gradcam>" in by["gradcam"]["pixels"].reasons
    assert "<saliency>" not in by["saliency"]["pixels"].reasons
    assert "It was not mirrored." in other.methods[0].answers["absence"].reasons
    page = report.html()
    assert "&lt;gradcam&gt;" in page
    assert "<gradcam>" not in page
    assert 'href="test-outside.html"' in page


def test_bad_input_is_said_in_words(model, inputs):
    with pytest.raises(CamlucidaError, match="unknown audit"):
        audit_all(model, inputs, audits=["wishes"])
    with pytest.raises(CamlucidaError, match="unknown method"):
        audit_all(model, inputs, methods=["guess"])
    with pytest.raises(CamlucidaError, match="attic"):
        audit_all(model, inputs, layers="attic")
    with pytest.raises(CamlucidaError, match="two or more"):
        audit_all(nn.Conv2d(3, 4, 3), inputs)
    assert "faithfulness" in [row.name for row in list_audits()]


def report_of(**answers):
    methods = tuple(
        MethodTrust(label, dict(zip(QUESTIONS, judged_as, strict=True)), ())
        for label, judged_as in answers.items()
    )
    return TrustReport("net", "photos", 3, methods, (), {})


def test_advice_and_the_method_to_use():
    from camlucida.audits.trust.report import Answer

    safe, care, dim, none, no = (Answer(g, ("because",)) for g in GRADES)
    report = report_of(a=(safe, no, care, no), b=(care, care, care, no), c=(no,) * 4)
    assert report.best().label == "b"
    said = report.advice()
    assert said[0].endswith("Safe: a. With caution: b. Not safe: c.")
    assert said[1].endswith("With caution: b. Not safe: a, c.")
    assert "None of the methods" in said[3]
    # what is not known is no proof against all
    open_ = report_of(a=(dim, dim, none, no), c=(no,) * 4)
    assert not any("None of the methods" in text for text in open_.advice()[:3])
    assert open_.best() is None
    assert "no method is shown to be usable" in open_.lead()[0]
    assert "cannot decide it" in open_.lead()[-1]  # three images
    assert report_of(c=(no,) * 4).best() is None
    assert "None of these methods" in trust_document(report_of(c=(no,) * 4)).html()
    # of two that are usable for as many, the one about which less is proved against
    assert report_of(a=(care, care, no, no), b=(care, care, dim, no)).best().label == "b"
    # a method about which nothing is known is never the one to use
    assert report_of(a=(none,) * 4, b=(care, no, no, no)).best().label == "b"
    some = report_of(a=(none,) * 4, c=(no,) * 4)
    assert some.best() is None
    assert "None of these methods" not in " ".join(some.lead())
    assert "Not safe for any question on this model: c." in some.lead()
    page = trust_document(report_of(a=(none,) * 4, b=(care, no, no, no))).html()
    assert "Nothing could be measured about a." in page
    assert "No method is shown to be safe without reservation" in page
    assert "use b:" not in page


def measured_report(**shares):
    """A report with one number for each question and method."""
    names = ("faithfulness", "contrast order", "dependence order")

    def method(label, values):
        outcomes = ["pass" if v >= 0.7 else "fail" if v <= 0.3 else "warn" for v in values]
        rows = zip(names, outcomes, values, strict=True)
        evidence = [Finding(n, "faithfulness", o, f"{label} {n} {v}", v) for n, o, v in rows]
        walls = Finding("deadzone", "deadzone", "pass", "")
        sane = [Finding(n, "sanity", "pass", "") for n in ("parameters", "class")]
        made = judged(GRADCAM, [*evidence, walls, *sane])
        return MethodTrust(label, made.answers, made.evidence)

    methods = tuple(method(label, values) for label, values in shares.items())
    return TrustReport("net", "photos", 12, methods, (), {})


def test_what_to_use_and_what_never_to_is_the_nearest_and_the_furthest():
    report = measured_report(a=(0.9, 0.1, 0.5), b=(0.95, 0.2, 0.6), c=(0.1, 0.0, 0.1))
    where, contrast, pixels, _ = report.decisions
    assert (where.use.label, where.never.label) == ("b", "c")
    assert "0.95" in where.because
    assert contrast.use is None
    assert contrast.never.label == "c"
    assert pixels.use.label == "b"
    page = report.html()
    assert "Use b: ✓" in page
    assert "Never c" in page
    assert "none yet" in page


def test_demands_are_met_or_said():
    report = measured_report(gradcam=(0.9, 0.5, 0.1))
    assert (
        report.unmet(
            ["where:gradcam=safe", "where:gradcam=caution", "why-not-another:gradcam=caution"]
        )
        == ()
    )
    (said,) = report.unmet(["contrast:gradcam=safe"])
    assert "with caution" in said
    assert "safe is demanded" in said
    (said,) = report.unmet(["which-pixels:gradcam=caution"])
    assert "not safe" in said
    for wrong, match in (
        ("where", "question:method=grade"), ("whence:gradcam=safe", "question"), ("where:fame=safe", "method"),
        ("where:gradcam=splendid", "grade"),
    ):  # fmt: skip
        with pytest.raises(CamlucidaError, match=match):
            report.unmet([wrong])


def test_two_audits_are_compared_by_grade_and_chance(tmp_path):
    def written(name, sha, share, values, grade):
        folder = tmp_path / name
        folder.mkdir()
        answers = {q: {"grade": grade, "reasons": []} for q in QUESTIONS}
        evidence = [{"name": "faithfulness", "value": share}]
        method = {"label": "gradcam", "answers": answers, "evidence": evidence}
        other = {"label": name, "answers": answers, "evidence": []}
        record = {"images": {"sha256": sha}}
        trust = {"model": name, "methods": [method, other], "record": record}
        (folder / "trust.json").write_text(json.dumps(trust))
        measured = {"gradcam": {"orders": [values] * 4}}
        (folder / "faithfulness.json").write_text(json.dumps({"record": {"measured": measured}}))
        return folder

    good = written("good", "s", 0.9, [0.9 + 0.001 * i for i in range(24)], "safe")
    bad = written("bad", "s", 0.2, [0.6 + 0.001 * i for i in range(24)], "not safe")
    elsewhere = written("elsewhere", "t", 0.9, [0.9 + 0.0012 * i for i in range(24)], "safe")
    found = compare_audits(good, bad)
    assert found.paired
    assert (found.only_first, found.only_second) == (("good",), ("bad",))
    where = found.changes[0]
    assert (where.before, where.after, where.first, where.second) == ("safe", "not safe", 0.9, 0.2)
    assert "hardly by chance" in where.said
    same = compare_audits(good, elsewhere)
    assert not same.paired
    assert same.changes[0].said == "the same"
    with pytest.raises(CamlucidaError, match="no report"):
        compare_audits(good, tmp_path)


def test_what_breaks_on_this_model_does_not_take_the_rest_along(model, inputs, tmp_path):
    def broken(_):
        raise RuntimeError("a <tensor> of the wrong shape\nAnd much more")

    register("test-fault", title="Fault", asks="Nothing?")(broken)
    try:
        with pytest.raises(CamlucidaError, match="no audit could be run"):
            audit_all(model, inputs, methods=["gradcam"], audits=["test-fault"], out=tmp_path)
        report = audit_all(
            model, inputs, methods=["gradcam"], audits=["test-fault", "faithfulness"]
        )
    finally:
        AUDITS.remove("test-fault")
    assert "RuntimeError: a <tensor> of the wrong shape)" in report.missing["Fault"]
    assert [a.audit for a in report.audits] == ["faithfulness"]


def test_a_stopped_run_writes_no_pages_beside_an_old_report(model, inputs, tmp_path):
    options = {"methods": ["gradcam"], "labels": False, "out": tmp_path}
    audit_all(model, inputs, **options).save(tmp_path)
    old = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def stop(what, *_):
        if what.startswith("Faithfulness"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_all(model, inputs, seed=1, say=stop, **options)
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == old
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    resumed = audit_all(model, inputs, seed=1, **options)
    straight = audit_all(model, inputs, seed=1, **{**options, "out": None})
    assert resumed.methods == straight.methods


def test_faithfulness_of_other_weights_is_measured_anew(model, inputs, tmp_path):
    options = {"methods": ["gradcam"], "audits": ["faithfulness"], "out": tmp_path}
    first = audit_all(model, inputs, **options).methods
    torch.manual_seed(5)
    other = Net().eval()  # another checkpoint of the same name
    assert (
        audit_all(other, inputs, **options).methods
        == audit_all(other, inputs, **{**options, "out": None}).methods
    )
    assert audit_all(other, inputs, **options).methods != first


def test_variants_of_a_method_do_not_borrow_each_others_findings(model, inputs):
    given = [("gradcam++", {"form": "true"}), "gradcam++", ("diffgradcam", {"aggregator": "max"})]
    report = audit_all(model, inputs, methods=given, audits=["deadzone", "logit-shift"])
    text = {m.label: {e.name: e.text for e in m.evidence} for m in report.methods}
    usual = "Measured with the usual options of"
    assert usual in text["gradcam++:form=true"]["deadzone"]
    assert usual in text["gradcam++:form=true"]["logit-shift"]
    assert not any(usual in one for one in text["gradcam++"].values())
    assert usual in text["diffgradcam:aggregator=max"]["deadzone"]
    assert usual not in text["diffgradcam:aggregator=max"]["logit-shift"]


def test_a_coarse_map_is_called_coarse_without_a_wall(model, inputs):
    report = audit_all(model, inputs, methods=["gradcam", "saliency"], audits=["faithfulness"])
    by = {m.label: {e.name for e in m.evidence} for m in report.methods}
    assert "fine" in by["gradcam"]
    assert "fine" not in by["saliency"]


def test_what_could_not_be_read_is_told(model, tmp_path):
    from PIL import Image

    from camlucida.data.open import open_data

    pre = camlucida.Preprocess(size=(32, 32), resize=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    loaded = camlucida.models.LoadedModel(model, "tiny <b>", pre, None)
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (40, 30), "red").save(photos / "good.png")
    (photos / "<script>bad.jpg").write_bytes(b"no picture")
    report = audit_all(
        loaded, open_data(photos), methods=["gradcam"], audits=["sanity"], labels=False
    )
    assert report.images == 1
    page = trust_document(report).html()
    assert "1 image could not be read" in page
    assert "&lt;script&gt;bad.jpg" in page
    assert "<script>bad" not in page + report.audits[0].html()
    assert "tiny <b>" not in page
    shown = audit_sanity(loaded, open_data(photos), methods=["gradcam"], labels=False)
    assert "1 image, the predicted class" in shown.tested
    assert "1 more could not be read" in shown.tested
    assert "<script>" not in shown.html()


# ------------------------------------------------------------------------------------------- command


@pytest.fixture
def run(monkeypatch, model, inputs, tmp_path):
    from camlucida.cli.audit import all_and_sanity as commands
    from camlucida.data.samples import Sample, SampleList

    class Drawn(Sample):
        def picture(self):
            from torchvision.transforms.functional import to_pil_image

            return to_pil_image(inputs[int(self.key)])

    pre = camlucida.Preprocess(size=(32, 32), resize=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    loaded = camlucida.models.LoadedModel(model, "tiny", pre, None)
    data = SampleList("drawn", [Drawn(str(i)) for i in range(3)])
    monkeypatch.setattr(Chosen, "load", lambda *_: loaded)
    monkeypatch.setattr(request, "open_known", lambda *_, **__: data)
    app = typer.Typer()
    app.command("sanity")(commands.sanity)
    app.command("all")(commands.all_)
    return lambda *given: CliRunner().invoke(
        app, [*map(str, given), "--out", str(tmp_path / "out")]
    )


def test_the_commands_write_their_reports(run, tmp_path):
    result = run("all", "--method", "gradcam", "--audit", "faithfulness", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["methods"][0]["label"] == "gradcam"
    assert (tmp_path / "out" / "trust.html").is_file()
    assert (tmp_path / "out" / "faithfulness.html").is_file()
    shown = run("all", "--method", "gradcam", "--audit", "faithfulness").output
    assert "Where is the evidence for this class?" in shown
    result = run("sanity", "--method", "integrated-gradients:n_steps=3", "--no-labels", "--json")
    document = json.loads(result.stdout)
    assert document["verdicts"][0]["subject"] == "integrated-gradients:n_steps=3"
    assert (tmp_path / "out" / "sanity.html").is_file()


def test_a_wrong_option_leaves_nothing_behind(run, tmp_path):
    for given in (("sanity", "--method", "gradcam:size=3"), ("all", "--audit", "wishes")):
        assert isinstance(run(*given).exception, CamlucidaError)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_grades_that_come_out_again_are_counted(tmp_path, monkeypatch):
    from camlucida.audits.trust import grades as trial

    made = []
    graded = trial.audit_all

    def watched(model, data, **options):
        made.append((model, data.seed, options["out"].name))
        return graded(model, data, **options)

    monkeypatch.setattr(trial, "audit_all", watched)
    report = trial.audit_grades("saliency", worlds="wall", again=True, out=tmp_path)
    assert made == [("planted:wall@0", 0, "wall-0"), ("planted:wall@0", 1000, "wall-0-again")]
    once, twice = report.record["decided"], report.record["decided_twice"]
    assert 0 < report.record["the_same"] <= twice <= once
    assert f"of {twice} decided grades are the same" in report.summary


def test_where_nothing_is_decided_the_nearest_so_far_is_named():
    unclear = Finding("faithfulness", "faithfulness", "unclear", "So far: 52 %.", 0.52)
    others = [e for e in found(CLEAN) if e.name != "faithfulness"]
    methods = (judged(GRADCAM, [*others, unclear]),)
    decision = next(d for d in decide(methods) if d.question == "evidence")
    assert decision.use is None
    assert decision.so_far == "gradcam comes nearest. So far: 52 %."
    assert decide((judged(GRADCAM, found(CLEAN)),))[0].so_far == ""

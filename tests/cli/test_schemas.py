"""Every command that prints JSON has a schema; what is printed in any test is held against it (reference.documents)."""

import json

import pytest
from jsonschema import Draft202012Validator

from reference.documents import SCHEMAS, commands, hold

FOUND = json.loads(SCHEMAS.read_text("utf-8"))


def test_each_command_that_prints_json_has_a_schema():
    printing = {
        words
        for words, one in commands().items()
        if "--json" in [o for p in one.params for o in p.opts]
    }
    assert printing | {"audit"} == set(FOUND["commands"])


@pytest.mark.parametrize("words", sorted(FOUND["commands"]))
def test_schemas_say_what_they_are_of(words):
    schema = FOUND["commands"][words]
    Draft202012Validator.check_schema({"$defs": FOUND["$defs"], **schema})
    assert schema["title"] == f"camlucida {words} --json"
    assert schema["description"].endswith((".", "?"))


def test_a_document_that_does_not_fit_is_told():
    with pytest.raises(pytest.fail.Exception, match="explain --json"):
        hold("explain", '{"camlucida": 1}')
    with pytest.raises(pytest.fail.Exception, match="has no schema"):
        hold("nothing", "{}")

"""Files that a forge reads, checked against its schemas."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from tests.pages import ROOT

FORGE = ROOT / ".github"
FILES = {
    "github-workflows": sorted(FORGE.glob("workflows/*.yml")),
    "github-issue-forms": sorted(FORGE.glob("ISSUE_TEMPLATE/[!c]*.yml")),
    "github-issue-config": [FORGE / "ISSUE_TEMPLATE" / "config.yml"],
    "readthedocs": [ROOT / ".readthedocs.yaml"],
}


@pytest.mark.parametrize("schema", FILES)
def test_the_forge_understands_its_files(schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *FILES[schema]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_suite_runs_on_every_supported_python_and_django() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    workflow = yaml.safe_load((FORGE / "workflows" / "tests.yml").read_text())
    matrix = workflow["jobs"]["suite"]["strategy"]["matrix"]
    for python in matrix["python"]:
        assert f'"Programming Language :: Python :: {python}"' in project
    for django in matrix["django"]:
        assert f'"Framework :: Django :: {django[8:11]}"' in project
    assert project.count('"Framework :: Django :: ') == len(matrix["django"])
    assert project.count('"Programming Language :: Python :: 3.') == len(matrix["python"])
